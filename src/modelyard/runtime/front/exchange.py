"""One request and its answer, as HTTP has it or as gRPC has it.

A gRPC call comes over HTTP/1.1, framed as gRPC frames it, to a path that says so; its status goes into trailers, or
into the head where there is no message. Source: gRPC over HTTP2 (PROTOCOL-HTTP2.md), gRPC statuscodes.md.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol
from urllib.parse import quote

from modelyard.wire import oip, oip_grpc

CALLS = f"/{oip_grpc.SERVICE}/".encode()
"""How the path of a gRPC call begins; the method follows."""

GRPC_STATUS = {400: 3, 403: 7, 404: 5, 405: 12, 408: 4, 413: 8, 429: 8, 431: 8, 500: 13, 501: 12, 503: 14}
"""By HTTP status: invalid argument, permission denied, not found, unimplemented, deadline exceeded, ..."""

REASONS = {
    200: b"OK",
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
}
JSON = b"application/json"

_CALL_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\n"
_TRAILERS_FOLLOW = b"transfer-encoding: chunked\r\ntrailer: grpc-status\r\n"
_LAST_CHUNK = b"\r\n0\r\ngrpc-status: 0\r\n\r\n"
_LONGEST_ID = 128
_LONGEST_SENTENCE = 1000  # a proxy refuses large heads
_UNQUOTED = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"  # all of ASCII that can be seen, without the percent sign


class Conversation(Protocol):
    """What an exchange is part of: a connection.

    ending: the next answer should ask the client to leave.
    """

    loop: asyncio.AbstractEventLoop

    @property
    def ending(self) -> bool: ...

    def answered(self) -> None:
        """An exchange has its answer now."""
        ...


class Exchange:
    """A request and, once, its answer.

    target: path and query as sent. body: complete. gone: the client went away. received: monotonic seconds when the
    request was complete. id: as the gateway or a client gave it (x-request-id), or empty. compared_percent: of a copy
    of a request, how many of a hundred are to be compared; sender: the address of who sent it, "" over a Unix socket.
    told: called, once, with status and body of the answer.
    """

    __slots__ = (
        "_connection",
        "_reply",
        "body",
        "compared_percent",
        "gone",
        "id",
        "keep_alive",
        "method",
        "received",
        "sender",
        "target",
        "told",
    )

    def __init__(self, connection: Conversation, method: bytes, target: bytes, body: bytes, keep_alive: bool) -> None:
        self._connection = connection
        self._reply: bytes | None = None
        self.method = method
        self.target = target
        self.body = body
        self.keep_alive = keep_alive
        self.gone = False
        self.id = b""
        self.received = connection.loop.time()
        self.compared_percent = 0
        self.sender = ""
        self.told: Callable[[int, bytes], None] | None = None

    @property
    def is_call(self) -> bool:
        """Whether gRPC asks."""
        return self.target.startswith(CALLS)

    @property
    def name(self) -> str:
        """What logs call it: its id, of which they take no more than a line can hold."""
        shown = self.id[:_LONGEST_ID].decode("ascii", "replace")
        return "".join(each if each.isprintable() else "?" for each in shown) or "without an id"

    @property
    def reply(self) -> bytes | None:
        """The bytes of the answer, once there is one."""
        return self._reply

    def age(self) -> float:
        """Seconds since the request was complete."""
        return self._connection.loop.time() - self.received

    def answer(self, status: int, body: bytes, *, kind: bytes = JSON, retry_after: int = 0, allow: bytes = b"") -> None:
        """Answer, at most once. retry_after: seconds, 0 for none. allow: the methods that a 405 names."""
        assert self._reply is None, "a request is answered once"
        connection = self._connection
        self.keep_alive = self.keep_alive and not connection.ending
        head = b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n" % (
            status,
            REASONS[status],
            kind,
            len(body),
        )
        if retry_after:
            head += b"retry-after: %d\r\n" % retry_after
        if allow:
            head += b"allow: %b\r\n" % allow
        if not self.keep_alive:
            head += b"connection: close\r\n"
        self._reply = head + b"\r\n" + body if self.method != b"HEAD" else head + b"\r\n"
        connection.answered()
        if self.told is not None:
            told, self.told = self.told, None
            told(status, body)

    def refuse(self, status: int, message: str, *, retry_after: int = 0, allow: bytes = b"") -> None:
        """Answer with `{"error": message}`; a call with the status of gRPC that means the same."""
        if self.is_call:
            sentence = quote(message[:_LONGEST_SENTENCE], safe=_UNQUOTED).encode()
            self._answer_call(
                b"content-length: 0\r\ngrpc-status: %d\r\ngrpc-message: %b\r\n" % (GRPC_STATUS[status], sentence), b""
            )
        else:
            self.answer(status, oip.encode_error(message), retry_after=retry_after, allow=allow)

    def give(self, body: bytes) -> None:
        """Answer with what was asked for: JSON, or the message that a call expects."""
        if self.is_call:
            size = len(body)
            frame = b"%x\r\n\0%b" % (size + 5, size.to_bytes(4, "big"))
            self._answer_call(_TRAILERS_FOLLOW, b"".join((frame, body, _LAST_CHUNK)))
        else:
            self.answer(200, body)

    def _answer_call(self, head: bytes, body: bytes) -> None:
        assert self._reply is None, "a request is answered once"
        connection = self._connection
        self.keep_alive = self.keep_alive and not connection.ending
        close = b"" if self.keep_alive else b"connection: close\r\n"
        self._reply = b"".join((_CALL_HEAD, head, close, b"\r\n", body))
        connection.answered()

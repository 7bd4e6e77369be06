"""One request and its answer."""

import asyncio
from typing import Protocol

from modelyard.wire import oip

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
    request was complete.
    """

    __slots__ = ("_connection", "_reply", "body", "gone", "keep_alive", "method", "received", "target")

    def __init__(self, connection: Conversation, method: bytes, target: bytes, body: bytes, keep_alive: bool) -> None:
        self._connection = connection
        self._reply: bytes | None = None
        self.method = method
        self.target = target
        self.body = body
        self.keep_alive = keep_alive
        self.gone = False
        self.received = connection.loop.time()

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

    def refuse(self, status: int, message: str, *, retry_after: int = 0, allow: bytes = b"") -> None:
        """Answer with `{"error": message}`."""
        self.answer(status, oip.encode_error(message), retry_after=retry_after, allow=allow)

"""`GET /report` and `GET /healthz` over HTTP/1.1, for places whose files nobody else sees.

One request per connection, with bounds of size, time and number: whoever reaches the port may ask.
Source: RFC 9112 (HTTP/1.1).
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from modelyard.base.errors import UserError
from modelyard.wire.place import ENV_REPORT_LISTEN, host_and_port

MOST_BYTES = 4096
"""Of a request."""
_MOST_CLIENTS = 32
_SECONDS = 5.0
_REQUEST = re.compile(rb"(GET|HEAD) (/[!-~]*) HTTP/1\.[01]\r?\n")
_END = re.compile(rb"\r?\n\r?\n")
_REASONS = {200: b"OK", 204: b"No Content", 400: b"Bad Request", 404: b"Not Found", 431: b"Request Too Large"}


def answer(received: bytes, latest: bytes) -> bytes | None:
    """What to send for what came in so far; None: wait for more. latest: the report, b"" while there is none."""
    if not _END.search(received, 0, MOST_BYTES):
        return _response(431, b"") if len(received) >= MOST_BYTES else None
    request = _REQUEST.match(received)
    if request is None:
        return _response(400, b"")
    method, target = request.groups()
    path = target.partition(b"?")[0]
    if path == b"/healthz":
        status, body = 200, b"{}"
    elif path == b"/report":
        status, body = (200, latest) if latest else (204, b"")
    else:
        status, body = 404, b""
    return _response(status, body, head=method == b"HEAD")


def _response(status: int, body: bytes, *, head: bool = False) -> bytes:
    kind = b"content-type: application/json\r\n" if body else b""
    length = b"" if status == 204 else b"content-length: %d\r\n" % len(body)
    last = b"cache-control: no-store\r\nconnection: close\r\n\r\n"
    start = b"HTTP/1.1 %d %b\r\n" % (status, _REASONS[status])
    return b"".join((start, kind, length, last, b"" if head else body))


class _Client(asyncio.Protocol):
    """One connection. clients: all that are open."""

    def __init__(self, latest: Callable[[], bytes], clients: "set[_Client]") -> None:
        self._latest = latest
        self._clients = clients
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._clients.add(self)
        if len(self._clients) > _MOST_CLIENTS:
            self._transport.abort()
        self._timer = asyncio.get_running_loop().call_later(_SECONDS, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._received += data[: MOST_BYTES - len(self._received)]
        found = answer(self._received, self._latest())
        if found is not None:
            transport.write(found)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why it ended changes nothing
        self._clients.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()


@asynccontextmanager
async def offered(listen: str, latest: Callable[[], bytes]) -> AsyncIterator[str]:
    """Answer as long as this is open; gives the address, `host:port`. listen: the same, or "" for nothing at all.

    Raises UserError where it cannot listen.
    """
    if not listen:
        yield ""
        return
    host, port = host_and_port(ENV_REPORT_LISTEN, listen)
    clients: set[_Client] = set()
    try:
        server = await asyncio.get_running_loop().create_server(lambda: _Client(latest, clients), host, port)
    except OSError as error:
        raise UserError(f"{ENV_REPORT_LISTEN}: cannot listen on {listen}: {error.strerror or error}") from error
    try:
        yield "{}:{}".format(*server.sockets[0].getsockname()[:2])
    finally:
        server.close()
        for each in tuple(clients):
            each.abort()
        await asyncio.sleep(0)  # the transports close in the next turn of the loop

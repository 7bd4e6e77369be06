"""HTTP/1.1 on a uvloop transport: one `Connection` per client.

No ASGI: a request is one object, parsed by llhttp, answered by one call and one write. Pipelined requests are answered
in order. Every answer that this module makes by itself is `{"error": "<sentence>"}`.
Source: RFC 9112 (HTTP/1.1), RFC 9110.
"""

import asyncio
from collections import deque
from typing import Protocol, cast

import httptools
import msgspec

from modelyard.runtime.front.exchange import Exchange
from modelyard.runtime.front.gateway import Gateway
from modelyard.wire.work import GATEWAY_HEADER, SHADOW_HEADER

METRICS = b"/metrics"
LIVE, READY = b"/v2/health/live", b"/v2/health/ready"
_OPEN = frozenset((METRICS, LIVE, READY))

_GATEWAY = GATEWAY_HEADER.encode()
_SHADOW = SHADOW_HEADER.encode()
_WATCHED = frozenset(
    (
        b"content-length",
        b"content-encoding",
        b"expect",
        b"host",
        b"inference-header-content-length",
        b"origin",
        b"transfer-encoding",
        b"x-request-id",
        _GATEWAY,
        _SHADOW,
    )
)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one client may take.

    body_bytes: of one request. head_bytes: request line and headers. pipelined: requests of one connection that are
    worked on at a time. read_seconds: for a whole request, plus what its bytes take at read_bytes_per_second.
    write_seconds: without a client taking what was written. idle_seconds: between requests; more than the hour after
    which Envoy gives up an idle connection, so that it never sends a request into one that is being closed.
    stranger_seconds: the same for who has not shown to be the gateway where it must.
    linger_seconds: a refused client may go on sending before it is cut off and might miss the answer.
    """

    body_bytes: int = 64 * 2**20
    head_bytes: int = 16 * 2**10
    pipelined: int = 16
    read_seconds: float = 30.0
    read_bytes_per_second: int = 16 * 2**10
    write_seconds: float = 60.0
    idle_seconds: float = 3900.0
    stranger_seconds: float = 30.0
    linger_seconds: float = 2.0
    write_buffer_bytes: int = 2**20


class Site(Protocol):
    """What connections belong to.

    local_only: refuse requests that a web page made a browser send (foreign Host or Origin). gateway: where requests
    must come from, but those for METRICS, LIVE and READY, which are for whoever can connect; None: anywhere.
    """

    local_only: bool
    gateway: Gateway | None
    limits: Limits

    @property
    def draining(self) -> bool: ...

    def entered(self, connection: "Connection") -> bool:
        """Whether there is room for one more client."""
        ...

    def left(self, connection: "Connection") -> None: ...

    def respond(self, exchange: Exchange) -> None:
        """Answer the exchange, now or later. Must not raise."""
        ...


class Connection(asyncio.Protocol):
    """Parses requests, hands them to the site and writes the answers in order."""

    def __init__(self, site: Site, loop: asyncio.AbstractEventLoop) -> None:
        self.site = site
        self.loop = loop
        self._limits = site.limits
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpRequestParser | None = None
        self._exchanges: deque[Exchange] = deque()  # handed to the site, in order of arrival
        self._backlog: deque[Exchange] = deque()  # parsed, and not handed to the site yet
        self._advancing = False
        self._reading_paused = False
        self._writing_paused_at = 0.0
        self._refused_at = 0.0
        self._idle_since = loop.time()
        self._is_stranger = site.gateway is not None
        self._begun_at = 0.0  # when the request that is not complete yet began; 0: there is none
        self._begun_now = False
        self._received_bytes = 0
        self._overhead_bytes = 0
        self._reset_message()

    def _reset_message(self) -> None:
        self._target = b""
        self._head_bytes = 0
        self._head_complete = False
        self._body: bytes | list[bytes] = b""
        self._body_bytes = 0
        self._headers: dict[bytes, bytes] = {}

    # -- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(self._limits.write_buffer_bytes)
        self._parser = httptools.HttpRequestParser(self)
        if not self.site.entered(self):
            self._refuse(503, "too many clients are connected; try again")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why it ended changes nothing
        self.site.left(self)
        for exchange in self._exchanges:
            exchange.gone = True
        self._exchanges.clear()
        self._backlog.clear()
        self._transport = None
        self._parser = None

    def data_received(self, data: bytes) -> None:
        if self._refused_at:
            return  # lingering: taken and thrown away, so that the client reads why before it is cut off
        assert self._parser is not None
        body_bytes = self._body_bytes
        self._begun_now = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "Upgrade and CONNECT are not supported; send a plain HTTP/1.1 request")
        except httptools.HttpParserError as error:
            self._refuse(400, f"the request is not valid HTTP/1.1: {error}")
        if self._begun_at:
            self._received_bytes += len(data)
            # Heads, trailers and chunk extensions that never end: the parser would keep them.
            moved = self._begun_now or self._body_bytes != body_bytes
            self._overhead_bytes = 0 if moved else self._overhead_bytes + len(data)
            if self._overhead_bytes > self._limits.head_bytes:
                self._refuse_head()

    def eof_received(self) -> bool:
        return False  # as with other servers, a client that stops sending is gone

    def pause_writing(self) -> None:
        self._writing_paused_at = self.loop.time()
        self._balance()

    def resume_writing(self) -> None:
        self._writing_paused_at = 0.0
        self._advance()

    # -- what the parser calls

    def on_message_begin(self) -> None:
        if self._refused_at:
            return
        self._begun_at = self.loop.time()
        self._begun_now = True
        self._received_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        name = name.lower()
        if name in _WATCHED and not self._head_complete:  # trailers come this way, too, and nobody has checked them
            self._headers[name] = value

    def on_headers_complete(self) -> None:
        self._head_complete = True
        if self._refused_at:
            return
        if self._head_bytes > self._limits.head_bytes:
            self._refuse_head()
        elif self.site.gateway is not None and not self._may_ask(self.site.gateway):
            self._refuse(403, "requests go through the gateway: status.url of the ModelService is its address")
        elif self._headers:
            self._check_headers(self._headers)

    def on_body(self, body: bytes) -> None:
        if self._refused_at:
            return
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            self._refuse_body()
        elif not self._body:
            self._body = body
        elif isinstance(self._body, bytes):
            self._body = [self._body, body]
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._refused_at:
            return
        assert self._parser is not None
        if self._parser.should_upgrade():
            return  # the parser is about to raise HttpParserUpgrade
        body = self._body if isinstance(self._body, bytes) else b"".join(self._body)
        keep_alive = self._parser.should_keep_alive()
        exchange = Exchange(self, self._parser.get_method(), self._target, body, keep_alive)
        if _SHADOW in self._headers and self.site.gateway is not None:  # nobody else is believed
            exchange.compared_percent = _percent(self._headers[_SHADOW])
            exchange.sender = self._peer()
        exchange.id = self._headers.get(b"x-request-id", b"")
        self._begun_at = 0.0
        self._reset_message()
        self._backlog.append(exchange)
        self._advance()

    def _peer(self) -> str:
        """The address of the other side, "" on a Unix socket."""
        peer = self._transport.get_extra_info("peername") if self._transport else None
        return str(peer[0]) if isinstance(peer, tuple) else ""

    # -- checks

    def _may_ask(self, gateway: Gateway) -> bool:
        headers = self._headers
        if gateway.is_shown(headers.get(_GATEWAY, b"")):
            self._is_stranger = False
            return True
        # Of strangers no bodies are kept.
        is_empty = b"transfer-encoding" not in headers and headers.get(b"content-length", b"0") == b"0"
        return is_empty and self._target in _OPEN

    def _check_headers(self, headers: dict[bytes, bytes]) -> None:
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and (len(length) > 18 or int(length) > self._limits.body_bytes):
            self._refuse_body()
        elif headers.get(b"content-encoding", b"identity").lower() != b"identity":
            self._refuse(400, "Content-Encoding: compressed requests are not accepted; send plain JSON")
        elif b"inference-header-content-length" in headers:
            self._refuse(
                400,
                "Inference-Header-Content-Length: the binary tensor extension is not supported; send tensors as JSON "
                "(tritonclient: binary_data=False)",
            )
        elif self.site.local_only and not (
            _is_loopback(headers.get(b"host", b"localhost")) and _is_loopback(headers.get(b"origin", b"localhost"))
        ):
            self._refuse(403, "Host and Origin must be this machine: this server answers local programs only")
        elif headers.get(b"expect", b"").lower() == b"100-continue" and not (self._exchanges or self._backlog):
            assert self._transport is not None
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _refuse_head(self) -> None:
        self._refuse(431, f"the request line and headers must not exceed {self._limits.head_bytes} bytes")

    def _refuse_body(self) -> None:
        self._refuse(413, f"the body of a request must not exceed {self._limits.body_bytes} bytes; send fewer rows")

    def _refuse(self, status: int, message: str) -> None:
        """Answer, after what came before, and read nothing more from this client."""
        if self._refused_at:
            return
        self._refused_at = self.loop.time()
        self._begun_at = 0.0
        self._body = b""
        refusal = Exchange(self, b"", self._target, b"", keep_alive=False)
        self._backlog.append(refusal)
        refusal.refuse(status, message, retry_after=1 if status == 503 else 0)

    # -- order and flow

    def answered(self) -> None:
        """An exchange of this connection has its answer: write what is due."""
        exchanges = self._exchanges
        while exchanges and exchanges[0].reply is not None:
            self._write(exchanges.popleft())
        if not exchanges:
            self._idle_since = self.loop.time()
        if self._backlog or self._reading_paused:
            self._advance()

    def _advance(self) -> None:
        """Hand requests to the site, as many as may be worked on at a time."""
        if self._advancing:
            return  # an answer given at once came back here: the loop below goes on
        self._advancing = True
        backlog, exchanges, limit = self._backlog, self._exchanges, self._limits.pipelined
        while backlog and len(exchanges) < limit and not self._writing_paused_at:
            exchange = backlog.popleft()
            exchanges.append(exchange)
            if exchange.reply is None:
                self.site.respond(exchange)
            else:
                self.answered()
        self._advancing = False
        self._balance()

    def _write(self, exchange: Exchange) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        assert exchange.reply is not None
        transport.write(exchange.reply)
        if exchange.keep_alive:
            return
        for later in (*self._exchanges, *self._backlog):
            later.gone = True
        self._backlog.clear()
        if self._refused_at:
            self._refused_at = self.loop.time()
            transport.write_eof()  # the rest of its request may still be on the way: `check` closes
        else:
            transport.close()

    def _balance(self) -> None:
        """Read on only while there is room for what comes."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        full = bool(self._backlog) or bool(self._writing_paused_at) or len(self._exchanges) >= self._limits.pipelined
        if full == self._reading_paused:
            return
        self._reading_paused = full
        if full:
            transport.pause_reading()
        else:
            transport.resume_reading()

    # -- time

    @property
    def ending(self) -> bool:
        """Whether the next answer should ask the client to leave: the server stops, and nothing else is under way."""
        return self.site.draining and len(self._exchanges) <= 1 and not self._backlog and not self._begun_at

    @property
    def busy(self) -> bool:
        """Whether a request has begun and its answer is not written yet."""
        return bool(self._exchanges or self._backlog or self._begun_at)

    def idle_seconds(self) -> float:
        """Since when nothing is under way; 0 while something is."""
        return 0.0 if self.busy else self.loop.time() - self._idle_since

    def check(self, now: float) -> None:
        """Called about once a second: end what takes too long."""
        limits = self._limits
        if self._refused_at and not self._exchanges:
            if now - self._refused_at > limits.linger_seconds:
                self.abort()
        elif self._writing_paused_at:
            if now - self._writing_paused_at > limits.write_seconds:
                self.abort()
        elif self._begun_at and not self._reading_paused:
            allowed = limits.read_seconds + self._received_bytes / limits.read_bytes_per_second
            if now - self._begun_at > allowed:
                self._refuse(408, f"the request was not complete after {allowed:.0f} seconds")
        elif self.idle_seconds() > (limits.stranger_seconds if self._is_stranger else limits.idle_seconds):
            self.close()

    def close(self) -> None:
        """Close, after what is written already."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()


def _percent(value: bytes) -> int:
    return min(int(value), 100) if value.isdigit() and len(value) <= 3 else 0


def _is_loopback(value: bytes) -> bool:
    """Whether a Host or an Origin names this machine."""
    host = value.rpartition(b"://")[2].lower()
    if host.startswith(b"["):
        return host.partition(b"]")[0] == b"[::1"
    return host.partition(b":")[0] in (b"localhost", b"127.0.0.1")

import asyncio
import re
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from front_testing import get, post
from modelyard.runtime.front.exchange import Exchange
from modelyard.runtime.front.gateway import Gateway
from modelyard.runtime.front.http import Connection, Limits


class Loop:
    """Time, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now


class Transport:
    """What was written, and what the connection did to its transport."""

    def __init__(self) -> None:
        self.written = b""
        self.peer: Any = ""
        self.closing = False
        self.aborted = False
        self.ended = False
        self.reading = True

    def set_write_buffer_limits(self, high: int) -> None: ...

    def write(self, data: bytes) -> None:
        assert not self.closing
        assert not self.ended
        self.written += data

    def write_eof(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.closing

    def get_extra_info(self, name: str) -> Any:
        return self.peer if name == "peername" else None

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True


class Site:
    """Keeps exchanges until the test answers them; paths that begin with /now are answered at once."""

    def __init__(self, limits: Limits, local_only: bool = False) -> None:
        self.draining = False
        self.full = False
        self.local_only = local_only
        self.gateway: Gateway | None = None
        self.limits = limits
        self.asked: list[Exchange] = []
        self.clients: set[Connection] = set()

    def entered(self, connection: Connection) -> bool:
        self.clients.add(connection)
        return not self.full

    def left(self, connection: Connection) -> None:
        self.clients.discard(connection)

    def respond(self, exchange: Exchange) -> None:
        if exchange.target.startswith(b"/now"):
            exchange.answer(200, exchange.target + b" " + exchange.body)
        else:
            self.asked.append(exchange)


class Wire:
    """A connection between a fake transport and a fake site."""

    def __init__(self, local_only: bool = False, **limits: Any) -> None:
        self.loop = Loop()
        self.site = Site(Limits(**limits), local_only)
        self.transport = Transport()
        self.connection = Connection(self.site, cast(asyncio.AbstractEventLoop, self.loop))
        self.begin()

    def begin(self) -> None:
        self.connection.connection_made(cast(asyncio.BaseTransport, self.transport))

    def feed(self, data: bytes) -> None:
        if not self.transport.closing:
            self.connection.data_received(data)

    def after(self, seconds: float) -> None:
        self.loop.now += seconds
        self.connection.check(self.loop.now)

    @property
    def statuses(self) -> list[int]:
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", self.transport.written)]


def test_answers_are_written_in_the_order_of_the_requests() -> None:
    wire = Wire()
    wire.feed(get("/a") + get("/now") + get("/b"))
    assert wire.statuses == []
    wire.site.asked[1].answer(404, b"b")
    assert wire.statuses == []
    wire.site.asked[0].answer(400, b"a")
    assert wire.statuses == [400, 200, 404]


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("X-Request-Id: order 17\r\n", "order 17"),
        ("x-request-id: a\tb\xff\r\n", "a?b\ufffd\ufffd"),
        (f"x-request-id: {'x' * 300}\r\n", "x" * 128),
        ("", "without an id"),
    ],
)
def test_a_request_has_a_name_that_a_line_of_a_log_can_hold(sent: str, name: str) -> None:
    wire = Wire()
    wire.feed(post("/a", b"", sent) + get("/b"))
    first, second = wire.site.asked
    assert (first.name, second.name) == (name, "without an id")


def test_trailers_are_no_headers() -> None:
    wire = Wire()
    head = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nX-Request-Id: mine\r\n\r\n"
    wire.feed(head + b"1\r\na\r\n0\r\nX-Request-Id: forged\r\n\r\n" + get("/b"))
    first, second = wire.site.asked
    assert (first.name, second.name) == ("mine", "without an id")


def test_a_request_is_the_same_however_its_bytes_arrive() -> None:
    request = post("/now", b"body", "X-A: b\r\n") + get("/now/2")
    whole = Wire()
    whole.feed(request)
    pieces = Wire()
    for byte in request:
        pieces.feed(bytes([byte]))
    assert pieces.transport.written == whole.transport.written
    assert b"/now body" in whole.transport.written


def test_no_more_requests_of_one_connection_are_worked_on_than_allowed_and_reading_pauses() -> None:
    wire = Wire(pipelined=2)
    wire.feed(get("/a") * 5)
    assert len(wire.site.asked) == 2
    assert not wire.transport.reading
    for done in range(5):
        wire.site.asked[done].answer(200, b"")
    assert wire.statuses == [200] * 5
    assert wire.transport.reading


def test_thousands_of_pipelined_requests_need_no_deep_stack() -> None:
    wire = Wire()
    wire.feed(get("/now") * 5000)
    assert wire.statuses == [200] * 5000


def test_nothing_is_worked_on_while_the_client_does_not_read() -> None:
    wire = Wire(write_seconds=60)
    wire.connection.pause_writing()
    wire.feed(get("/now") * 3)
    assert wire.statuses == []
    assert not wire.transport.reading
    wire.connection.resume_writing()
    assert wire.statuses == [200] * 3
    assert wire.transport.reading


def test_a_client_that_never_reads_is_cut_off() -> None:
    wire = Wire(write_seconds=60)
    wire.connection.pause_writing()
    wire.after(59)
    assert not wire.transport.closing
    wire.after(2)
    assert wire.transport.aborted


def test_a_request_that_comes_too_slowly_is_refused() -> None:
    wire = Wire(read_seconds=30, read_bytes_per_second=1000)
    wire.feed(post("/a", b"x" * 5000)[:-1])
    wire.after(34)
    assert wire.statuses == []
    wire.after(2)
    assert wire.statuses == [408]


def test_a_slow_model_is_not_a_slow_client() -> None:
    wire = Wire(read_seconds=30)
    wire.feed(get("/a"))
    wire.after(3600)
    wire.site.asked[0].answer(200, b"")
    assert wire.statuses == [200]


def test_an_idle_connection_is_closed_after_its_time_and_not_before() -> None:
    wire = Wire(idle_seconds=100)
    wire.after(99)
    wire.feed(get("/now"))
    wire.after(99)
    assert not wire.transport.closing
    wire.after(2)
    assert wire.transport.closing


def test_a_refused_client_may_finish_sending_before_it_is_cut_off() -> None:
    wire = Wire(body_bytes=10, linger_seconds=2)
    wire.feed(post("/a", b"x" * 1000)[:-500])
    assert wire.statuses == [413]
    assert wire.transport.ended
    assert not wire.transport.closing
    wire.feed(b"x" * 500)
    wire.after(3)
    assert wire.transport.aborted
    assert wire.statuses == [413]


def test_a_refusal_waits_for_the_answers_before_it() -> None:
    wire = Wire()
    wire.feed(get("/a") + b"garbage\r\n\r\n")
    assert wire.statuses == []
    wire.site.asked[0].answer(200, b"")
    assert wire.statuses == [200, 400]


def test_one_client_too_many_is_told_so_and_nothing_is_read_from_it() -> None:
    wire = Wire()
    wire.connection.connection_lost(None)
    wire.site.full = True
    wire.begin()
    wire.feed(get("/a"))
    assert wire.statuses == [503]
    assert wire.site.asked == []
    wire.after(3)
    assert wire.transport.aborted


def test_a_client_that_leaves_is_noticed_by_its_exchanges() -> None:
    wire = Wire()
    wire.feed(get("/a"))
    wire.connection.connection_lost(None)
    assert wire.site.asked[0].gone
    assert wire.site.clients == set()


def test_while_draining_the_last_answer_asks_the_client_to_leave() -> None:
    wire = Wire()
    wire.feed(get("/a") * 2)
    wire.site.draining = True
    for exchange in wire.site.asked:
        exchange.answer(200, b"")
    assert wire.statuses == [200, 200]
    assert wire.transport.written.count(b"connection: close") == 1
    assert wire.transport.closing


def test_a_length_that_is_too_large_is_refused_before_the_body_comes() -> None:
    for length in ("101", "9" * 30):
        wire = Wire(body_bytes=100)
        wire.feed(f"POST /a HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode())
        assert wire.statuses[-1:] in ([413], [400])
        assert wire.site.asked == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Host: localhost:8080\r\n", 200),
        ("Host: 127.0.0.1\r\nOrigin: http://localhost:3000\r\n", 200),
        ("Host: [::1]:8080\r\n", 200),
        ("Host: evil.example\r\n", 403),
        ("Host: localhost.evil.example\r\n", 403),
        ("Host: localhost\r\nOrigin: https://evil.example\r\n", 403),
        ("Host: localhost\r\nOrigin: null\r\n", 403),
    ],
)
def test_a_local_server_refuses_what_foreign_web_pages_send(headers: str, status: int) -> None:
    wire = Wire(local_only=True)
    wire.feed(f"GET /now HTTP/1.1\r\n{headers}\r\n".encode())
    assert wire.statuses == [status]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


SOMETHING = st.one_of(
    st.binary(max_size=80),
    st.sampled_from([get("/now"), get("/a"), post("/now", b"body"), post("/a", b"x" * 200), b"\r\n"]),
    st.sampled_from(
        [
            b"POST /now HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"3\r\nabc\r\n",
            b"0\r\n\r\n",
            b"FFFFFFFFFFFFFFFFF\r\n",
            b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"POST /a HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"POST /a HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n",
        ]
    ),
)


@settings(max_examples=200)
@given(st.lists(SOMETHING, max_size=8).map(b"".join), st.lists(st.integers(0, 1000), max_size=6), st.booleans())
def test_any_bytes_in_any_pieces_end_in_answers_or_one_refusal(data: bytes, places: list[int], lose: bool) -> None:
    wire = Wire(body_bytes=100, head_bytes=200, pipelined=2)
    for piece in cut(data, places):
        wire.feed(piece)
        for exchange in wire.site.asked:
            if exchange.reply is None and not exchange.gone:
                exchange.answer(200, b"")
    refusals = [status for status in wire.statuses if status not in (100, 200)]
    assert len(refusals) <= 1
    if refusals:
        assert wire.statuses[-1] == refusals[0]
        assert b'{"error":"' in wire.transport.written
    if lose:
        wire.connection.connection_lost(None)
        wire.after(0)
    else:
        wire.after(100)  # whatever is half done is over by now
        wire.after(100)
        assert not wire.connection.busy


def test_the_answer_is_told_once_after_it_was_written() -> None:
    wire = Wire()
    wire.feed(post("/a", b"{}"))
    (asked,) = wire.site.asked
    told: list[tuple[int, bytes, bool]] = []
    asked.told = lambda status, body: told.append((status, body, wire.statuses == [400]))
    asked.answer(400, b"no")
    assert told == [(400, b"no", True)]
    assert asked.told is None

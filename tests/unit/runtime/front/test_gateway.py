"""What a connection lets through that answers its gateway alone."""

import asyncio
import hashlib
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from front_testing import get, post
from modelyard.base.errors import UserError
from modelyard.runtime.front.gateway import Gateway
from modelyard.runtime.front.http import Connection

from .test_http import Wire

SECRET = b"5" * 64
GATEWAY = Gateway(hashlib.sha256(SECRET).hexdigest())


def answered(request: bytes, cuts: list[int]) -> list[int]:
    """The statuses of a server that demands SECRET, however the bytes arrive."""
    wire = Wire()
    wire.site.gateway = GATEWAY
    for start, end in zip([0, *cuts], [*cuts, len(request)], strict=True):
        wire.feed(request[start:end])
    return wire.statuses


@given(st.binary(max_size=80).filter(lambda value: value.strip(b" \t") != SECRET and not set(value) & set(b"\r\n\0")))
def test_no_other_value_passes_for_the_gateways_secret(value: bytes) -> None:
    assert answered(get("/now").replace(b"\r\n\r\n", b"\r\nx-modelyard-gateway: " + value + b"\r\n\r\n"), []) in (
        [403],
        [400],
    )


@given(st.data())
def test_the_gateways_secret_is_found_however_its_bytes_arrive(data: st.DataObject) -> None:
    request = get("/now", f"X-Modelyard-Gateway: {SECRET.decode()}\r\n")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(request)), max_size=6)))
    assert answered(request, cuts) == [200]


def test_each_request_of_a_connection_must_bear_the_gateways_secret() -> None:
    bearing = get("/now", f"x-modelyard-gateway: {SECRET.decode()}\r\n")
    assert answered(bearing + get("/now") + bearing, []) == [200, 403]


@pytest.mark.parametrize("path", ["/metrics", "/v2/health/live", "/v2/health/ready"])
def test_measures_and_health_are_for_whoever_can_connect_and_keep_no_bodies(path: str) -> None:
    assert answered(get(path), []) == []  # handed on to whoever answers it
    assert answered(post(path, b""), []) == []
    for request in (
        get(f"{path}/"),
        get(f"{path}?x"),
        get(f"/{path}"),
        post(path, b"x"),
        get(path, "Transfer-Encoding: chunked\r\n"),
        get(path, "Content-Length: 60000000\r\n"),
    ):
        assert answered(request, []) == [403], request


def test_strangers_are_not_kept_as_long_as_the_gateway() -> None:
    for header, closing in (("", True), (f"x-modelyard-gateway: {SECRET.decode()}\r\n", False)):
        wire = Wire()
        wire.site.gateway = Gateway(hashlib.sha256(SECRET).hexdigest())
        wire.connection = Connection(wire.site, cast(asyncio.AbstractEventLoop, wire.loop))
        wire.begin()
        wire.feed(get("/v2/health/live", header))
        wire.after(60)
        assert not wire.transport.closing, "one that waits for its answer is no idle one"
        wire.site.asked[0].answer(200, b"")
        wire.after(60)
        assert wire.transport.closing == closing
        if not closing:
            wire.after(3800)
            assert not wire.transport.closing


@pytest.mark.parametrize(
    ("value", "percent"),
    [("0", 0), ("25", 25), ("100", 100), ("101", 100), ("1e1", 0), ("-1", 0), ("", 0), ("0100", 0), ("\xb2", 0)],
)
def test_a_copy_says_how_many_of_a_hundred_are_compared(value: str, percent: int) -> None:
    wire = Wire()
    wire.site.gateway = GATEWAY
    bearing = f"x-modelyard-gateway: {SECRET.decode()}\r\n"
    request = post("/a", b"{}", f"{bearing}X-Modelyard-Shadow: @\r\n")
    wire.feed(request.replace(b"@", value.encode("latin-1")) + post("/b", b"{}", bearing))
    first, second = wire.site.asked
    assert (first.compared_percent, second.compared_percent) == (percent, 0)


@pytest.mark.parametrize(
    ("peer", "sender"), [("", ""), (("10.0.0.9", 1234), "10.0.0.9"), (("fd00::1", 1, 0, 0), "fd00::1")]
)
def test_a_copy_says_which_gateway_has_sent_it(peer: object, sender: str) -> None:
    wire = Wire()
    wire.site.gateway = GATEWAY
    wire.transport.peer = peer
    wire.feed(post("/a", b"{}", f"x-modelyard-gateway: {SECRET.decode()}\r\nx-modelyard-shadow: 100\r\n"))
    assert wire.site.asked[0].sender == sender


def test_nobody_but_the_gateway_is_believed_about_copies() -> None:
    wire = Wire()
    wire.feed(post("/a", b"{}", "x-modelyard-shadow: 100\r\n"))
    assert [each.compared_percent for each in wire.site.asked] == [0]


def test_the_secret_is_known_once_it_was_shown_and_nothing_else_is() -> None:
    gateway = Gateway(hashlib.sha256(SECRET).hexdigest())
    for value in (b"", SECRET[:-1], SECRET + b"0", b"\xff" * 64, hashlib.sha256(SECRET).hexdigest().encode()):
        assert not gateway.is_shown(value)
    assert gateway.secret == ""
    for _ in range(2):
        assert gateway.is_shown(SECRET)
        assert gateway.secret == SECRET.decode()
        assert not gateway.is_shown(b"")
        assert not gateway.is_shown(SECRET[:-1])


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n"])
def test_a_digest_that_is_none_is_refused(digest: str) -> None:
    with pytest.raises(UserError, match="64 hexadecimal digits"):
        Gateway(digest)

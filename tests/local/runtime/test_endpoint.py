"""The latest report over a real socket."""

import asyncio
import contextlib

import pytest

from modelyard.base.errors import UserError
from modelyard.runtime.report import endpoint
from modelyard.runtime.report.endpoint import offered


async def ask(address: str, request: bytes, pieces: int = 1) -> bytes:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        size = -(-len(request) // pieces)
        for start in range(0, len(request), size):
            writer.write(request[start : start + size])
            await writer.drain()
            await asyncio.sleep(0)
        return await rest(reader)
    finally:
        writer.transport.abort()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What still comes; b"" from who was cut off."""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(20):
            return await reader.read()
    return b""


GET = b"GET /report HTTP/1.1\r\nHost: 10.0.0.1:8081\r\n\r\n"


async def test_the_latest_report_is_given_as_long_as_it_is_open() -> None:
    latest = b""
    async with offered("127.0.0.1:0", lambda: latest) as address:
        assert (await ask(address, GET)).startswith(b"HTTP/1.1 204 ")
        for report in (b"{}", b"[" + b"1," * 2000 + b"1]"):
            latest = report
            for pieces in (1, 7):
                head, _, body = (await ask(address, GET, pieces)).partition(b"\r\n\r\n")
                assert (head[:12], body) == (b"HTTP/1.1 200", report)
        assert (await ask(address, b"GET /healthz HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert (await ask(address, b"x" * 10_000)).startswith(b"HTTP/1.1 431 ")
    with pytest.raises(OSError):  # noqa: PT011 - whichever
        await ask(address, GET)


async def test_nothing_is_offered_where_nothing_is_asked_for() -> None:
    async with offered("", lambda: b"") as address:
        assert address == ""


async def test_an_address_that_is_taken_is_named() -> None:
    async with offered("127.0.0.1:0", lambda: b"") as address:
        with pytest.raises(UserError, match=f"MODELYARD_REPORT_LISTEN: cannot listen on {address}"):
            async with offered(address, lambda: b""):
                pass


async def test_who_says_nothing_is_cut_off_and_who_is_too_many_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_MOST_CLIENTS", 3)
    monkeypatch.setattr(endpoint, "_SECONDS", 1.0)
    async with offered("127.0.0.1:0", lambda: b"{}") as address:
        host, _, port = address.rpartition(":")
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
        assert await ask(address, GET) == b"", "one too many"
        for reader, writer in silent:
            assert await rest(reader) == b""
            writer.transport.abort()
        assert (await ask(address, GET)).startswith(b"HTTP/1.1 200 ")
        still, writer = await asyncio.open_connection(host, int(port))
    assert await rest(still) == b"", "cut off with the server"
    writer.transport.abort()

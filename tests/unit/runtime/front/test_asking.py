"""A question and its answer, whatever comes back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelyard.runtime.front.asking import Answer, Reading, Unanswered, ask

HEAD = b"POST /v2/models/iris/infer HTTP/1.1\r\nhost: shadow\r\n"
MOST = 1000


def fed(data: bytes, sizes: list[int]) -> Answer | None:
    """What is made of bytes that come in pieces."""
    reading = Reading(MOST)
    for size in [*sizes, len(data)]:
        reading.feed(data[:size])
        data = data[size:]
    return reading.answer


def answer(body: bytes, status: str = "200 OK", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n%b" % (status.encode(), headers, len(body), body)


@given(st.binary(max_size=MOST), st.lists(st.integers(0, 40), max_size=20))
def test_an_answer_may_come_in_any_pieces(body: bytes, sizes: list[int]) -> None:
    assert fed(answer(body), sizes) == Answer(200, body)


@given(st.lists(st.binary(min_size=1, max_size=100), max_size=9), st.lists(st.integers(0, 40), max_size=20))
def test_so_may_one_in_chunks(chunks: list[bytes], sizes: list[int]) -> None:
    framed = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in chunks)
    data = b"HTTP/1.1 500 Oh\r\ntransfer-encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"
    assert fed(data, sizes) == Answer(500, b"".join(chunks))


def test_what_comes_before_and_after_an_answer_is_not_it() -> None:
    assert fed(b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"{}", "404 No"), []) == Answer(404, b"{}")
    assert fed(answer(b"{}") + b"garbage", []) == Answer(200, b"{}")
    assert fed(answer(b"{}") + answer(b"second"), []) == Answer(200, b"{}")
    assert fed(answer(b"{}")[:-1], []) is None


@given(st.binary(max_size=200), st.lists(st.integers(0, 40), max_size=20))
@example(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nxx", [])
@example(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", [])
@example(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", [])
@example(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n", [])
def test_anything_else_is_no_answer_or_a_short_one(data: bytes, sizes: list[int]) -> None:
    for tried in (data, b"HTTP/1.1 200 OK\r\n" + data, answer(b"{}", headers=data)):
        with contextlib.suppress(Unanswered):
            found = fed(tried, sizes)
            assert found is None or len(found.body) <= len(tried)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (answer(b"x" * (MOST + 1)), "more than 1000 bytes"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 10_000, "head of the answer is too long"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"x" * 60_000, "too long"),
        (b"SSH-2.0\r\n\r\n", "not valid HTTP/1.1"),
    ],
)
def test_an_answer_has_limits(data: bytes, why: str) -> None:
    with pytest.raises(Unanswered, match=why):
        fed(data, [500] * (len(data) // 500))


@contextlib.asynccontextmanager
async def answering(path: Path, data: bytes) -> AsyncIterator[list[bytes]]:
    """Who says that to everybody, and what was asked; whoever is told nothing is left waiting."""
    asked: list[bytes] = []
    done: list[asyncio.Event] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        done.append(asyncio.Event())
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head + await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0])))
        writer.write(data)
        if not data:
            await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        done[-1].set()

    server = await asyncio.start_unix_server(serve, str(path))
    try:
        yield asked
    finally:
        server.close()
        for each in done:
            await each.wait()


async def test_a_question_is_asked_with_its_body(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with answering(path, answer(b"{}")) as asked:
        assert await ask(str(path), HEAD, b"body", most_bytes=MOST, seconds=10) == Answer(200, b"{}")
    assert asked == [HEAD + b"content-length: 4\r\n\r\nbody"]


async def test_a_question_may_go_to_an_address_and_a_port() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b"{}"))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        at = server.sockets[0].getsockname()[:2]
        assert await ask(at, HEAD, b"", most_bytes=MOST, seconds=10) == Answer(200, b"{}")
    with pytest.raises(Unanswered, match="it cannot be reached"):
        await ask(at, HEAD, b"", most_bytes=MOST, seconds=10)


async def test_without_an_answer_it_says_why(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with pytest.raises(Unanswered, match="it cannot be reached: No such file or directory"):
        await ask(str(path), HEAD, b"", most_bytes=MOST, seconds=10)
    async with answering(path, answer(b"{}")[:-1]):
        with pytest.raises(Unanswered, match="closed before the answer was complete"):
            await ask(str(path), HEAD, b"", most_bytes=MOST, seconds=10)
    path.unlink(missing_ok=True)
    async with answering(path, b""):
        with pytest.raises(Unanswered, match=r"no answer within 0\.05 s"):
            await ask(str(path), HEAD, b"", most_bytes=MOST, seconds=0.05)

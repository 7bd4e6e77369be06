"""One question over a socket: a client of HTTP/1.1 with limits, for one request and its answer.

Source: RFC 9112 (HTTP/1.1).
"""

import asyncio
from typing import NamedTuple

import httptools

_READ_BYTES = 64 * 2**10
_HEAD_BYTES = 16 * 2**10


class Unanswered(Exception):
    """There was no answer, or one that is not taken. Its text says why, in a sentence."""


class Answer(NamedTuple):
    """status: of HTTP."""

    status: int
    body: bytes


class Reading:
    """An answer as it comes in. most_bytes: of its body."""

    def __init__(self, most_bytes: int) -> None:
        self.answer: Answer | None = None
        self._most_bytes = most_bytes
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._other_bytes = 0

    def feed(self, data: bytes) -> None:
        """`answer` is there when it is complete; what comes after it is not looked at. Raises Unanswered."""
        before = self._body_bytes
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise Unanswered("it wants to speak something else") from None
        except httptools.HttpParserError as error:
            if self.answer is None:
                raise Unanswered(f"the answer is not valid HTTP/1.1: {error}") from error
        if self.answer is None:
            self._check(len(data) - (self._body_bytes - before))

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        if self.answer is None:
            self._body_bytes += len(body)
            if self._body_bytes <= self._most_bytes:
                self._body.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        status = self._parser.get_status_code()
        if self.answer is None and status >= 200 and self._body_bytes <= self._most_bytes:
            self.answer = Answer(status, b"".join(self._body))

    def _check(self, others: int) -> None:
        # Heads, trailers and the frames of chunks: the parser would take any number of them.
        self._other_bytes += others
        if self._body_bytes > self._most_bytes:
            raise Unanswered(f"the answer has more than {self._most_bytes} bytes")
        if self._other_bytes > _HEAD_BYTES + self._body_bytes:
            raise Unanswered("the head of the answer is too long")


async def ask(where: str | tuple[str, int], head: bytes, body: bytes, *, most_bytes: int, seconds: float) -> Answer:
    """Send a request and wait for its answer. head: with everything but the length of the body and the empty line.

    where: the path of a Unix socket, or an address and a port. seconds: for all of it. Raises Unanswered.
    """
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await (
                asyncio.open_unix_connection(where, limit=_READ_BYTES)
                if isinstance(where, str)
                else asyncio.open_connection(*where, limit=_READ_BYTES)
            )
            try:
                writer.write(b"%bcontent-length: %d\r\n\r\n" % (head, len(body)))
                writer.write(body)
                return await _answer(reader, most_bytes)
            finally:
                writer.transport.abort()
    except TimeoutError:
        raise Unanswered(f"there was no answer within {seconds:g} s") from None
    except OSError as error:
        raise Unanswered(f"it cannot be reached: {error.strerror or error}") from error


async def _answer(reader: asyncio.StreamReader, most_bytes: int) -> Answer:
    reading = Reading(most_bytes)
    while reading.answer is None:
        data = await reader.read(_READ_BYTES)
        if not data:
            raise Unanswered("the connection was closed before the answer was complete")
        reading.feed(data)
    return reading.answer

"""Our ends of the pipes to a worker: frames as they arrive, and what it prints."""

import asyncio
import contextlib
import os
from collections import deque

from modelyard.wire import frames
from modelyard.wire.frames import Frame, FrameError

_LOG_LINES = 10
_LOG_CHARACTERS = 300


class Inbox(asyncio.Protocol):
    """Frames as they arrive: one at a time, each expected."""

    def __init__(self) -> None:
        self.broken: Exception | None = None
        self.ended = asyncio.Event()
        """Nothing more comes."""
        self._transport: asyncio.BaseTransport | None = None
        self._answer: asyncio.Future[Frame] | None = None
        self._head = bytearray()
        self._header: frames.Header | None = None
        self._body = bytearray()
        self._filled = 0

    def expect(self) -> asyncio.Future[Frame]:
        """The next frame, EOFError or FrameError."""
        self._answer = asyncio.get_running_loop().create_future()
        if self.broken is not None:
            self._answer.set_exception(self.broken)
        return self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  every end is the same
        self._break(EOFError())

    def data_received(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view and self.broken is None:
                view = self._feed(view)
        except FrameError as error:
            self._break(error)

    def _feed(self, view: memoryview) -> memoryview:
        """Take what the current part of the frame needs; returns the rest."""
        if self._answer is None or self._answer.done():
            raise FrameError(f"{len(view)} bytes that nobody asked for")
        if self._header is None:
            count = frames.HEADER_BYTES - len(self._head)
            self._head += view[:count]
            if len(self._head) == frames.HEADER_BYTES:
                self._header = frames.decode_header(self._head)
                self._head.clear()
                self._body = bytearray(self._header.size)
                self._filled = 0
            return view[count:]
        count = min(len(view), len(self._body) - self._filled)
        self._body[self._filled : self._filled + count] = view[:count]
        self._filled += count
        if self._filled == len(self._body):
            frame = frames.decode(self._header, self._body)
            self._header, self._body = None, bytearray()
            self._answer.set_result(frame)
        return view[count:]

    def _break(self, error: Exception) -> None:
        if self.broken is None:
            self.broken = error
            self.ended.set()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(self.broken)


class Outbox(asyncio.BaseProtocol):
    """A worker that reads no more gives no more answers."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def connection_lost(self, exc: Exception | None) -> None:
        self._inbox.connection_lost(exc)


class Log(asyncio.Protocol):
    """What the model prints goes to the log of this process; the last lines are kept."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=_LOG_LINES)
        self.ended = asyncio.Event()
        self._rest = ""
        self._transport: asyncio.BaseTransport | None = None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody reads our own log; there is nowhere left to tell
            os.write(2, data)
        *lines, rest = (self._rest + data.decode(errors="replace")).split("\n")
        self.lines.extend(line[:_LOG_CHARACTERS] for line in lines if line.strip())
        self._rest = rest[:_LOG_CHARACTERS]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  every end is the same
        if self._rest.strip():
            self.lines.append(self._rest)
        self.ended.set()

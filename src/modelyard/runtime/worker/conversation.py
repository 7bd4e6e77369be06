"""What is said with a worker over two pipes, whoever has started it."""

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass

from modelyard.base.conditions import Reason
from modelyard.base.errors import ModelyardError, RetryLater, UserError
from modelyard.runtime.worker.pipes import Inbox
from modelyard.wire import frames
from modelyard.wire.frames import Frame, FrameError, Kind
from modelyard.wire.work import TensorSpec


class ProcessEnded(RetryLater):
    """The worker ended, was ended for what it wrote, or did not answer in time."""


class StartRefused(ModelyardError):
    """The worker cannot load the model. reason: a `base.conditions.Reason`."""

    def __init__(self, reason: str, message: str, *, retry: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry = retry


@dataclass(frozen=True, slots=True)
class Ready:
    """What the worker says about the model it loaded. format_version: what the artifact records, or ""."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    format_version: str


class Worker(ABC):
    """A worker that is ready once `hello` has returned. One call at a time."""

    def __init__(self, inbox: Inbox, outbox: asyncio.WriteTransport) -> None:
        self.ready = Ready((), (), "")
        self._inbox = inbox
        self._outbox = outbox
        self._number = 0

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Whether a call may be tried."""

    @abstractmethod
    async def close(self, grace_seconds: float = 2.0) -> None:
        """End the conversation, and with it the worker; idempotent."""

    @abstractmethod
    async def _obituary(self) -> ProcessEnded:
        """How it ended."""

    @abstractmethod
    def _abandon(self) -> None:
        """A call was cancelled: its answer to nobody must never be taken for the next one."""

    async def end(self, why: str) -> ProcessEnded:
        """End the worker for what it did; returns what to raise."""
        await self.close(0)
        return ProcessEnded(why)

    async def greet(self, name: str, texts: frames.Texts, seconds: float) -> None:
        """Have it load the model that HELLO's texts name. name: of the worker, for people.

        Raises StartRefused when it says no, ends, says something else or nothing within `seconds`; then it is closed.
        """
        try:
            await self.hello(texts, seconds)
        except FrameError as error:
            await self.close(0)
            raise StartRefused(Reason.LOAD_FAILED, f"the worker {name} breaks the protocol: {error}") from error
        except ProcessEnded as error:
            await self.close(0)
            raise StartRefused(Reason.LOAD_FAILED, f"while loading the model, {error}", retry=True) from error
        except BaseException:
            await self.close(0)
            raise

    async def hello(self, texts: frames.Texts, seconds: float) -> None:
        """Have it load the model; raises StartRefused, FrameError or ProcessEnded."""
        answer = await self._exchange(Frame(kind=Kind.HELLO, texts=texts), seconds)
        if answer.kind is Kind.ERROR:
            raise _refusal(answer)
        self.ready = _read_ready(answer)

    async def call(self, tensors: tuple[frames.Tensor, ...], *, seconds: float) -> tuple[frames.Tensor, ...]:
        """Score one batch.

        Raises UserError when the model refuses the values, RetryLater when it could not score them, and ProcessEnded,
        after which nothing more can be asked.
        """
        self._number = (self._number + 1) % 2**32
        answer = await self._exchange(Frame(kind=Kind.INFER, number=self._number, tensors=tensors), seconds)
        if answer.kind is Kind.ERROR:
            message = answer.text("message") or "the model gave no reason"
            if answer.text("kind") == "user":
                raise UserError(f"the model refused the values: {message}")
            raise RetryLater(f"the model failed: {message}")
        if answer.kind is not Kind.RESULT or answer.number != self._number:
            raise await self.end(f"the worker answered {answer.kind.name} {answer.number}, not RESULT {self._number}")
        return answer.tensors

    async def _exchange(self, frame: Frame, seconds: float) -> Frame:
        pieces = frames.encode(frame)
        try:
            if self._outbox.is_closing():
                raise EOFError
            answer = self._inbox.expect()
            self._outbox.writelines(pieces)
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            raise await self.end(f"the worker gave no answer within {seconds:g} s and was ended") from None
        except EOFError:
            raise await self._obituary() from None
        except FrameError as error:
            raise await self.end(f"the worker breaks the protocol: {error}") from error
        except asyncio.CancelledError:
            self._abandon()
            raise


def _read_ready(answer: Frame) -> Ready:
    if answer.kind is not Kind.READY:
        raise FrameError(f"it answered HELLO with {answer.kind.name}")
    if answer.text("protocol") != frames.PROTOCOL:
        raise FrameError(f"it speaks protocol {answer.text('protocol')!r}; this release speaks {frames.PROTOCOL}")
    inputs = tuple(frames.parse_spec(text) for key, text in answer.texts if key == "input")
    outputs = tuple(frames.parse_spec(text) for key, text in answer.texts if key == "output")
    for role, specs in (("inputs", inputs), ("outputs", outputs)):
        if not specs or len({each.name for each in specs}) != len(specs):
            raise FrameError(f"READY must name at least one of its {role}, each once")
    return Ready(inputs, outputs, answer.text("formatVersion")[:64])


def _refusal(answer: Frame) -> StartRefused:
    word = answer.text("reason")
    reason = Reason(word) if word in Reason.__members__.values() else Reason.LOAD_FAILED
    message = answer.text("message") or "the worker refused the model without a reason"
    return StartRefused(reason, message, retry=answer.text("kind") != "user")

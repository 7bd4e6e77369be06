"""One worker process: started, spoken to over its two pipes, watched, ended.

It is bound to this process (`base.launch`), leads a session of its own and gets nothing but two pipes, the log and an
environment of its own. What it writes is not trusted: whatever is no valid frame ends it.
"""

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelyard.base import launch
from modelyard.base.conditions import Reason
from modelyard.base.errors import ModelyardError, RetryLater, UserError
from modelyard.wire import frames
from modelyard.wire.frames import Frame, FrameError, Kind
from modelyard.wire.place import ENV_WORK
from modelyard.wire.work import TensorSpec

_DIE_SECONDS = 5.0
_REAP_SECONDS = 0.01
_MOST_LOOKS = 300
_LOG_LINES = 10
_LOG_CHARACTERS = 300
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
)
_OURS = "MODELYARD_"
_ALLOWED = frozenset({"PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV"})


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


def environment(outer: Mapping[str, str], threads: int, scratch: str) -> dict[str, str]:
    """A worker's environment: that of its server if a driver chose it for this model, else an allow-listed part of it.

    Of Modelyard's own variables only the one that tells whose a stray process is. Thread counts are set unless the
    model's owner did; temporary files go to `scratch`. ONNX Runtime tells its maker nothing of the model.
    """
    chosen = ENV_WORK in outer
    found = {
        name: value
        for name, value in outer.items()
        if (name == ENV_WORK or not name.startswith(_OURS)) and (chosen or name in _ALLOWED or name.startswith("LC_"))
    }
    counts = {name: str(threads) for name in _THREAD_VARIABLES}
    return {**counts, "ORT_DISABLE_TELEMETRY": "1", **found, "TMPDIR": scratch}


class WorkerProcess:
    """A worker that is ready. One call at a time."""

    def __init__(self, process: asyncio.subprocess.Process, pipes: "_Pipes") -> None:
        self.ready = Ready((), (), "")
        self._process = process
        self._inbox = pipes.inbox
        self._outbox = pipes.outbox
        self._log = pipes.log
        self._number = 0
        self._killed = False

    @classmethod
    async def start(
        cls, argv: Sequence[str], variables: Mapping[str, str], texts: frames.Texts, *, seconds: float
    ) -> "WorkerProcess":
        """Start the program and have it load the model that HELLO's texts name.

        Raises StartRefused when it says no, ends, says something else or nothing within `seconds`.
        """
        worker = await _spawn(argv, variables)
        try:
            await worker.hello(texts, seconds)
        except FrameError as error:
            await worker.close(0)
            raise StartRefused(Reason.LOAD_FAILED, f"the worker {argv[0]} breaks the protocol: {error}") from error
        except ProcessEnded as error:
            await worker.close(0)
            raise StartRefused(Reason.LOAD_FAILED, f"while loading the model, {error}", retry=True) from error
        except BaseException:
            await worker.close(0)
            raise
        return worker

    @property
    def pid(self) -> int:
        """The process, which is also the id of its process group and session."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether a call may be tried."""
        return self._process.returncode is None and self._inbox.broken is None and not self._killed

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

    async def end(self, why: str) -> ProcessEnded:
        """Kill the process for what it did; returns what to raise."""
        await self.close(0)
        return ProcessEnded(why)

    async def close(self, grace_seconds: float = 2.0) -> None:
        """End the worker by closing its input, then by force; idempotent."""
        self._outbox.close()
        try:
            async with asyncio.timeout(grace_seconds):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            self._kill()
        await self._process.wait()
        await self._reap()
        self._inbox.close()
        self._log.close()

    async def _reap(self) -> None:
        """What it had started is ours where we are the first process of a container, and would stay as zombies."""
        for _ in range(_MOST_LOOKS):
            if not _has_children(self.pid):
                return
            await asyncio.sleep(_REAP_SECONDS)

    def _kill(self) -> None:
        """Whatever is left of its process group; itself, if it has not made one yet."""
        self._killed = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

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
            self._kill()  # an answer to nobody would be taken for the next one
            raise

    async def _obituary(self) -> ProcessEnded:
        """How it ended, with the last lines of its log."""
        try:
            async with asyncio.timeout(_DIE_SECONDS):
                status = await self._process.wait()
                await self._log.ended.wait()
        except TimeoutError:
            return await self.end("the worker closed its pipes and was ended")
        if status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
            if -status == signal.SIGKILL:
                how += ", perhaps for lack of memory"
        else:
            how = f"ended with status {status}"
        lines = "".join(f"\n  {line}" for line in self._log.lines)
        return ProcessEnded(f"the worker {how}" + (f"; its last lines:{lines}" if lines else ""))


def _has_children(group: int) -> bool:
    """Whether a process of the group is a child of ours and runs; those that have ended are reaped."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
        return True
    return False


@dataclass(frozen=True, slots=True)
class _Pipes:
    """Our ends."""

    inbox: "_Inbox"
    outbox: asyncio.WriteTransport
    log: "_Log"

    def close(self) -> None:
        self.inbox.close()
        self.outbox.close()
        self.log.close()


async def _spawn(argv: Sequence[str], variables: Mapping[str, str]) -> WorkerProcess:
    loop = asyncio.get_running_loop()
    their_input, our_output = os.pipe()
    our_input, their_output = os.pipe()
    our_log, their_log = os.pipe()
    inbox, log = _Inbox(), _Log()
    outbox, _ = await loop.connect_write_pipe(lambda: _Outbox(inbox), os.fdopen(our_output, "wb", buffering=0))
    await loop.connect_read_pipe(lambda: inbox, os.fdopen(our_input, "rb", buffering=0))
    await loop.connect_read_pipe(lambda: log, os.fdopen(our_log, "rb", buffering=0))
    pipes = _Pipes(inbox, outbox, log)
    try:
        process = await asyncio.create_subprocess_exec(
            *launch.command(argv, descriptors={3: their_input, 4: their_output}, limits={"core": 0}),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=their_log,
            stderr=their_log,
            env=variables,
            pass_fds=(their_input, their_output),
        )
    except BaseException:
        pipes.close()
        raise
    finally:
        for descriptor in (their_input, their_output, their_log):
            os.close(descriptor)
    return WorkerProcess(process, pipes)


class _Log(asyncio.Protocol):
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


class _Outbox(asyncio.BaseProtocol):
    """A worker that reads no more gives no more answers."""

    def __init__(self, inbox: "_Inbox") -> None:
        self._inbox = inbox

    def connection_lost(self, exc: Exception | None) -> None:
        self._inbox.connection_lost(exc)


class _Inbox(asyncio.Protocol):
    """Frames as they arrive: one at a time, each expected."""

    def __init__(self) -> None:
        self.broken: Exception | None = None
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
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(self.broken)


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

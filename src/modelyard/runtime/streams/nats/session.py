"""One connection from its beginning to its end: requests that are answered, or fail as soon as it is lost.

Everything that was sent over a lost connection stays lost or unknown; nothing is sent again. Whoever needs another
connection gets another session (`broker`).
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, NamedTuple, Self

from nats import errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.streams.nats.client import Client
from modelyard.runtime.streams.nats.faults import NOT_ENABLED, ApiError, forbidden, translate, violation
from modelyard.runtime.streams.port import Away

SECONDS = 5.0
"""Within which anything must be answered."""
MOST_AT_ONCE = 256
"""Requests of `ask_all`: a disk that syncs 30 times a second stores so many in time."""
_MOST_EXPECTED = 65_536
"""More than all partitions together ask at once; what grows beyond is a defect."""
_MOST_NOTED = 64
_NO_RESPONDERS = "503"

Answer = Msg | Refused


class Request(NamedTuple):
    subject: str
    payload: bytes = b""
    headers: Mapping[str, str] | None = None


class Session:
    """Made by `Broker`. Methods raise Away once the connection is lost, and Refused for what may not be done."""

    def __init__(self, client: Client, where: str) -> None:
        self.where = where
        self._client = client
        self._inbox = client.new_inbox()
        self._numbers = itertools.count()
        self._expected: dict[str, tuple[str, asyncio.Future[Answer]]] = {}
        self._scopes: set[asyncio.Timeout] = set()
        self._on_loss: set[Callable[[], None]] = set()
        self._forbidden: dict[str, Refused] = {}
        self._broken: Refused | None = None
        self._lost = ""

    async def open(self) -> None:
        """Make ready for answers, and check that the account has JetStream."""
        await self._client.subscribe(f"{self._inbox}.*", cb=self._answered)
        try:
            answer = await self.request("$JS.API.INFO")
        except Refused:
            if self._broken is None:
                return  # an account that may do only what it must
            raise
        except Away:
            if self._lost or self._client.server_info.get("jetstream"):
                raise
            raise Refused(
                Reason.BROKER_REFUSED, f"{self.where} has no JetStream; start it with `-js`, or enable it there"
            ) from None
        error = ApiError.of(json.loads(answer.data))
        if error is not None and error.code in NOT_ENABLED:
            raise translate(error, self.where)

    async def close(self) -> None:
        self.lose("the connection was closed")
        await self._client.discard()

    @property
    def lost(self) -> bool:
        return bool(self._lost) or not self._client.is_connected

    @property
    def most_bytes(self) -> int:
        """Of a message with its headers."""
        return self._client.max_payload

    @property
    def version(self) -> tuple[int, int]:
        """Of the server."""
        major, minor, *_ = str(self._client.server_info.get("version", "0.0")).split(".")
        return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)

    def lose(self, why: str) -> None:
        """Everything under way fails now."""
        if self._lost:
            return
        self._lost = why
        loop = asyncio.get_running_loop()
        for scope in self._scopes:
            if not scope.expired():
                scope.reschedule(loop.time())
        for call in tuple(self._on_loss):
            call()

    def noted(self, error: Exception) -> None:
        """What nats-py reports beside all calls."""
        found = violation(error)
        if found is not None:
            self._forbid(*found)
        elif isinstance(error, errors.StaleConnectionError | OSError):
            self.lose(str(error) or type(error).__name__)

    def refusal(self, subjects: Iterable[str]) -> Refused | None:
        """What may not be published of these, as far as the broker said so since this was asked last."""
        found = [self._forbidden.pop(each.lower(), None) for each in set(subjects)]
        return next((each for each in found if each is not None), None)

    def check(self) -> None:
        if self._broken is not None:
            raise self._broken
        if self.lost:
            raise Away(Reason.BROKER_UNREACHABLE, f"the connection to {self.where} is lost{self._because()}")

    @asynccontextmanager
    async def scope(self, seconds: float = SECONDS) -> AsyncIterator[None]:
        """What is in it ends with Away after these seconds, and at once when the connection is lost."""
        self.check()
        try:
            async with asyncio.timeout(seconds) as scope:
                self._scopes.add(scope)
                try:
                    yield
                finally:
                    self._scopes.discard(scope)
        except TimeoutError:
            self.check()
            raise Away(Reason.BROKER_UNREACHABLE, f"{self.where} does not answer; it is tried again") from None
        except (errors.Error, OSError) as error:
            self.check()
            raise Away(Reason.BROKER_UNREACHABLE, f"{self.where}: {error}; it is tried again") from None

    async def publish(
        self, subject: str, payload: bytes = b"", headers: Mapping[str, str] | None = None, reply: str = ""
    ) -> None:
        """Hand it to the connection; whether it arrived is not known. To be called in a scope."""
        self.check()
        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        await self._client.publish(subject, payload, reply, dict(headers) if headers else None)
        if task.cancelling() > before:  # which nats-py swallows where it waits for its buffer
            raise asyncio.CancelledError

    async def subscribe(self, inbox: str, arrived: Callable[[Msg], None], most: int, most_bytes: int) -> Subscription:
        """More than so many that `arrived` has not taken are lost, which their reader notices."""

        async def take(message: Msg) -> None:
            arrived(message)

        async with self.scope():
            return await self._client.subscribe(inbox, cb=take, pending_msgs_limit=most, pending_bytes_limit=most_bytes)

    def new_inbox(self) -> str:
        return self._client.new_inbox()

    def on_loss(self, call: Callable[[], None]) -> Callable[[], None]:
        """Call it when the connection is lost. Returns what ends that."""
        self._on_loss.add(call)
        return lambda: self._on_loss.discard(call)

    def requests(self) -> "Requests":
        return Requests(self)

    async def request(
        self, subject: str, payload: bytes = b"", headers: Mapping[str, str] | None = None, seconds: float = SECONDS
    ) -> Msg:
        async with self.scope(seconds):
            with self.requests() as requests:
                return await (await requests.ask(Request(subject, payload, headers))).message()

    async def api(self, what: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask `$JS.API.<what>`. Raises ApiError for what it answers."""
        answer = await self.request(f"$JS.API.{what}", json.dumps(body).encode() if body is not None else b"")
        return decoded(answer)

    def expect(self, subject: str) -> tuple[str, asyncio.Future[Answer]]:
        """The reply subject and the answer of what will be asked of `subject`; end it with `forget`."""
        self.check()
        assert len(self._expected) < _MOST_EXPECTED, "too many requests wait for an answer"
        token = str(next(self._numbers))
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._expected[token] = (subject, future)
        return f"{self._inbox}.{token}", future

    def forget(self, reply: str) -> None:
        self._expected.pop(reply.rpartition(".")[2], None)

    async def _answered(self, message: Msg) -> None:
        found = self._expected.get(message.subject.rpartition(".")[2])
        if found is not None and not found[1].done():
            found[1].set_result(message)

    def _forbid(self, operation: str, subject: str) -> None:
        if operation == "subscription":
            if subject.startswith(self._inbox.lower()):  # no answer will ever come
                self._broken = forbidden(operation, "_INBOX.>")
                self._tell(list(self._expected.values()), self._broken)
            return
        waiting = [each for each in self._expected.values() if each[0].lower() == subject]
        refused = forbidden(operation, waiting[0][0] if waiting else subject)
        if len(self._forbidden) < _MOST_NOTED:
            self._forbidden[subject] = refused
        self._tell(waiting, refused)

    def _tell(self, waiting: Iterable[tuple[str, asyncio.Future[Answer]]], refused: Refused) -> None:
        for _, future in waiting:
            if not future.done():
                future.set_result(refused)

    def _because(self) -> str:
        why = self._lost or str(self._client.last_error or "")
        return f" ({why.removeprefix('nats: ')})" if why else ""


class Reply:
    """The answer to one request."""

    def __init__(self, session: Session, request: Request) -> None:
        self._session = session
        self._subject = request.subject
        self.inbox, self._future = session.expect(request.subject)

    def forget(self) -> None:
        self._session.forget(self.inbox)

    @property
    def error(self) -> ApiError | None:
        """What was answered so far, if it was an error. Raises Refused for what may not be published."""
        found = self._future.result() if self._future.done() else None
        if isinstance(found, Refused):
            raise found
        if found is None or not found.data:
            return None
        try:
            decoded(found)
        except ApiError as error:
            return error
        return None

    async def message(self) -> Msg:
        """Wait for it, in a scope. Raises Away where nothing listens, Refused for what may not be published."""
        found = await self._future
        self.forget()
        if isinstance(found, Refused):
            raise found
        if not found.data and (found.headers or {}).get("Status") == _NO_RESPONDERS:
            raise NobodyListens(self._session.where, self._subject)
        return found


class NobodyListens(Away):
    """No stream takes the subject, or JetStream is not there at this moment."""

    def __init__(self, where: str, subject: str) -> None:
        super().__init__(
            Reason.BROKER_UNREACHABLE, f"{where}: nothing listens to {subject} at this moment; it is tried again"
        )


class Requests:
    """Requests of which many are under way; what is not awaited is forgotten at the end."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._replies: list[Reply] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reply in self._replies:
            reply.forget()

    async def ask(self, request: Request) -> Reply:
        """Send it, in a scope."""
        reply = Reply(self._session, request)
        self._replies.append(reply)
        await self._session.publish(request.subject, request.payload, request.headers, reply.inbox)
        return reply


async def ask_all(session: Session, requests: Iterable[Request]) -> list[Msg]:
    """The answers in order. Some are asked at once, and all of those are answered within twice SECONDS."""
    answers: list[Msg] = []
    left = iter(requests)
    while some := list(itertools.islice(left, MOST_AT_ONCE)):
        with session.requests() as open_requests:
            async with session.scope(2 * SECONDS):
                replies = [await open_requests.ask(each) for each in some]
                answers += [await each.message() for each in replies]
    return answers


def decoded(message: Msg) -> dict[str, Any]:
    """An answer of JetStream. Raises ApiError."""
    try:
        answer = json.loads(message.data)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ApiError(0, 500, "what the broker answers is not JSON")
    error = ApiError.of(answer)
    if error is not None:
        raise error
    return answer

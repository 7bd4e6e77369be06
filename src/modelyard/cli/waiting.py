"""Waiting with news: what is waited for is said after two seconds and whenever it changes."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

import click

from modelyard.base import durations
from modelyard.base.conditions import Reason
from modelyard.base.errors import ModelyardError, RetryLater, UserError
from modelyard.cli import words
from modelyard.cli.session import Session
from modelyard.control.kube import resources
from modelyard.control.kube.resources import Resource
from modelyard.sdk import objects, progress, watching
from modelyard.sdk.objects import Object

TIMEOUT_SECONDS: Final = 300.0
_QUIET_SECONDS = 2.0
_PROGRESS_SECONDS = 10.0
HOPELESS = frozenset(
    {
        Reason.INVALID,
        Reason.ARTIFACT_NOT_FOUND,
        Reason.ARTIFACT_INVALID,
        Reason.ARTIFACT_TOO_LARGE,
        Reason.DIGEST_MISMATCH,
        Reason.FORMAT_UNKNOWN,
        Reason.FORMAT_MISMATCH,
        Reason.TRUST_REQUIRED,
        Reason.ENVIRONMENT_MISSING,
        Reason.SIGNATURE_MISMATCH,
        Reason.SAMPLE_MISSING,
        Reason.RUNTIME_MISMATCH,
        Reason.UNSUPPORTED,
        Reason.BUCKET_NOT_FOUND,
        Reason.ACCESS_DENIED,
        Reason.INPUT_NOT_FOUND,
        Reason.INPUT_INVALID,
        Reason.SCHEMA_MISMATCH,
        Reason.OUTPUT_NOT_EMPTY,
        Reason.OUTPUT_MODEL_EXISTS,
        Reason.PART_TOO_LARGE,
        Reason.BROKER_REFUSED,
        Reason.STREAM_NOT_FOUND,
        Reason.SUBJECT_NOT_FOUND,
        Reason.STREAM_UNSUITABLE,
        Reason.PARTITIONS_MISSING,
        Reason.OFFSET_LOST,
        Reason.SOURCE_REPLACED,
        Reason.RECORD_FAILED,
    }
)
"""Reasons that stay until somebody changes a file or a field."""


_WAITED_FOR = (resources.MODELS, resources.MODELSERVICES, resources.MODELJOBS, resources.MODELSTREAMS)
"""Kinds about which 'modelyard why' says more."""


def hopeless(state: Object | None) -> bool:
    """Whether an object says that it will not get Ready by itself."""
    found = objects.condition(state)
    return found.get("status") == "False" and found.get("reason") in HOPELESS


def _over(state: Object | None) -> bool:
    """Whether a job has ended badly or is gone."""
    return state is None or objects.has_failed(state)


def _never(_state: Object | None) -> bool:
    """Other objects never end."""
    return False


def to_stderr(text: str) -> None:
    """Where news goes by default, apart from results."""
    click.echo(text, err=True)


class Follower(Protocol):
    """What is told of one object while it is waited for."""

    def told(self, state: Object | None) -> None:
        """Gets every state, None while there is none."""

    async def keep_saying(self) -> None:
        """Runs meanwhile; is cancelled at the end."""


class News:
    """A Follower that says what an object does, when waiting takes longer and the news is new. say: where to."""

    def __init__(self, subject: str, say: Callable[[str], None] = to_stderr) -> None:
        self._subject = subject
        self._say = say
        self._quiet_until = time.monotonic() + _QUIET_SECONDS
        self._said = ""
        self._last = "waiting"
        self._state = ""

    def told(self, state: Object | None) -> None:
        found = objects.condition(state)
        if found.get("status") == "True" or hopeless(state) or objects.has_failed(state):
            self._said = self._last
            return  # whoever waits says so
        before = self._state
        self._state, self._last = _news(state, found)
        if time.monotonic() >= self._quiet_until or (self._said and self._state != before):
            self.say()

    def say(self) -> None:
        """The last state, unless it was said."""
        if self._said != self._last:
            self._said = self._last
            if self._state == progress.State.RUNNING:
                self._quiet_until = time.monotonic() + _PROGRESS_SECONDS  # numbers change all the time
            self._say(f"{self._subject}  {self._last}")

    async def keep_saying(self) -> None:
        """Something is shown after two seconds even if nothing happens."""
        await asyncio.sleep(_QUIET_SECONDS)
        self.say()


def _news(state: Object | None, found: Object) -> tuple[str, str]:
    """-> (what must be said at once when it changes, what to say)."""
    if not found:
        return "", "waiting"
    if state is not None and state.get("kind") == resources.MODELJOBS.kind:
        job = progress.of(state)
        return job.state, progress.line(job)
    message = str(found.get("message", "")).split("\n")[0]
    return str(found.get("reason")), f"{found.get('reason')}: {message}"


async def wait_for(
    session: Session,
    body: Object,
    until: Callable[[Object | None], bool],
    seconds: float,
    *,
    known: Object | None = None,
    follower: Follower | None = None,
) -> Object | None:
    """The state of that object as soon as `until` holds. Raises as `watching.wait`, naming `modelyard why`.

    known: the object that people know it by, where it is not the object itself. follower: News by default.
    """
    resource = objects.resource_of(body)
    namespace, name = objects.place(body, session.namespace)
    known_as, known_name = objects.resource_of(known or body), (known or body)["metadata"]["name"]
    follower = follower or News(words.qualified(known_as, known_name))
    ends = _over if resource is resources.MODELJOBS else _never
    wish = watching.Wish(until=until, told=follower.told, hopeless=hopeless, over=ends)
    saying = asyncio.create_task(follower.keep_saying())
    try:
        return await watching.wait(session.client, resource, namespace, name, wish, seconds)
    except (UserError, RetryLater) as error:
        if resource not in _WAITED_FOR:
            raise
        told = error.message.replace(f"{resource.kind} {name} ", f"{known_as.kind} {known_name} ", 1)
        raise type(error)(_indented(f"{told}\n{_hint(resource, known_name, error)}")) from error
    finally:
        saying.cancel()
        await asyncio.gather(saying, return_exceptions=True)


def _hint(resource: Resource, name: str, error: ModelyardError) -> str:
    if resource is resources.MODELJOBS and isinstance(error, RetryLater):
        return f"it goes on; 'modelyard why {name}' says how far it is, --timeout waits longer"
    return f"'modelyard why {name}' says what to do"


def seconds(_ctx: click.Context | None, _parameter: click.Parameter | None, text: str) -> float:
    """An option: a number of seconds, or a duration as kubectl takes it (60s, 5m)."""
    try:
        return float(text) if text[-1:].isdigit() else durations.parse(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither a number of seconds nor a duration such as 60s or 5m") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How to wait, and what becomes of what is said.

    seconds: at most; job_seconds: for jobs, if not the same. result: gets what came about; summary: how a job ended;
    aside: what remains to be known when the waiting is interrupted. follower: made for the subject of each object.
    """

    seconds: float
    job_seconds: float | None = None
    result: Callable[[str], None] = click.echo
    summary: Callable[[str], None] = click.echo
    aside: Callable[[str], None] = to_stderr
    follower: Callable[[str, Object], Follower] = lambda subject, _body: News(subject)


async def wait_all_ready(session: Session, bodies: Iterable[Object], patience: Patience) -> None:
    """Until each is Ready, or Complete, for what was just applied, and say so as it comes about.

    Raises one error for all that are not.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_until_ready(session, body, patience)) for body in ours(bodies)]
    errors = [error for task in tasks if (error := task.result()) is not None]
    if errors:
        # What somebody must change comes before what may still come about.
        errors.sort(key=lambda error: not isinstance(error, UserError))
        raise type(errors[0])("\n".join(each_once([error.message for error in errors])))


def ours(bodies: Iterable[Object]) -> list[Object]:
    """Those that get Ready, or Complete."""
    return [body for body in bodies if objects.resource_of(body) in resources.OURS]


async def _until_ready(session: Session, body: Object, patience: Patience) -> ModelyardError | None:
    """Wait for one object. -> what went wrong."""
    generation = int(body["metadata"].get("generation") or 0)
    resource, name = objects.resource_of(body), body["metadata"]["name"]
    subject = words.qualified(resource, name)
    is_job = resource is resources.MODELJOBS
    follower = _Last(patience.follower(subject, body))
    seconds = patience.job_seconds if is_job and patience.job_seconds is not None else patience.seconds
    try:
        await wait_for(session, body, lambda state: objects.is_settled(state, generation), seconds, follower=follower)
    except asyncio.CancelledError:
        if is_job:
            patience.aside(
                f"{subject} goes on; stop it with 'modelyard suspend {name}' or 'modelyard delete modeljob {name}'"
            )
        raise
    except ModelyardError as error:
        if is_job and objects.has_failed(follower.state) and progress.of(follower.state or {}).started is not None:
            patience.summary(_summary(subject, follower.state))
        return error
    if is_job:
        patience.summary(_summary(subject, follower.state))
    else:
        patience.result(f"{subject} is {'Ready' if objects.is_ready(follower.state) else 'paused, as declared'}")
    return None


def _summary(subject: str, state: Object | None) -> str:
    return progress.summary(subject, progress.of(state or {}), time.time())


class _Last:
    """Keeps the last state beside what a Follower makes of it."""

    def __init__(self, follower: Follower) -> None:
        self.state: Object | None = None
        self._follower = follower

    def told(self, state: Object | None) -> None:
        self.state = state
        self._follower.told(state)

    async def keep_saying(self) -> None:
        await self._follower.keep_saying()


def each_once(messages: list[str]) -> list[str]:
    """A service fails with the words of its Model: whoever waits for both reads them once."""
    causes: list[str] = []
    found = []
    for message in messages:
        head, _, told = message.partition("\n")[0].partition(": ")
        cause = told.partition(": ")[2]
        found.append(f"{head} for the same reason" if any(each in cause for each in causes) else message)
        causes.extend([cause] if cause else [])
    return found


def _indented(text: str) -> str:
    """Lines after the first belong to it."""
    return text.replace("\n", "\n  ")

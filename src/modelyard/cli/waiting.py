"""Waiting with news: what is waited for is said after two seconds and whenever it changes."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final

import click

from modelyard.base.conditions import Reason
from modelyard.base.errors import ModelyardError, RetryLater, UserError
from modelyard.cli import words
from modelyard.cli.session import Session
from modelyard.control.kube import resources
from modelyard.sdk import objects, watching
from modelyard.sdk.objects import Object

TIMEOUT_SECONDS: Final = 300.0
_QUIET_SECONDS = 2.0
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
    }
)
"""Reasons that stay until somebody changes a file or a field."""


def hopeless(state: Object | None) -> bool:
    """Whether an object says that it will not get Ready by itself."""
    found = objects.condition(state)
    return found.get("status") == "False" and found.get("reason") in HOPELESS


class News:
    """Says what an object is doing, on stderr, when waiting takes longer and the news is new."""

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._quiet_until = time.monotonic() + _QUIET_SECONDS
        self._said = ""
        self._last = "waiting"

    def told(self, state: Object | None) -> None:
        found = objects.condition(state)
        if found.get("status") == "True" or hopeless(state):
            self._said = self._last
            return  # whoever waits says so
        message = str(found.get("message", "")).split("\n")[0]
        self._last = f"{found.get('reason')}: {message}" if found else "waiting"
        if time.monotonic() >= self._quiet_until:
            self.say()

    def say(self) -> None:
        """The last state, unless it was said."""
        if self._said != self._last:
            self._said = self._last
            click.echo(f"{self._subject}  {self._last}", err=True)

    async def keep_saying(self) -> None:
        """Something is shown after two seconds even if nothing happens."""
        await asyncio.sleep(_QUIET_SECONDS)
        self.say()


async def wait_for(
    session: Session,
    body: Object,
    until: Callable[[Object | None], bool],
    seconds: float,
    *,
    known: Object | None = None,
) -> Object | None:
    """The state of that object as soon as `until` holds. Raises as `watching.wait`, naming `modelyard why`.

    known: the object that people know it by, where it is not the object itself.
    """
    resource = objects.resource_of(body)
    namespace, name = objects.place(body, session.namespace)
    known_as, known_name = objects.resource_of(known or body), (known or body)["metadata"]["name"]
    news = News(words.qualified(known_as, known_name))
    wish = watching.Wish(until=until, told=news.told, hopeless=hopeless)
    saying = asyncio.create_task(news.keep_saying())
    try:
        return await watching.wait(session.client, resource, namespace, name, wish, seconds)
    except (UserError, RetryLater) as error:
        if resource not in (resources.MODELS, resources.MODELSERVICES):
            raise
        told = error.message.replace(f"{resource.kind} {name} ", f"{known_as.kind} {known_name} ", 1)
        raise type(error)(_indented(f"{told}\n'modelyard why {known_name}' says what to do")) from error
    finally:
        saying.cancel()
        await asyncio.gather(saying, return_exceptions=True)


async def wait_all_ready(session: Session, bodies: Iterable[Object], seconds: float, *, quiet: bool = False) -> None:
    """Until each is Ready for what was just applied, and say so as it comes about, unless quiet.

    Raises one error for all that are not.
    """

    async def one(body: Object) -> ModelyardError | None:
        generation = int(body["metadata"].get("generation") or 0)
        try:
            await wait_for(session, body, lambda state: objects.is_ready(state, generation), seconds)
        except ModelyardError as error:
            return error
        if not quiet:
            click.echo(f"{words.qualified(objects.resource_of(body), body['metadata']['name'])} is Ready")
        return None

    ours = [body for body in bodies if objects.resource_of(body) in resources.OURS]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(body)) for body in ours]
    errors = [error for task in tasks if (error := task.result()) is not None]
    if errors:
        # What somebody must change comes before what may still come about.
        errors.sort(key=lambda error: not isinstance(error, UserError))
        raise type(errors[0])("\n".join(each_once([error.message for error in errors])))


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

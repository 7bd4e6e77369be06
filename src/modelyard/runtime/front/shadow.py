"""The comparison of a revision that gets copies of requests with the one whose answers callers get.

The gateway throws the answer to a copy away. So of the share that it names in a header, this process asks
the revision that serves the same once more, by a way that the gateway keeps for that, and once again to learn how far
its answers are apart from each other. All that happens after the copy was answered, beside other requests and at most
a few at a time; what is too much is counted and left out.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Protocol

from modelyard.base.errors import UserError
from modelyard.runtime.front import difference
from modelyard.runtime.front.asking import Answer, Unanswered, ask
from modelyard.runtime.front.difference import Difference
from modelyard.runtime.front.exchange import Exchange
from modelyard.runtime.front.gateway import Gateway
from modelyard.wire import report as reports
from modelyard.wire.place import ENV_SHADOW, host_and_port
from modelyard.wire.report import ShadowReport
from modelyard.wire.work import GATEWAY_HEADER

_log = logging.getLogger(__name__)

LARGEST_REQUEST_BYTES = 4 * 2**20
LARGEST_ANSWER_BYTES = 2**19
"""Larger ones are not compared."""
AT_A_TIME = 4
_WAITING = 4
_WATCHED = 8
_AT_ONCE_BYTES = 2**16  # answers up to this are compared within a millisecond or two
_ASK_SECONDS = 30.0
_TELL_SECONDS = 2.0
_BUSY = frozenset({403, 429, 503})
"""Said about the moment, not about the request."""

Ask = Callable[[str, bytes, str], Awaitable[Answer]]
"""With a model's public id, the body of a request, and the address of the gateway that sent the copy. Raises
Unanswered."""


class _Copy(NamedTuple):
    """model: its canonical id. name: the public id that was called. sender: an address. answer: what we gave."""

    model: str
    name: str
    body: bytes
    sender: str
    answer: Answer


class Comparisons(Protocol):
    """What routes and measures see of it."""

    @property
    def totals(self) -> Mapping[str, ShadowReport]:
        """By model, of those of which anything was to be compared."""
        ...

    def watch(self, exchange: Exchange, model: str, name: str) -> None:
        """A request for an inference came in. model: its canonical id; name: the one that it was called by."""
        ...


class Off:
    """Nothing is compared."""

    totals: Mapping[str, ShadowReport] = {}

    def watch(self, exchange: Exchange, model: str, name: str) -> None:
        """Leave it alone."""


def asking(where: str, gateway: Gateway) -> Ask:
    """How the revision that serves is asked. where: as in `Place.shadow`. gateway: it has shown this unit's secret with
    the copy, and is shown it in turn; so no other machine than the one that has it is ever shown it.

    Raises UserError.
    """
    port = host_and_port(ENV_SHADOW, f"gateway{where}")[1] if where.startswith(":") else 0

    async def once(name: str, body: bytes, sender: str) -> Answer:
        head = (
            f"POST /v2/models/{name}/infer HTTP/1.1\r\nhost: shadow\r\n{GATEWAY_HEADER}: {gateway.secret}\r\n"
            "content-type: application/json\r\nconnection: close\r\n"
        )
        at = (sender, port) if port else where
        return await ask(at, head.encode(), body, most_bytes=LARGEST_ANSWER_BYTES, seconds=_ASK_SECONDS)

    return once


class Shadow:
    """ask: the revision that serves. told: called with the sums of all models, at most every two seconds."""

    def __init__(self, ask: Ask, told: Callable[[ShadowReport], None]) -> None:
        self._ask = ask
        self._told = told
        self._totals: dict[str, ShadowReport] = {}
        self._credit = 0
        self._watched: list[Exchange] = []
        self._copies: asyncio.Queue[_Copy] = asyncio.Queue(_WAITING)
        self._changed = asyncio.Event()
        self._warned: set[str] = set()

    @property
    def totals(self) -> Mapping[str, ShadowReport]:
        """See `Comparisons.totals`."""
        return self._totals

    def watch(self, exchange: Exchange, model: str, name: str) -> None:
        """See `Comparisons.watch`. Keeps the body until it is answered, of a few requests."""
        self._credit += exchange.compared_percent
        if self._credit < 100:
            return
        self._credit -= 100
        if len(self._watched) >= _WATCHED:
            self._watched = [each for each in self._watched if not each.gone and each.reply is None]
        if len(self._watched) >= _WATCHED or len(exchange.body) > LARGEST_REQUEST_BYTES:
            self._count(model, ShadowReport(skipped=1))
            return
        self._watched.append(exchange)
        body, sender = exchange.body, exchange.sender
        exchange.told = lambda status, answer: self._take(_Copy(model, name, body, sender, Answer(status, answer)))

    async def run(self) -> None:
        """Compare until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_A_TIME):
                tasks.create_task(self._work())
            tasks.create_task(self._tell())

    def _take(self, copy: _Copy) -> None:
        if copy.answer.status in _BUSY or len(copy.answer.body) > LARGEST_ANSWER_BYTES:
            self._count(copy.model, ShadowReport(skipped=1))
            return
        try:
            self._copies.put_nowait(copy)
        except asyncio.QueueFull:
            self._count(copy.model, ShadowReport(skipped=1))

    async def _work(self) -> None:
        while True:
            copy = await self._copies.get()
            try:
                found = await self._compared(copy)
            except (Unanswered, UserError) as error:
                self._warn(f"{copy.model}: an answer is not compared: {error}")
                found = ShadowReport(skipped=1)
            except Exception:
                _log.exception("a comparison failed in a way that it should not")
                found = ShadowReport(skipped=1)
            self._count(copy.model, found)

    async def _compared(self, copy: _Copy) -> ShadowReport:
        ours, first = copy.answer, await self._ask(copy.name, copy.body, copy.sender)
        if first.status in _BUSY:
            return ShadowReport(skipped=1)
        if ours.status != 200 or first.status != 200:
            return ShadowReport(
                both_failed=int(ours.status != 200 and first.status != 200),
                shadow_failed=int(first.status == 200),
                serving_failed=int(ours.status == 200),
            )
        second = await self._ask(copy.name, copy.body, copy.sender)
        if second.status != 200:
            return ShadowReport(skipped=1)
        bodies = (ours.body, first.body, second.body)
        large = sum(map(len, bodies)) > _AT_ONCE_BYTES
        apart, noise = await asyncio.to_thread(_apart, *bodies) if large else _apart(*bodies)
        if apart.structure:
            self._warn(f"{copy.model}: answers cannot be compared with those of the revision that serves: {apart[0]}")
        return ShadowReport(
            compared=1,
            different=int(apart.exceeds(noise)),
            noisy=int(noise.exceeds(difference.NONE)),
            largest_difference=apart.absolute,
            largest_relative_difference=apart.relative,
            largest_noise=noise.absolute,
            largest_relative_noise=noise.relative,
        )

    def _warn(self, message: str) -> None:
        """Once, and not about too many things: the log is for what is new."""
        if message not in self._warned and len(self._warned) < 100:
            self._warned.add(message)
            _log.warning("%s", message)

    def _count(self, model: str, found: ShadowReport) -> None:
        before = self._totals.get(model, ShadowReport())
        self._totals[model] = reports.together((before, found))
        self._changed.set()

    async def _tell(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                self._told(reports.together(self._totals.values()))
            except (OSError, UserError) as error:
                _log.warning("what was compared cannot be reported: %s", error)
            await asyncio.sleep(_TELL_SECONDS)


def _apart(ours: bytes, first: bytes, second: bytes) -> tuple[Difference, Difference]:
    """Of our answer from the first of the revision that serves, and of that from the second. Raises UserError."""
    serving = difference.read(first)
    return difference.between(difference.read(ours), serving), difference.between(serving, difference.read(second))

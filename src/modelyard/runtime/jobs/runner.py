"""A runner of a scoring job: look, decide (`machine`), act (`output`, `lane`), until the run is closed."""

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from modelyard.runtime.jobs import begin, inputs, lane, layout, machine
from modelyard.runtime.jobs.layout import RunSeen, Seen
from modelyard.runtime.jobs.machine import Close, Finish, Follow, Me, Refuse, Settle, Step, Sweep, Take, Try, Wait, Wish
from modelyard.runtime.jobs.output import Author, Look, Output
from modelyard.runtime.jobs.progress import Progress
from modelyard.runtime.jobs.reader import Reader
from modelyard.runtime.jobs.shards import RunRecord
from modelyard.runtime.scoring.mapping import Mapping
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.scoring.scored_model import ScoredModel
from modelyard.runtime.scoring.stopping import telling, unless
from modelyard.storage import credentials
from modelyard.storage import identity as identities
from modelyard.storage.stores import Store
from modelyard.wire.place import Place
from modelyard.wire.work import ScoreWork

_log = logging.getLogger(__name__)
T = TypeVar("T")
LANES = 2
_DROP_SECONDS = 5.0
_STEP = 7919
"""A prime, so that runners begin to look for work at different shards."""


async def score(work: ScoreWork, place: Place, progress: Progress, stop: asyncio.Event) -> bool:
    """Take part in the run until it is closed (True), or `stop` is set (False).

    Raises Refused, LoadFailed and what stores raise.
    """
    keys = {role: credentials.take(Path(place.secrets) / role) if place.secrets else {} for role in ("input", "output")}
    open_store = partial(Store.open, root=place.root, identity=identities.of(place.account, os.environ))
    source = await open_store(work.input.uri, credentials=keys["input"]).settled()
    output = Output(open_store(work.output.uri, credentials=keys["output"]))
    progress.uri = output.uri
    author = Author(index=place.index, incarnation=secrets.token_hex(4))
    async with AsyncExitStack() as stack:
        model = ScoredModel(work.model, work.threads, place, stack)

        async def prepare() -> RunRecord | None:
            """The model is loaded meanwhile; whether that works does not matter where all is done already."""
            opened, loaded = await asyncio.gather(
                _open(work, source, output, progress), model.backend(careful=False), return_exceptions=True
            )
            for found in (opened, None if opened is None else loaded):
                if isinstance(found, BaseException):
                    raise found
            return opened if isinstance(opened, RunRecord) else None

        stopped, record = await unless(stop, prepare())
        if stopped or record is None:
            return not stopped
        mapping = Mapping.resolve(begin.schema_of(record), work.model.inputs, work.input.columns, work.output.keep)
        runner = Runner(work, record, output, author, progress)
        bench = lane.Bench(
            work=work,
            record=record,
            output=output,
            model=model,
            mapping=mapping,
            author=author,
            committed_errors=runner.committed_errors,
        )

        def act() -> Act:
            return partial(lane.work_on, bench, Reader(source, record, mapping, work.batch_rows))

        return await runner.run(act, stop)


async def _open(work: ScoreWork, source: Store, output: Output, progress: Progress) -> RunRecord | None:
    """The run to work on; None if all is done."""
    inputs.refuse_overlap(source.uri, output.uri)
    while True:
        seen = (await output.look()).seen
        records = await output.records(seen)
        wish = Wish(job=work.job, identity="", mode=work.output.mode, uri=output.uri)
        mine = next((each for each in records.values() if each.job == work.job), None)
        task = None
        if mine is None:
            progress.say(f"listing {source.uri}")
            format_name, sources = inputs.choose(await source.entries(), work)
            identity = inputs.identity(work, format_name, sources)
            task = begin.Task(work=work, store=source, format=format_name, sources=sources, identity=identity)
            wish = Wish(job=work.job, identity=identity, mode=work.output.mode, uri=output.uri)
        match machine.open_output(seen, records, wish):
            case Finish(number, already):
                await output.tidy(records[number])
                progress.done(records[number], (await output.look()).seen.runs[number], already=already)
                return None
            case Follow(number):
                _log.info("going on with run %d at %s", number, output.uri)
                return records[number]
            case Refuse(reason, message):
                raise Refused(reason, message)
            case Take(number):
                assert task is not None
                progress.say(f"reading what {len(task.sources)} files hold")
                record = await begin.plan(task, number)
                if await output.take(record):
                    shards, rows = len(record.shards), record.total_rows
                    _log.info("began run %d at %s: %d rows in %d shards", number, output.uri, rows, shards)
                    return record


Act = Callable[[Try, Callable[[], None]], Awaitable[None]]
"""Scores and commits a shard; calls the function when it begins what is better not interrupted."""


@dataclass
class Runner:
    """Looks and decides for all lanes, one at a time."""

    work: ScoreWork
    record: RunRecord
    output: Output
    author: Author
    progress: Progress
    busy: set[int] = field(default_factory=set)
    closed: bool = False
    _since: dict[tuple[int, int], tuple[str, float]] = field(default_factory=dict)
    _abandoned: set[tuple[int, int]] = field(default_factory=set)
    _deciding: asyncio.Lock = field(default_factory=asyncio.Lock)
    _errors: int = 0

    def committed_errors(self) -> int:
        """Of the run, as last seen."""
        return self._errors

    async def run(self, act: Callable[[], Act], stop: asyncio.Event) -> bool:
        """All lanes, each with an `act` of its own, until the run is closed (True), or they are asked to stop."""
        lanes = [_Lane(self, act()) for _ in range(LANES)]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(each.run()) for each in lanes]
                stopping = group.create_task(stop.wait())
                done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
                if stopping in done or self.closed:
                    for each, task in zip(lanes, tasks, strict=True):
                        each.leave(task)
                await asyncio.gather(*tasks, return_exceptions=True)
                stopping.cancel()
        except BaseExceptionGroup as errors:
            raise telling(errors) from errors
        return self.closed

    async def next(self) -> Step:
        """Look and decide; what must be done by one lane alone is done here."""
        async with self._deciding:
            look = await self.output.look()
            run = look.seen.runs.get(self.record.number, RunSeen())
            self._errors = run.errors
            now = asyncio.get_running_loop().time()
            self.progress.tell(self.record, run, now)
            step = machine.next_step(look.seen, self.record, self.work.errors, await self._me(look, run, now))
            match step:
                case Settle(shard):
                    await self.output.settle(self.record, shard)
                case Sweep():
                    await self.output.sweep(self.record.number)
                case Close():
                    await self.output.close(self.record, look.seen)
                case Try(shard, count):
                    if not await self._begin(shard, count):
                        return Wait(0.0)
                    self.busy.add(shard)
                case Finish():
                    if not look.seen.success or run.attempts:
                        await self.output.tidy(self.record)  # whoever closed it did not come to that
                    await self._finish(look.seen)
                case _:
                    pass
            return step

    async def _begin(self, shard: int, count: int) -> bool:
        """Begin a shard. False: somebody else was faster. Cancelled meanwhile, it leaves nothing that would count."""
        number = self.record.number
        beginning = asyncio.ensure_future(self.output.begin(number, shard, count, self.author))
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_DROP_SECONDS):
                    if await beginning:
                        await self.output.drop(number, shard, count)
            raise

    async def _finish(self, seen: Seen) -> None:
        if not self.closed:
            self.closed = True
            self.progress.done(self.record, seen.runs[self.record.number], already=False)

    async def _me(self, look: Look, run: RunSeen, now: float) -> Me:
        since = {}
        abandoned = set()
        for shard, count in run.attempts.items():
            if shard in run.parts or shard in self.busy:
                continue
            etag = look.etags.get(layout.attempt(self.record.number, shard, count), "")
            known = self._since.get((shard, count))
            if known is None or known[0] != etag:
                self._since[shard, count] = known = (etag, now)
            since[shard, count] = known[1]
            if await self._is_abandoned(shard, count):
                abandoned.add(shard)
        return Me(
            now=now,
            start=self.author.index * _STEP,
            busy=frozenset(self.busy),
            abandoned=frozenset(abandoned),
            since=since,
        )

    async def _is_abandoned(self, shard: int, count: int) -> bool:
        """An attempt of this runner's own number, by an earlier process or a lane that failed, has ended."""
        if (shard, count) not in self._abandoned:
            author = await self.output.author(self.record.number, shard, count)
            if author is None or author.index != self.author.index:
                return False
            self._abandoned.add((shard, count))
        return True


class _Lane:
    """Takes one shard after the other."""

    def __init__(self, runner: Runner, act: Act) -> None:
        self._runner = runner
        self._act = act
        self._committing = False
        self._leaving = False

    def leave(self, task: "asyncio.Task[None]") -> None:
        """Drop what is being scored; finish what is being committed."""
        self._leaving = True
        if not self._committing:
            task.cancel()

    async def run(self) -> None:
        while not self._leaving:
            match await self._runner.next():
                case Finish():
                    return
                case Refuse(reason, message):
                    raise Refused(reason, message)
                case Wait(seconds):
                    await asyncio.sleep(seconds)
                case Try() as turn:
                    await self._work(turn)
                case _:
                    pass

    async def _work(self, turn: Try) -> None:
        try:
            await self._act(turn, self._commit)
        finally:
            self._committing = False
            self._runner.busy.discard(turn.shard)

    def _commit(self) -> None:
        self._committing = True

"""Whatever happens to runners and replies: each shard is committed once, none is lost, and the books agree."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_testing import virtual
from modelyard.runtime.jobs import layout
from modelyard.runtime.jobs.machine import Try
from modelyard.runtime.jobs.output import Author, Output, Result
from modelyard.runtime.jobs.progress import Progress
from modelyard.runtime.jobs.runner import Runner
from modelyard.runtime.jobs.shards import Piece, RunRecord
from modelyard.runtime.report.file import ReportFile
from modelyard.runtime.scoring.refused import Refused
from modelyard.storage.errors import StoreUnavailable
from modelyard.storage.stores import Store
from modelyard.wire.work import ErrorsWork, InputWork, ModelWork, OutputWork, ScoreWork
from stores_testing import Chaos, FaultyStore, Killed, MemoryTwin

SHARDS, ROWS = 6, 10


def output(objects: object) -> Output:
    """On the twin of a store."""
    return Output(cast(Store, objects))


def record(mode: str = "create", number: int = 1, job: str = "job-1") -> RunRecord:
    piece = Piece(source=0, start=0, stop=1, first_row=0, low=0, high=ROWS)
    return RunRecord(job=job, identity="i", number=number, mode=mode, format="parquet", shards=((piece,),) * SHARDS)


def work(**errors: Any) -> ScoreWork:
    return ScoreWork(
        job="job-1",
        model=ModelWork(name="m", digest="", format="onnx"),
        input=InputWork(uri="in"),
        output=OutputWork(uri="out"),
        errors=ErrorsWork(on_error="deadLetter", **errors),
    )


class World:
    """Several runners on one output. dropped: shards whose attempt was taken back after SIGTERM."""

    def __init__(self, folder: Path, seed: int, faults: int, mode: str = "create") -> None:
        self.inner = MemoryTwin()
        self.chaos = Chaos(seed, faults)
        self.record = record(mode, 2 if mode == "overwrite" else 1)
        self._folder = folder

    async def runner(self, index: int, life: int, ask: ScoreWork) -> bool:
        books = output(FaultyStore(self.inner, self.chaos))
        author = Author(index=index, incarnation=f"{index}-{life}")
        progress = Progress(ReportFile(self._folder / f"report-{index}.json"))
        runner = Runner(ask, self.record, books, author, progress)

        async def act(turn: Try, committing: Callable[[], None]) -> None:
            await asyncio.sleep(self.chaos.pause())
            attempt = f"{self.chaos.random.getrandbits(64):016x}"
            errors = self.chaos.random.choice([0, 0, 1, 2])
            committing()
            result = Result(
                shard=turn.shard,
                attempt=attempt,
                part=f"{turn.shard} {attempt}".encode(),
                rows=ROWS - errors,
                errors=errors,
                errors_file=b"x" * errors,
            )
            await books.commit(self.record, result)

        return await runner.run(lambda: act, asyncio.Event())

    async def live(self, index: int, ask: ScoreWork) -> None:
        """Started again whenever it ended, as its driver does."""
        for life in range(200):
            try:
                if await self.runner(index, life, ask):
                    return
            except (Killed, StoreUnavailable, BaseExceptionGroup) as error:
                if isinstance(error, BaseExceptionGroup) and error.subgroup(Refused):
                    raise
            await asyncio.sleep(self.chaos.pause())
        raise AssertionError("it never ends")

    async def run(self, runners: int, ask: ScoreWork | None = None) -> None:
        async with asyncio.TaskGroup() as group:
            for index in range(runners):
                # Two runners of one number: a zombie and its successor.
                group.create_task(self.live(index % 2, ask or work()))

    async def check(self) -> None:
        keys = [each.key for each in await self.inner.list()]
        number = self.record.number
        seen = layout.see(keys)
        run = seen.runs[number]
        assert run.closed
        assert run.parts == frozenset(range(SHARDS)) == frozenset(run.commits)
        assert not [key for key in self.inner.deleted if key.startswith(f"part-{number:05d}-")]
        done = json.loads(await self.inner.get(layout.done(number)) or b"")
        assert [each["shard"] for each in done["shards"]] == list(range(SHARDS))
        assert done["rows"] + done["errors"] == SHARDS * ROWS
        for each in done["shards"]:
            shard, attempt = each["shard"], each["attempt"]
            part = await self.inner.get(layout.part(number, shard, "parquet"))
            assert part == f"{shard} {attempt}".encode(), "the books name the attempt whose part it is"
            errors = await self.inner.get(layout.errors(number, shard, attempt))
            assert len(errors or b"") == each["errors"], "the dead letters are those of the same attempt"
        assert layout.SUCCESS in keys


@given(seed=st.integers(0, 2**32), faults=st.integers(0, 25), runners=st.integers(1, 4))
def test_no_sequence_of_faults_commits_a_shard_twice_or_loses_one(
    tmp_path_factory: pytest.TempPathFactory, seed: int, faults: int, runners: int
) -> None:
    @virtual
    async def scenario() -> None:
        world = World(tmp_path_factory.mktemp("reports"), seed, faults)
        assert await output(world.inner).take(world.record)
        await world.run(runners)
        await world.check()

    scenario()


@given(seed=st.integers(0, 2**32), faults=st.integers(0, 15))
def test_an_overwriting_run_leaves_nothing_of_earlier_ones(
    tmp_path_factory: pytest.TempPathFactory, seed: int, faults: int
) -> None:
    @virtual
    async def scenario() -> None:
        world = World(tmp_path_factory.mktemp("reports"), seed, faults, mode="overwrite")
        await world.inner.put(layout.run(1), b"{}")
        await world.inner.put("part-00001-00000.parquet", b"old")
        await world.inner.put("notes.txt", b"of somebody")
        assert await output(world.inner).take(world.record)
        await world.run(2)
        await world.check()
        keys = [each.key for each in await world.inner.list()]
        assert "part-00001-00000.parquet" not in keys
        assert "notes.txt" in keys

    scenario()


@given(seed=st.integers(0, 2**32))
def test_more_errors_than_allowed_are_never_called_a_success(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    @virtual
    async def scenario() -> None:
        world = World(tmp_path_factory.mktemp("reports"), seed, 3)
        assert await output(world.inner).take(world.record)
        refused = False
        try:
            await world.run(2, work(max_rows=3))
        except BaseExceptionGroup as errors:
            refused = errors.subgroup(Refused) is not None
        seen = layout.see([each.key for each in await world.inner.list()])
        run = seen.runs[1]
        assert refused == (not run.closed)
        assert not run.closed or run.errors <= 3

    scenario()


class Slow(MemoryTwin):
    """The reply to a creation takes its time; what it creates is there at once."""

    def __init__(self) -> None:
        super().__init__()
        self.created = asyncio.Event()

    async def create(self, key: str, body: bytes, *, staging: str = "") -> bool:
        done = await super().create(key, body)
        self.created.set()
        await asyncio.sleep(0.05)
        return done


async def test_who_is_asked_to_end_while_an_attempt_begins_takes_it_back(tmp_path: Path) -> None:
    objects, stop = Slow(), asyncio.Event()
    progress = Progress(ReportFile(tmp_path / "report.json"))
    runner = Runner(work(), record(), output(objects), Author(index=0, incarnation="0"), progress)

    async def act(turn: Try, committing: Callable[[], None]) -> None:
        raise AssertionError("it was to end before")

    running = asyncio.create_task(runner.run(lambda: act, stop))
    await objects.created.wait()
    stop.set()
    assert not await running
    assert [each.key for each in await objects.list("_run/1/attempts")] == []
    assert len(objects.deleted) == 1

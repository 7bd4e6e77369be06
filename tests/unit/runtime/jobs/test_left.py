"""What a program left is committed once, whole, whatever happens to runners and replies; odd files are refused."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_testing import virtual
from modelyard.base.conditions import Reason
from modelyard.runtime.jobs import layout, left
from modelyard.runtime.jobs.left import Left
from modelyard.runtime.jobs.told import Told
from modelyard.runtime.scoring.refused import Refused
from modelyard.storage.digest import digest
from modelyard.storage.errors import StoreUnavailable
from modelyard.storage.stores import Store
from modelyard.wire.report import Metric
from modelyard.wire.work import ArtifactWork, OutputWork, RunWork
from stores_testing import Chaos, FaultyStore, Killed, MemoryTwin

NAMES = ("a.txt", "deep/b.txt")


@pytest.fixture(scope="module", autouse=True)
def no_threads() -> Iterator[None]:
    """Nothing waits for threads in virtual time."""

    async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "to_thread", at_once)
        yield


def work(mode: str = "create", nodes: int = 1, artifact: ArtifactWork | None = None) -> RunWork:
    return RunWork(
        job="uid",
        job_name="default/train",
        command=("python", "train.py"),
        nodes=nodes,
        output=OutputWork(uri="out", mode=mode),
        artifact=artifact,
    )


def written(folder: Path, **files: str) -> Path:
    """A program's OUTPUT_DIR; two underscores stand for a slash, one for a dot."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


async def opened(objects: object, asked: RunWork, rank: int = 0) -> Left:
    return await Left.open(asked, cast(Store, objects), rank)


class World:
    """Two processes of one number, a zombie and its successor, each with files of its own."""

    def __init__(self, folder: Path, seed: int, faults: int, mode: str) -> None:
        self.inner = MemoryTwin()
        self.chaos = Chaos(seed, faults)
        self.attempts = 0
        self._folder = folder
        self._work = work(mode)

    async def attempt(self) -> None:
        """One life of the process, as `program.run`."""
        store = FaultyStore(self.inner, self.chaos)
        found = await opened(store, self._work)
        if found.closed:
            await found.tidy()
            return
        self.attempts += 1
        number = str(self.attempts)
        await asyncio.sleep(self.chaos.pause())
        folder = written(self._folder / number, a_txt=number, deep__b_txt=number)
        assert await found.commit(folder, Told(), attempt=1, stop=asyncio.Event())

    async def live(self) -> None:
        for _ in range(200):
            try:
                return await self.attempt()
            except (Killed, StoreUnavailable):
                await asyncio.sleep(self.chaos.pause())
        raise AssertionError("it never ends")

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(self.live())
        await self.live()

    async def check(self, number: int) -> None:
        """All files are of one attempt, the committed one, and nothing else is left."""
        keys = {each.key for each in await self.inner.list()}
        committed = json.loads(await self.inner.get(f"_run/{number}/commit.json") or b"")
        texts = {await self.inner.get(name) for name in NAMES}
        assert len(texts) == 1, f"files of several attempts: {texts}"
        assert None not in texts
        assert committed["files"] == list(NAMES)
        assert await self.inner.get(layout.done(number)) is not None
        assert {key for key in keys if not key.startswith("_run/")} == {*NAMES, layout.SUCCESS}
        assert not [key for key in self.inner.deleted if key in NAMES and number == 1]


@given(seed=st.integers(0, 2**32), faults=st.integers(0, 25))
def test_no_sequence_of_faults_mixes_attempts_or_loses_a_file(
    tmp_path_factory: pytest.TempPathFactory, seed: int, faults: int
) -> None:
    @virtual
    async def scenario() -> None:
        world = World(tmp_path_factory.mktemp("left"), seed, faults, "create")
        await world.run()
        await world.check(1)

    scenario()


@given(seed=st.integers(0, 2**32), faults=st.integers(0, 15))
def test_what_an_earlier_job_committed_is_replaced_and_what_somebody_put_there_stays(
    tmp_path_factory: pytest.TempPathFactory, seed: int, faults: int
) -> None:
    @virtual
    async def scenario() -> None:
        folder = tmp_path_factory.mktemp("left")
        world = World(folder, seed, faults, "overwrite")
        first = await opened(world.inner, other("create"))
        assert await first.commit(
            written(folder / "old", a_txt="old", c_txt="old"), Told(), attempt=1, stop=asyncio.Event()
        )
        await world.run()
        await world.check(2)

    scenario()


def other(mode: str) -> RunWork:
    return msgspec.structs.replace(work(mode), job="other")


async def committed(found: Left, folder: Path, attempt: int = 1, told: Told | None = None) -> bool:
    return await found.commit(folder, told or Told(), attempt=attempt, stop=asyncio.Event())


def overtaken(error: Refused) -> bool:
    return error.reason == Reason.OUTPUT_OVERTAKEN and "run 2 of another job" in error.message


async def test_a_program_whose_output_was_taken_over_meanwhile_adds_nothing_to_it(tmp_path: Path) -> None:
    objects = MemoryTwin()
    slow = await opened(objects, work())
    fast = await opened(objects, other("overwrite"))
    assert await committed(fast, written(tmp_path / "fast", a_txt="fast"))
    with pytest.raises(Refused, check=overtaken):
        await committed(slow, written(tmp_path / "slow", a_txt="slow", b_txt="slow"))
    assert await objects.get("a.txt") == b"fast"
    assert await objects.get("b.txt") is None
    with pytest.raises(Refused, check=overtaken):
        await opened(objects, work())


async def test_a_job_that_is_done_says_so_also_when_its_output_was_taken_over_since(tmp_path: Path) -> None:
    objects = MemoryTwin()
    assert await committed(await opened(objects, work()), written(tmp_path / "out", a_txt="x"))
    await opened(objects, other("overwrite"))
    await objects.delete([layout.SUCCESS])
    again = await opened(objects, work())
    await again.tidy()
    assert (again.closed, again.report(Told()).done) == (True, True)
    assert await objects.get(layout.SUCCESS) is None, "the later run says when it has ended"


async def test_what_is_committed_and_not_yet_visible_is_made_so_by_whoever_comes(tmp_path: Path) -> None:
    class Cut(MemoryTwin):
        """The process ends once, when its second file is to get its name."""

        lives = 1

        async def create(self, key: str, body: bytes, *, staging: str = "") -> bool:
            if key == "b.txt" and self.lives:
                self.lives -= 1
                raise Killed
            return await super().create(key, body)

    objects = Cut()
    with pytest.raises(Killed):
        await committed(await opened(objects, work()), written(tmp_path / "out", a_txt="a", b_txt="b"))
    assert (await objects.get("a.txt"), await objects.get("b.txt")) == (b"a", None)
    assert (await opened(objects, work())).closed
    assert (await objects.get("a.txt"), await objects.get("b.txt")) == (b"a", b"b")


async def test_rank_0_commits_when_all_nodes_of_its_attempt_have_ended_well(tmp_path: Path) -> None:
    objects, asked = MemoryTwin(), work(nodes=2)
    first = await opened(objects, asked)
    second = await opened(objects, asked, 1)
    folder = written(tmp_path / "out", a_txt="x")
    assert await committed(second, folder, attempt=1)
    stop = asyncio.Event()
    stop.set()
    assert not await first.commit(folder, Told(), attempt=2, stop=stop), "the other node has done the first alone"
    assert await objects.get("a.txt") is None
    assert await committed(second, folder, attempt=2)
    assert await committed(first, folder, attempt=2)
    assert await objects.get("a.txt") == b"x"


def link(folder: Path) -> None:
    (folder / "link").symlink_to("a.txt")


def reserved(folder: Path) -> None:
    (folder / "_run").mkdir()
    (folder / "_run" / "1.json").write_text("{}")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def large(folder: Path) -> None:
    (folder / "large").write_bytes(bytes(101))


def many(folder: Path) -> None:
    written(folder, b_txt="", c_txt="", d_txt="")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (link, "OUTPUT_DIR/link is a link or no regular file"),
        (pipe, "OUTPUT_DIR/pipe is a link or no regular file"),
        (reserved, "OUTPUT_DIR/_run/1.json: this name is reserved"),
        (large, "OUTPUT_DIR/large has 101 bytes, at most 100 are committed; split it"),
        (many, "OUTPUT_DIR holds 4 files, at most 3 are committed; pack them"),
    ],
)
async def test_what_cannot_be_committed_is_named_and_nothing_is_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None], said: str
) -> None:
    monkeypatch.setattr(left, "_MOST_FILE_BYTES", 100)
    monkeypatch.setattr(left, "_MOST_FILES", 3)
    objects = MemoryTwin()
    folder = written(tmp_path / "out", a_txt="x")
    spoil(folder)
    with pytest.raises(Refused, match=said) as caught:
        await committed(await opened(objects, work()), folder)
    assert caught.value.reason == Reason.INVALID
    assert [each.key for each in await objects.list()] == ["_run/1.json"]


async def test_a_model_folder_gets_metrics_and_provenance_beside_what_the_program_said(tmp_path: Path) -> None:
    objects, asked = MemoryTwin(), work(artifact=ArtifactWork(name="m", path="model", format="onnx"))
    folder = written(tmp_path / "out", model__m_onnx="x", model__model_json='{"metrics": {"f1": 1}, "mine": true}')
    told = Told(metrics=(Metric(name="accuracy", value=0.5),))
    found = await opened(objects, asked)
    assert await committed(found, folder, told=told)
    body = json.loads(await objects.get("model/model.json") or b"")
    assert (body["format"], body["metrics"], body["mine"]) == ("onnx", {"f1": 1}, True)
    assert body["provenance"]["job"] == "default/train"
    assert body["provenance"]["command"] == ["python", "train.py"]
    report = found.report(told)
    assert (report.done, report.format, report.metrics) == (True, "onnx", told.metrics)
    assert report.digest == digest(folder / "model")


@pytest.mark.parametrize("text", ["{", "[]", '"' + "x" * 2**20 + '"'])
async def test_a_model_json_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    objects, asked = MemoryTwin(), work(artifact=ArtifactWork(name="m", path="model"))
    folder = written(tmp_path / "out", model__m_onnx="x", model__model_json=text)
    with pytest.raises(Refused, match=r"model\.json that cannot be read: .*; see spec/model-folder\.md"):
        await committed(await opened(objects, asked), folder)

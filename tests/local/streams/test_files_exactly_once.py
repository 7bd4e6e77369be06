"""Twenty thousand records into files, each there once for any reader. `MODELYARD_SEED` repeats a history."""

import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.json as pajson
import pytest
from pyarrow import fs

from jobs_testing import API, Object, PlainReader, folder_store, pause, s3_filesystem, secret, slow_model
from modelyard.storage.stores import Store
from nats_testing import Nats
from s3_testing import S3, LossyProxy
from streams_world_testing import CHUNK, KEYS, PARTITIONS, Proxy, Publisher, World, make_source, seed
from yard_testing import Yard, wait_until

RECORDS = int(os.environ.get("MODELYARD_STREAM_RECORDS") or 20_000)
PACE = 0.05
"""Seconds for each batch, as long as there are faults."""
STREAM = "default.pay"


def poison(number: int) -> float | None:
    """What ends the model's process, and what it refuses."""
    if number % 20_000 == 7_777:  # it takes seconds: the model is started again for each half, quarter and so on
        return -1.0
    return -2.0 if number % 1_000 == 888 else None


BAD = [number for number in range(RECORDS) if poison(number) is not None]


@dataclass(frozen=True)
class Lake:
    """Where files go. uri, credentials: as in a manifest; direct: of a `Store` that no fault is in the way of; path,
    filesystem: as pyarrow wants them."""

    format: str
    uri: str
    credentials: dict[str, str]
    direct: tuple[str, dict[str, str]]
    path: str
    filesystem: Callable[[], Any] | None

    def store(self) -> Store:
        uri, keys = self.direct
        return Store.open(uri, credentials=keys)

    def table(self) -> pa.Table:
        """As any tool reads it: names that begin with _ or . are none of its business. Each file of JSON on its own:
        a scan of such a dataset by two threads at once was seen to hang (pyarrow 26)."""
        filesystem = self.filesystem() if self.filesystem else fs.LocalFileSystem()
        if self.format != "jsonl":
            return ds.dataset(self.path, format=self.format, filesystem=filesystem).to_table()
        files = ds.dataset(self.path, format="json", schema=pa.schema([]), filesystem=filesystem).files
        options = pajson.ReadOptions(use_threads=False)
        tables = []
        for each in sorted(files):
            with filesystem.open_input_stream(each) as file:
                tables.append(pajson.read_json(file, options))
        return pa.concat_tables(tables, promote_options="default") if tables else pa.table({})


class Reader(PlainReader):
    """Of the lake, all the time."""

    def __init__(self, lake: Lake, outages: Callable[[], int]) -> None:
        super().__init__(lake.path, lake.filesystem, outages)
        self._lake = lake

    def table(self) -> pa.Table:
        return self._lake.table()

    def check(self, table: pa.Table) -> None:
        ids = table["id"].to_numpy()
        if len(np.unique(ids)) != len(ids):
            self.problems.append(f"{len(ids) - len(np.unique(ids))} rows are there twice")
        if not np.array_equal(table["y"].to_numpy(), 3.0 * ids + 1):
            self.problems.append("a row has a wrong result")


def stream(port: int, lake: Lake, **spec: Any) -> Object:
    sink = {"uri": lake.uri, "format": lake.format, "keep": ["id", "key"]}
    return {
        "apiVersion": API,
        "kind": "ModelStream",
        "metadata": {"name": "pay", "namespace": "default"},
        "spec": {
            "model": {"name": "slow"},
            "source": {"uri": f"nats://127.0.0.1:{port}", "stream": "pay", "subjects": ["pay.in.*.>"]},
            "sink": sink | ({"credentials": "lake"} if lake.credentials else {}),
            "deadLetter": {},
            "partitions": PARTITIONS,
            "key": {"token": 3},
            "batch": {"rows": 400, "wait": "200ms"},
            "replicas": 2,
            "start": {"from": "earliest"},
            **spec,
        },
    }


class FilesWorld(World):
    """Every kind of fault in each history, in an order of its own."""

    def __init__(
        self, folder: Path, yard: Yard, nats: Nats, proxy: Proxy, chance: random.Random, s3: S3 | None
    ) -> None:
        super().__init__(folder, yard, nats, proxy, chance)
        self.outages = 0
        """Begun and ended ones: odd while the store is away."""
        self.losing = 0.0
        self.lost = 0
        """Answers to writes, so far."""
        self.more: Callable[[], None] = lambda: None
        """Gives runners something to write."""
        self._rows = 400
        self._s3 = s3
        faults = ["runner", "runner", "worker", "broker", "cut", "replies", "second runner", "second runner"]
        faults += ["scale", "rollout", "server", "stop, go on"]
        faults += ["store", "lost puts", "lost puts"] if s3 else []
        chance.shuffle(faults)
        faults.insert(chance.randrange(len(faults) // 2), "frozen for long")  # and awake before the end
        self.planned = dict(enumerate(faults))
        self._drawn = random.Random(chance.random())  # for the proxy's threads, so that they do not change the history

    @property
    def over(self) -> bool:
        """Nobody sleeps, either."""
        return len(self.done) >= len(self.planned) and not self._sleepers

    def decide(self, head: bytes) -> str:
        """For the proxy: of the requests that write, some lose their answers."""
        if head.startswith(b"PUT") and self._drawn.random() < max(self.losing, 0.05):
            self.lost += 1
            return self._drawn.choice(["drop-reply", "drop-reply", "cut"])
        return "pass"

    def unseen(self, work: bytes, own: Path) -> bytes:
        if self._s3:
            (own / "secrets" / "sink").mkdir(parents=True)
            for key, value in self._s3.credentials().items():
                (own / "secrets" / "sink" / key).write_text(value)
        changed = super().unseen(work, own)
        assert b'/out"' in changed
        return changed.replace(b'/out"', b'/out/"')

    def _store(self) -> bool:
        assert self._s3
        self.outages += 1
        self._s3.kill()
        pause(self._random.uniform(0.0, 1.5), lambda: False)
        self._s3.start()
        self.outages += 1
        return True

    def _lost_puts(self) -> bool:
        before = self.lost
        self.losing = 0.7
        self.more()
        pause(3.0, lambda: self.lost >= before + 4)
        self.losing = 0.0
        return self.lost > before


@contextmanager
def storage(kind: str, folder: Path) -> Iterator[S3 | None]:
    if kind == "file":
        yield None
        return
    with S3(folder / "weed") as s3:
        yield s3


def lake_of(format_name: str, folder: Path, s3: S3 | None, port: int = 0) -> Lake:
    if s3 is None:
        path = str(folder / "lake" / "out")
        folder_store(folder / "lake")
        return Lake(format_name, f"file://{path}", {}, (path, {}), path, None)
    keys = s3.credentials(port)
    return Lake(
        format_name, "s3://data/out", keys, ("s3://data/out", s3.credentials()), "data/out", lambda: s3_filesystem(s3)
    )


async def dead_letters(store: Store) -> list[Object]:
    found = []
    for entry in await store.list(f"_stream/{STREAM}"):
        if "/dead/" in entry.key:
            body = await store.get(entry.key)
            found += [json.loads(line) for line in (body or b"").splitlines()]
    return found


def dead_ids(store: Store) -> list[int]:
    return sorted(json.loads(each["payload"])["id"] for each in asyncio.run(dead_letters(store)))


def rows(lake: Lake) -> int:
    """Of a reader that takes the lake as it is."""
    try:
        return int(lake.table().num_rows)
    except (OSError, pa.ArrowException):
        return 0


@pytest.mark.timeout(200)
@pytest.mark.parametrize(("kind", "format_name"), [("file", "parquet"), ("s3", "jsonl")])
def test_every_record_is_in_one_file_whatever_happens(
    kind: str, format_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = seed()
    chance = random.Random(chosen)
    with storage(kind, tmp_path) as s3, Nats(tmp_path / "nats") as nats, Yard(tmp_path) as yard:
        proxy = Proxy(nats.port)
        world = FilesWorld(tmp_path, yard, nats, proxy, chance, s3)
        lossy = LossyProxy(s3.port, world.decide) if s3 else None
        lake = lake_of(format_name, tmp_path, s3, lossy.port if lossy else 0)
        reader = Reader(lake, lambda: world.outages)
        publisher = Publisher(nats, RECORDS, poison)
        world.more = lambda: publisher.more(1)
        try:
            asyncio.run(make_source(nats))
            publisher.more(RECORDS // CHUNK // 4)
            objects = [*slow_model(tmp_path, PACE), *([secret("lake", lake.credentials)] if s3 else [])]
            began = time.monotonic()
            yard.apply(*objects, stream(proxy.wire.port, lake), wait=False)
            wait_until(lambda: rows(lake), "records are scored", 60)
            with reader:
                while not world.over:
                    if len(world.done) < len(world.planned):
                        world.fault()
                    world.thaw(time.monotonic())
                    publisher.more(max(1, RECORDS // CHUNK // 2 // len(world.planned)))
                    pause(chance.uniform(0.2, 0.9), lambda: False)
                faults_done = time.monotonic() - began
                (tmp_path / "pace").write_text("0")
                publisher.more(RECORDS)
                until = time.monotonic() + 90
                while (there := rows(lake)) + len(dead_ids(lake.store())) < RECORDS:
                    assert reader.problems == [], f"seed {chosen}"
                    assert time.monotonic() < until, f"seed {chosen}: {there} of {RECORDS}"
                    time.sleep(0.2)
                seconds = time.monotonic() - began
                pause(1.0, lambda: False)  # for what might still come twice
            table, dead = lake.table(), dead_ids(lake.store())
            parts = [each.key for each in asyncio.run(lake.store().list()) if each.key.startswith("part-")]
            done = ", ".join(f"{world.done.count(each)} {each}" for each in sorted(set(world.done)))
            with capsys.disabled():
                print(
                    f"\n{kind}, {format_name}: seed {chosen}, {RECORDS} records in {len(parts)} parts, "
                    f"{len(world.done)} faults ({done}) in {faults_done:.0f} s, {len(dead)} dead letters, "
                    f"{table.num_rows + len(dead) - RECORDS} twice, {lossy.dropped if lossy else 0} replies of the "
                    f"store lost, {reader.reads} plain reads, {seconds:.0f} s"
                )
        finally:
            world.close()
            proxy.close()
            if lossy:
                lossy.close()
        assert reader.problems == [], f"seed {chosen}"
        assert reader.reads > 5
        assert dead == BAD, f"seed {chosen}"
        check(table, reader)


def check(table: pa.Table, reader: Reader) -> None:
    """Rows come in the order of the names of their parts: by partition, then by position."""
    reader.check(table)
    assert reader.problems == []
    ids, keys = table["id"].to_numpy(), table["key"].to_numpy()
    assert sorted([*ids.tolist(), *BAD]) == list(range(RECORDS))
    for key in range(KEYS):
        assert np.all(np.diff(ids[keys == key]) > 0), f"key {key} is out of order"

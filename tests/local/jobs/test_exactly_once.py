"""A million rows, each exactly once, whatever is killed. `MODELYARD_SEED` repeats a history."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from jobs_testing import (
    PlainReader,
    folder_store,
    job,
    pause,
    records,
    runners,
    s3_filesystem,
    secret,
    slow_model,
    state,
    status,
    workers,
    write_parquet,
)
from modelyard.wire.place import Place
from s3_testing import S3, LossyProxy
from yard_testing import Yard, gone, wait_until

ROWS, FILES = 1_000_000, 40
FAULTS = 20
PACE = 0.45
DUE = {1: "second runner", 4: "store", 7: "server", 9: "replies", 11: "store", 13: "second runner", 14: "server"}
"""What each run has for certain, by the number of faults before it; all others are drawn."""


def seed() -> int:
    return int(os.environ.get("MODELYARD_SEED") or random.SystemRandom().randrange(10**6))


class World:
    """A server with a job on it, and what can be done to both."""

    def __init__(self, yard: Yard, chance: random.Random, s3: S3 | None) -> None:
        self.yard = yard
        self.done: list[str] = []
        self.outages = 0
        """Begun and ended ones: odd while the store is away."""
        self.losing = 0.0
        self._random = chance
        self._s3 = s3
        self._extra: list[subprocess.Popen[bytes]] = []

    def decide(self, head: bytes) -> str:
        """For the proxy: of the requests that write, some lose their answers."""
        if self.losing and head.startswith(b"PUT") and self._random.random() < self.losing:
            return self._random.choice(["drop-reply", "drop-reply", "cut"])
        return "pass"

    def fault(self) -> None:
        kinds = ["runner", "runner", "runner", "runner", "worker", "second runner", "fewer, more", "stop, go on"]
        kinds += ["store", "replies", "replies"] if self._s3 else []
        kind = self._random.choice(kinds)
        due = DUE.get(len(self.done), "")
        if due in (*kinds, "server"):
            kind = due
        if getattr(self, "_" + kind.replace(", ", "_").replace(" ", "_"))():
            self.done.append(kind)

    def close(self) -> None:
        for each in self._extra:
            with suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
            each.wait()

    def _runner(self) -> bool:
        return self._kill(runners(self.yard))

    def _worker(self) -> bool:
        return self._kill(workers(self.yard))

    def _kill(self, candidates: list[psutil.Process]) -> bool:
        if not candidates:
            return False
        with suppress(psutil.Error):
            self._random.choice(candidates).kill()
        return True

    def _second_runner(self) -> bool:
        """One by hand, with the number of another: it takes over what that one works on."""
        found = runners(self.yard)
        if not found:
            return False
        with suppress(psutil.Error, OSError):
            environment = self._random.choice(found).environ()
            place = Place.from_environment(environment)
            own = self.yard.folder / f"extra-{len(self._extra)}"
            (own / "scratch").mkdir(parents=True)
            (own / "work.json").write_bytes(Path(place.work).read_bytes())
            if self._s3:
                for role in ("input", "output"):
                    folder = own / "secrets" / role
                    folder.mkdir(parents=True)
                    for key, value in self._s3.credentials().items():
                        (folder / key).write_text(value)
            environment |= {
                "MODELYARD_WORK": str(own / "work.json"),
                "MODELYARD_REPORT": str(own / "report.json"),
                "MODELYARD_SCRATCH": str(own / "scratch"),
                "MODELYARD_SECRETS": str(own / "secrets"),
            }
            command = [sys.executable, "-m", "modelyard.runtime.jobs"]
            with (own / "log").open("wb") as log:
                started = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
            self._extra.append(started)
            return True
        return False

    def _fewer_more(self) -> bool:
        count = self._random.choice([2, 3, 5])
        self._patch({"parallelism": count})
        pause(1.0, lambda: False)
        self._patch({"parallelism": 4})
        return True

    def _stop_go_on(self) -> bool:
        self._patch({"suspend": True})
        pause(0.5, lambda: False)
        self._patch({"suspend": False})
        return True

    def _patch(self, spec: dict[str, Any]) -> None:
        kubeconfig = str(self.yard.data / "kubeconfig")
        command = ["kubectl", "--kubeconfig", kubeconfig, "patch", "modeljob", "big", "--type=merge", "-p"]
        subprocess.run([*command, json.dumps({"spec": spec})], check=True, capture_output=True, timeout=30)

    def _server(self) -> bool:
        everything = self.yard.children()
        self.yard.kill()
        gone(everything)
        self.yard.start()
        return True

    def _store(self) -> bool:
        assert self._s3
        self.outages += 1
        self._s3.kill()
        pause(1.5, lambda: False)
        self._s3.start()
        self.outages += 1
        return True

    def _replies(self) -> bool:
        self.losing = 0.5
        pause(1.0, lambda: False)
        self.losing = 0.0
        return True


@contextmanager
def storage(kind: str, folder: Path) -> Iterator[S3 | None]:
    if kind == "file":
        yield None
        return
    with S3(folder / "weed") as s3:
        yield s3


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["file", "s3"])
def test_a_million_rows_are_scored_exactly_once(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = seed()
    chance = random.Random(chosen)
    with capsys.disabled():
        print(f"\n{kind}: seed {chosen}", flush=True)  # also where it never ends
    with storage(kind, tmp_path) as s3, Yard(tmp_path) as yard:
        world = World(yard, chance, s3)
        objects, reader = _declare(tmp_path, s3, world)
        yard.apply(*objects, wait=False)
        began = time.monotonic()
        try:
            wait_until(lambda: status(yard, "big").get("shards"), "the run has begun", 60)
            with reader:
                while len(world.done) < FAULTS and state(yard, "big")[0] != "True":
                    world.fault()
                    pause(chance.uniform(0.3, 1.2), lambda: False)
                (tmp_path / "pace").write_text("0")
                wait_until(lambda: "True" in state(yard, "big")[:2], "the job ends", 120)
                seconds = time.monotonic() - began
                found = status(yard, "big")
                counted = ", ".join(f"{world.done.count(each)} {each}" for each in sorted(set(world.done)))
                with capsys.disabled():
                    print(
                        f"{kind}: {len(world.done)} faults ({counted}), {found.get('failed')} runners "
                        f"failed, {reader.reads} plain reads, {seconds:.0f} s"
                    )
                assert state(yard, "big") == ("True", "False", "Completed"), found
                assert (found["rows"], found["errorRows"]) == (ROWS, 0)
                table = reader.table()
        finally:
            world.close()
        assert reader.problems == []
        assert reader.reads > 10
        assert len(world.done) >= FAULTS * 3 // 4, "the job was faster than its faults"
        ids = np.sort(table["id"].to_numpy())
        assert np.array_equal(ids, np.arange(ROWS))
        reader.check(table)
        assert reader.problems == []


def _declare(folder: Path, s3: S3 | None, world: World) -> tuple[list[dict[str, Any]], PlainReader]:
    store = s3.store() if s3 else folder_store(folder / "lake")
    each = ROWS // FILES
    for number in range(FILES):
        write_parquet(store, f"in/{number:03d}.parquet", records(number * each, each))
    objects = slow_model(folder, PACE)
    score: dict[str, Any] = {"batchRows": 5000}
    if s3 is None:
        where = "lake"
        reader = PlainReader(str(folder / "lake" / "out"), None, lambda: 0)
    else:
        where = "s3://data"
        proxy = LossyProxy(s3.port, world.decide)
        objects.append(secret("lake", s3.credentials(proxy.port)))
        reader = PlainReader("data/out", lambda: s3_filesystem(s3), lambda: world.outages)
    credentials = {"credentials": "lake"} if s3 else {}
    score["input"] = {"uri": f"{where}/in", **credentials}
    score["output"] = {"uri": f"{where}/out", "keep": ["id"], **credentials}
    objects.append(job("big", "", "", score=score, parallelism=4, backoffLimit=1000))
    return objects, reader

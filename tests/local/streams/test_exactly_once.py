"""Fifty thousand records, each scored once and in order, whatever is killed. `MODELYARD_SEED` repeats a history."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from jobs_testing import API, Object, pause, slow_model, workers
from modelyard.wire import work as works
from modelyard.wire.work import Place
from nats_testing import Nats, Wire
from yard_testing import Yard, gone, kill, wait_until

T = TypeVar("T")
RECORDS = int(os.environ.get("MODELYARD_STREAM_RECORDS") or 50_000)
FAULTS = 20
PARTITIONS, KEYS = 4, 10
CHUNK = 500
PACE = 0.25
"""Seconds for each batch, as long as there are faults."""


def poison(number: int) -> float | None:
    """What ends the model's process, and what it refuses."""
    return {777: -1.0, 888: -2.0}.get(number % 10_000)


class Proxy:
    """A `Wire` with a loop of its own, for a test that has none."""

    def __init__(self, port: int) -> None:
        self.wire = Wire(port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.call(self.wire.__aenter__())

    def call(self, what: Awaitable[T]) -> T:
        async def run() -> T:
            return await what

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    def cut(self) -> None:
        async def cut() -> None:
            self.wire.cut()

        self.call(cut())

    def close(self) -> None:
        self.call(self.wire.__aexit__(None, None, None))
        self.call(self._ended())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _ended(self) -> None:
        """Whatever still serves a connection."""
        tasks = [each for each in asyncio.all_tasks() if each is not asyncio.current_task()]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Publisher:
    """Writes the records, a chunk at a time and each chunk once; whether one arrived is asked after a failure."""

    def __init__(self, nats: Nats) -> None:
        self.done = 0
        self._nats = nats

    def more(self, chunks: int) -> None:
        for _ in range(chunks):
            if self.done < RECORDS:
                asyncio.run(self._chunk())

    async def _chunk(self) -> None:
        async with self._nats.client() as bare:
            name = uuid.uuid4().hex
            for number in range(self.done, self.done + CHUNK):
                last = number == self.done + CHUNK - 1
                headers = {"Nats-Batch-Id": name, "Nats-Batch-Sequence": str(number - self.done + 1)}
                key, x = number % KEYS, poison(number)
                body = json.dumps({"id": number, "key": key, "x": float(number) if x is None else x}).encode()
                subject = f"pay.in.{key % PARTITIONS}.{key}"
                if last:
                    answer = await bare.publish(subject, body, headers | {"Nats-Batch-Commit": "1"})
                    assert "error" not in answer, answer
                else:
                    await bare.client.publish(subject, body, headers=headers)
        self.done += CHUNK


def stream(delivery: str, port: int) -> Object:
    uri = f"nats://127.0.0.1:{port}"
    return {
        "apiVersion": API,
        "kind": "ModelStream",
        "metadata": {"name": "pay", "namespace": "default"},
        "spec": {
            "model": {"name": "slow"},
            "source": {"uri": uri, "stream": "pay", "subjects": ["pay.in.*.>"]},
            "sink": {"uri": uri, "stream": "scored", "subject": "scored.pay", "keep": ["id", "key"]},
            "deadLetter": {"subject": "scored.dead"},
            "delivery": delivery,
            "partitions": PARTITIONS,
            "key": {"token": 3},
            "batch": {"rows": 200, "wait": "10ms"},
            "replicas": 2,
            "start": {"from": "earliest"},
        },
    }


def runners(yard: Yard) -> list[psutil.Process]:
    """The processes of streams that run now."""
    found = []
    for each in yard.children():
        with suppress(psutil.Error):
            if each.cmdline()[-1:] == ["modelyard.runtime.streams"]:
                found.append(each)
    return found


class World:
    """A server with a stream on it, a broker, and what can be done to all of them."""

    def __init__(self, folder: Path, yard: Yard, nats: Nats, proxy: Proxy, chance: random.Random) -> None:
        self.folder = folder
        self.yard = yard
        self.done: list[str] = []
        self._nats = nats
        self._proxy = proxy
        self._random = chance
        self._sleepers: list[tuple[float, psutil.Process]] = []
        self._extra: list[subprocess.Popen[bytes]] = []
        self._rows = 200

    def fault(self) -> None:
        kinds = [
            "runner",
            "runner",
            "runner",
            "worker",
            "cut",
            "cut",
            "replies",
            "frozen for long",
            "second runner",
            "scale",
        ]
        kind = self._random.choice(kinds)
        planned = {
            3: "broker",
            6: "rollout",
            8: "frozen for long",
            9: "broker",
            12: "server",
            14: "rollout",
            16: "stop, go on",
        }
        kind = planned.get(len(self.done), kind)
        if getattr(self, "_" + kind.replace(", ", "_").replace(" ", "_"))():
            self.done.append(kind)
        self.thaw(time.monotonic())

    def thaw(self, now: float) -> None:
        """Those that slept longer than their claims go on as if nothing had happened."""
        for until, process in list(self._sleepers):
            if now >= until:
                self._sleepers.remove((until, process))
                with suppress(psutil.Error):
                    process.resume()

    def close(self) -> None:
        self.thaw(float("inf"))
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
        with suppress(psutil.Error, ProcessLookupError):
            kill(self._random.choice(candidates))
        return True

    def _broker(self) -> bool:
        self._nats.kill()
        pause(self._random.uniform(0.0, 1.5), lambda: False)
        self._nats.start()
        return True

    def _cut(self) -> bool:
        self._proxy.cut()
        return True

    def _replies(self) -> bool:
        """What runners send arrives, and nobody tells them."""
        self._proxy.wire.answers = False
        pause(0.5, lambda: False)
        self._proxy.cut()
        self._proxy.wire.answers = True
        return True

    def _frozen_for_long(self) -> bool:
        found = runners(self.yard)
        if not found:
            return False
        process = self._random.choice(found)
        with suppress(psutil.Error):
            process.suspend()
            self._sleepers.append((time.monotonic() + 11.0, process))
        return True

    def _second_runner(self) -> bool:
        """One by hand that does not see the claims of the others: two work on every partition."""
        found = runners(self.yard)
        if not found:
            return False
        with suppress(psutil.Error, OSError):
            environment = self._random.choice(found).environ()
            work = works.decode(Path(Place.from_environment(environment).work).read_bytes())
            assert work.stream is not None
            own = self.folder / f"extra-{len(self._extra)}"
            (own / "scratch").mkdir(parents=True)
            data = works.encode(work).replace(f":{self._proxy.wire.port}".encode(), f":{self._nats.port}".encode())
            (own / "work.json").write_bytes(data)
            environment |= {
                "MODELYARD_WORK": str(own / "work.json"),
                "MODELYARD_REPORT": str(own / "report.json"),
                "MODELYARD_SCRATCH": str(own / "scratch"),
                "MODELYARD_SOCKET": "",
            }
            command = [sys.executable, "-m", "modelyard.runtime.streams"]
            with (own / "log").open("wb") as log:
                started = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
            self._extra.append(started)
            return True
        return False

    def _scale(self) -> bool:
        self._patch({"replicas": self._random.choice([1, 3, 4])})
        pause(1.0, lambda: False)
        self._patch({"replicas": 2})
        return True

    def _rollout(self) -> bool:
        self._rows += 1
        self._patch({"batch": {"rows": self._rows}})
        return True

    def _stop_go_on(self) -> bool:
        self._patch({"suspend": True})
        pause(0.5, lambda: False)
        self._patch({"suspend": False})
        return True

    def _server(self) -> bool:
        self.thaw(float("inf"))
        everything = self.yard.children()
        self.yard.kill()
        gone(everything)
        self.yard.start()
        return True

    def _patch(self, spec: dict[str, Any]) -> None:
        kubeconfig = str(self.yard.data / "kubeconfig")
        command = ["kubectl", "--kubeconfig", kubeconfig, "patch", "modelstream", "pay", "--type=merge", "-p"]
        subprocess.run([*command, json.dumps({"spec": spec})], check=True, capture_output=True, timeout=30)


async def read(nats: Nats, subject: str) -> list[tuple[int, Object]]:
    """(sequence of the source, record), as the sink holds them."""
    async with nats.client() as bare:
        found = await bare.read("scored", subject)
        return [(int(headers["Modelyard-Source-Sequence"]), json.loads(payload)) for _, payload, headers in found]


def count(nats: Nats, subject: str) -> int:
    async def ask() -> int:
        async with nats.client() as bare:
            found = (await bare.info("scored", subject)).get("state", {}).get("subjects") or {}
            return int(found.get(subject, 0))

    return asyncio.run(ask())


async def make_source(nats: Nats) -> None:
    async with nats.client() as bare:
        await bare.stream("pay", ["pay.in.>"], allow_atomic=True)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("delivery", ["exactlyOnce", "atLeastOnce"])
def test_every_record_is_scored_whatever_happens(
    delivery: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("MODELYARD_SEED") or random.SystemRandom().randrange(10**6))
    chance = random.Random(seed)
    with Nats(tmp_path / "nats") as nats, Yard(tmp_path) as yard:
        proxy = Proxy(nats.port)
        world = World(tmp_path, yard, nats, proxy, chance)
        publisher = Publisher(nats)
        try:
            asyncio.run(make_source(nats))
            publisher.more(RECORDS // CHUNK // 2)
            began = time.monotonic()
            yard.apply(*slow_model(tmp_path, PACE), stream(delivery, proxy.wire.port), wait=False)
            wait_until(lambda: count(nats, "scored.pay") > 0, "records are scored", 60)
            while len(world.done) < FAULTS:
                world.fault()
                publisher.more(max(1, RECORDS // CHUNK // 2 // FAULTS))
                pause(chance.uniform(0.2, 0.9), lambda: False)
            faults_done = time.monotonic() - began
            (tmp_path / "pace").write_text("0")
            publisher.more(RECORDS)
            until = time.monotonic() + 120
            while not asyncio.run(all_done(nats, delivery)):
                world.thaw(time.monotonic())
                assert time.monotonic() < until, f"seed {seed}: {count(nats, 'scored.pay')} of {RECORDS}"
                time.sleep(0.2)
            seconds = time.monotonic() - began
            pause(1.0, lambda: False)  # for what might still come twice
            scored, dead = (asyncio.run(read(nats, each)) for each in ("scored.pay", "scored.dead"))
            done = ", ".join(f"{world.done.count(each)} {each}" for each in sorted(set(world.done)))
            twice = len(scored) + len(dead) - RECORDS
            with capsys.disabled():
                print(
                    f"\n{delivery}: seed {seed}, {RECORDS} records, {len(world.done)} faults ({done}) in "
                    f"{faults_done:.0f} s, {twice} twice, {seconds:.0f} s"
                )
            check(delivery, scored, dead)
        finally:
            world.close()
            proxy.close()


async def all_done(nats: Nats, delivery: str) -> bool:
    async with nats.client() as bare:
        if delivery == "exactlyOnce":
            return sum((await bare.subjects("scored", "scored.*")).values()) >= RECORDS
        for partition in range(PARTITIONS):
            info = await bare.api(f"CONSUMER.INFO.pay.modelyard_default_pay_{partition}")
            if info["num_pending"] or info["num_ack_pending"]:
                return False
        return True


def check(delivery: str, scored: list[tuple[int, Object]], dead: list[tuple[int, Object]]) -> None:
    found = Counter(record["id"] for _, record in [*scored, *dead])
    assert sorted(found) == list(range(RECORDS))
    bad = sorted(number for number in range(RECORDS) if poison(number) is not None)
    assert sorted({record["id"] for _, record in dead}) == bad
    assert all(record["y"] == 3 * record["id"] + 1 for _, record in scored)
    if delivery == "exactlyOnce":
        assert max(found.values()) == 1
        for key in range(KEYS):
            mine = [record["id"] for _, record in scored if record["key"] == key]
            assert mine == sorted(mine), f"key {key} is out of order"

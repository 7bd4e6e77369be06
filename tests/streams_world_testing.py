"""A ModelStream on a local server, its broker, its records, and what can be done to all of them."""

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
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import psutil

from jobs_testing import pause, workers
from modelyard.wire import work as works
from modelyard.wire.place import Place
from nats_testing import Nats, Wire
from yard_testing import Yard, gone, kill

T = TypeVar("T")
PARTITIONS, KEYS = 4, 10
CHUNK = 500


def seed() -> int:
    return int(os.environ.get("MODELYARD_SEED") or random.SystemRandom().randrange(10**6))


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
    """Writes the records, a chunk at a time and each chunk once. poison: what x is instead, for some of them."""

    def __init__(self, nats: Nats, records: int, poison: Callable[[int], float | None]) -> None:
        self.done = 0
        self._nats = nats
        self._records = records
        self._poison = poison

    def more(self, chunks: int) -> None:
        for _ in range(chunks):
            if self.done < self._records:
                asyncio.run(self._chunk())

    async def _chunk(self) -> None:
        async with self._nats.client() as bare:
            name = uuid.uuid4().hex
            for number in range(self.done, self.done + CHUNK):
                last = number == self.done + CHUNK - 1
                headers = {"Nats-Batch-Id": name, "Nats-Batch-Sequence": str(number - self.done + 1)}
                key, x = number % KEYS, self._poison(number)
                body = json.dumps({"id": number, "key": key, "x": float(number) if x is None else x}).encode()
                subject = f"pay.in.{key % PARTITIONS}.{key}"
                if last:
                    answer = await bare.publish(subject, body, headers | {"Nats-Batch-Commit": "1"})
                    assert "error" not in answer, answer
                else:
                    await bare.client.publish(subject, body, headers=headers)
        self.done += CHUNK


def runners(yard: Yard) -> list[psutil.Process]:
    """The processes of streams that run now."""
    found = []
    for each in yard.children():
        with suppress(psutil.Error):
            if each.cmdline()[-1:] == ["modelyard.runtime.streams"]:
                found.append(each)
    return found


class World:
    """A server with a stream `pay` on it, a broker, and what can be done to all of them. planned: faults by their
    place in a history; at others one of kinds is drawn."""

    kinds: tuple[str, ...] = (
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
    )
    planned: Mapping[int, str] = MappingProxyType(
        {
            3: "broker",
            6: "rollout",
            8: "frozen for long",
            9: "broker",
            12: "server",
            14: "rollout",
            16: "stop, go on",
        }
    )

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
        kind = self._random.choice(self.kinds)
        kind = self.planned.get(len(self.done), kind)
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
            (own / "work.json").write_bytes(self.unseen(works.encode(work), own))
            environment |= {
                "MODELYARD_WORK": str(own / "work.json"),
                "MODELYARD_REPORT": str(own / "report.json"),
                "MODELYARD_SCRATCH": str(own / "scratch"),
                "MODELYARD_SECRETS": str(own / "secrets"),
                "MODELYARD_SOCKET": "",
            }
            command = [sys.executable, "-m", "modelyard.runtime.streams"]
            with (own / "log").open("wb") as log:
                started = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
            self._extra.append(started)
            return True
        return False

    def unseen(self, work: bytes, own: Path) -> bytes:
        """The work of a second runner, whose claims have other names. own: its folder; secrets go below it."""
        return work.replace(f":{self._proxy.wire.port}".encode(), f":{self._nats.port}".encode())

    def _scale(self) -> bool:
        self.patch({"replicas": self._random.choice([1, 3, 4])})
        pause(1.0, lambda: False)
        self.patch({"replicas": 2})
        return True

    def _rollout(self) -> bool:
        self._rows += 1
        self.patch({"batch": {"rows": self._rows}})
        return True

    def _stop_go_on(self) -> bool:
        self.patch({"suspend": True})
        pause(0.5, lambda: False)
        self.patch({"suspend": False})
        return True

    def _server(self) -> bool:
        self.thaw(float("inf"))
        everything = self.yard.children()
        self.yard.kill()
        gone(everything)
        self.yard.start()
        return True

    def patch(self, spec: dict[str, Any]) -> None:
        kubeconfig = str(self.yard.data / "kubeconfig")
        command = ["kubectl", "--kubeconfig", kubeconfig, "patch", "modelstream", "pay", "--type=merge", "-p"]
        subprocess.run([*command, json.dumps({"spec": spec})], check=True, capture_output=True, timeout=30)


async def make_source(nats: Nats) -> None:
    async with nats.client() as bare:
        await bare.stream("pay", ["pay.in.>"], allow_atomic=True)

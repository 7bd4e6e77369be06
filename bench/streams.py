"""A stream beside a bare nats-py loop without a model: one table.

PYTHONPATH=src:tests python bench/streams.py [--records 60000] [--rounds 3]

Records of an id and ten numbers, on a NATS server whose writes are all synced -> an ONNX model [-1, 10] -> a subject.
`single`: a JSON object in each message; `packed`: an Arrow batch of 64 records. A backlog is scored by one runner that
is pinned to one core. `per core`: records for each second of the runner's CPU, which a busy machine changes least. The
bare loop reads the same messages in the same way (an ordered read and fenced atomic batches, or fetch, publish and
acknowledge) and writes what it read. Rounds alternate, the median of the ratios counts. Latency: from the publisher's
clock to the committed output, at a steady pace. The status is 1 when a target is missed.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nats
import numpy as np
import psutil
import pyarrow as pa
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from jobs import FEATURES, Table, pinned, write_model
from modelyard.storage.cache import Cache
from modelyard.wire import report as reports
from modelyard.wire import work as works
from modelyard.wire.place import Place
from modelyard.wire.report import StreamReport
from modelyard.wire.work import BatchWork, ModelWork, SinkWork, SourceWork, StartWork, StreamWork, TensorSpec, WorkSpec
from nats_testing import Nats

PACKED = 64
_LEAST_PACKED, _MOST_P50_MS, _MOST_GROWTH = 20_000, 40, 2
_MILLIONS = 3
_PACES = {"single": 200, "packed": 1000}
"""Records a second. A broker that syncs every message takes about a thousand single ones in all."""
_PACE_SECONDS = 6
_BARE = """
import asyncio, json, resource, sys, time, uuid
import nats
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
url, mode, total, batch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
async def exactly_once(nc, js):
    sub = await js.subscribe("bench.in", ordered_consumer=True,
        config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL), pending_msgs_limit=10**6, pending_bytes_limit=2**30)
    done, fence = 0, 0
    while done < total:
        found = [await sub.next_msg(timeout=10) for _ in range(min(batch, total - done))]
        name = uuid.uuid4().hex
        for number, each in enumerate(found):
            headers = {"Nats-Batch-Id": name, "Nats-Batch-Sequence": str(number + 1)}
            if number:
                await nc.publish("bare.out", each.data, headers=headers)
            else:
                await nc.request("bare.out", each.data, headers=headers, timeout=10)
        headers = {"Nats-Batch-Id": name, "Nats-Batch-Sequence": str(len(found) + 1), "Nats-Batch-Commit": "1",
            "Nats-Expected-Last-Subject-Sequence": str(fence), "Nats-TTL": "never", "Nats-Rollup": "sub"}
        answer = json.loads((await nc.request("bare.offset", str(done).encode(), headers=headers, timeout=10)).data)
        fence, done = answer["seq"], done + len(found)
async def at_least_once(nc, js):
    sub = await js.pull_subscribe("bench.in", durable="bare")
    done = 0
    while done < total:
        found = await sub.fetch(min(batch, total - done), timeout=10)
        sent = [await js.publish_async("bare.out", each.data, headers={"Nats-Msg-Id": f"{done + number}"})
            for number, each in enumerate(found)]
        await asyncio.gather(*sent)
        await asyncio.gather(*(each.ack_sync(timeout=10) for each in found))
        done += len(found)
async def main():
    nc = await nats.connect(url)
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    await (exactly_once if mode == "exactlyOnce" else at_least_once)(nc, nc.jetstream(publish_async_max_pending=1000))
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    print(json.dumps([time.perf_counter() - began, cpu]))
    await nc.close()
asyncio.run(main())
"""


class Bench:
    """A broker with a backlog, and a folder for runners."""

    def __init__(self, folder: Path, server: Nats) -> None:
        self.folder = folder
        self.server = server
        write_model(folder)
        self.digest = Cache(folder / "cache").put(folder / "model.onnx")
        self._runs = 0

    def work(self, delivery: str, form: str, *, rows: int, wait: float = 0.01) -> StreamWork:
        self._runs += 1
        return StreamWork(
            name=f"bench.s{self._runs}",
            revision="s-stream-00001",
            model=ModelWork(
                name="m",
                digest=self.digest,
                format="onnx",
                inputs=(TensorSpec(name="X", datatype="FP32", shape=(-1, FEATURES)),),
                outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 1)),),
            ),
            source=SourceWork(
                uri=self.server.uri,
                stream="bench",
                subjects=("bench.in",),
                format="json" if form == "single" else "arrow",
                columns=tuple(f"f{number}" for number in range(FEATURES)),
            ),
            sink=SinkWork(uri=self.server.uri, stream=f"out{self._runs}", subject=f"out{self._runs}.y", keep=("id",)),
            dead_letter=f"out{self._runs}.dead",
            delivery=delivery,
            batch=BatchWork(rows=rows, wait_seconds=wait),
            start=StartWork(at="earliest"),
        )

    @contextmanager
    def runner(self, work: StreamWork) -> Iterator[psutil.Process]:
        own = self.folder / f"run-{self._runs}"
        (own / "scratch").mkdir(parents=True, exist_ok=True)
        (own / "work.json").write_bytes(works.encode(WorkSpec(stream=work)))
        place = Place(
            work=str(own / "work.json"),
            report=str(own / "report.json"),
            cache=str(self.folder / "cache"),
            scratch=str(own / "scratch"),
        )
        with (own / "log").open("wb") as log:
            process = subprocess.Popen(
                pinned(0, ["-m", "modelyard.runtime.streams"]),
                env={**os.environ, **place.environment()},
                stderr=log,
            )
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(20)

    def report(self) -> StreamReport:
        """What the runner said last."""
        try:
            data = (self.folder / f"run-{self._runs}" / "report.json").read_bytes()
        except FileNotFoundError:
            return StreamReport()
        return reports.decode(data).stream or StreamReport()


async def fill(server: Nats, form: str, records: int) -> None:
    """The source anew, with so many records."""
    nc = await nats.connect(server.uri)
    js = nc.jetstream(publish_async_max_pending=2000)
    for name in ("bench", "bare"):
        with suppress(NotFoundError):
            await js.delete_stream(name)
    settings = {"allow_atomic": True, "allow_msg_ttl": True, "allow_rollup_hdrs": True, "allow_direct": True}
    for name, subject in (("bench", "bench.in"), ("bare", "bare.>")):
        await api(nc, f"STREAM.CREATE.{name}", {"name": name, "subjects": [subject], "storage": "file", **settings})
    found = list(payloads(form, records))
    for start in range(0, len(found), 1000):
        await publish(nc, "bench.in", found[start : start + 1000])
    await nc.close()


async def publish(nc: Client, subject: str, messages: list[bytes]) -> None:
    """At once: single messages are synced one by one."""
    name = uuid.uuid4().hex
    for number, each in enumerate(messages):
        headers = {"Nats-Batch-Id": name, "Nats-Batch-Sequence": str(number + 1)}
        if number + 1 < len(messages):
            await nc.publish(subject, each, headers=headers)
        else:
            await nc.request(subject, each, headers=headers | {"Nats-Batch-Commit": "1"}, timeout=30)


async def api(nc: Client, what: str, body: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(
        (await nc.request(f"$JS.API.{what}", json.dumps(body).encode(), timeout=10)).data
    )
    if "error" in answer:
        raise SystemExit(f"{what}: {answer['error']}")
    return answer


def payloads(form: str, records: int) -> Iterator[bytes]:
    values = np.random.default_rng(0).random((records, FEATURES)).astype(np.float32)
    if form == "single":
        names = [f"f{number}" for number in range(FEATURES)]
        for number, row in enumerate(values.tolist()):
            yield json.dumps({"id": number, **dict(zip(names, row, strict=True))}).encode()
        return
    for start in range(0, records, PACKED):
        part = values[start : start + PACKED]
        columns = {f"f{number}": part[:, number] for number in range(FEATURES)}
        batch = pa.record_batch({"id": np.arange(start, start + len(part)), **columns})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        yield bytes(sink.getvalue())


def drain(bench: Bench, delivery: str, form: str, records: int) -> tuple[float, float]:
    """(records a second, records a second of CPU) of a runner, from its first commit on."""
    return asyncio.run(_drain(bench, bench.work(delivery, form, rows=999), 1 if form == "single" else PACKED, records))


async def _drain(bench: Bench, work: StreamWork, each: int, records: int) -> tuple[float, float]:
    nc = await nats.connect(bench.server.uri)
    first, began, used = 0, 0.0, 0.0
    with bench.runner(work) as process:
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            answer = json.loads((await nc.request(f"$JS.API.STREAM.INFO.{work.sink.stream}", b"", timeout=10)).data)
            # The offset is a message too.
            offsets = int(work.delivery == "exactlyOnce")
            done = each * (answer.get("state", {}).get("messages", 0) - offsets)
            now, cpu = time.perf_counter(), sum(process.cpu_times()[:2])
            if done > 0 and not first:
                first, began, used = done, now, cpu
            if done >= records:
                await nc.close()
                return (records - first) / (now - began), (records - first) / max(cpu - used, 0.01)
            await asyncio.sleep(0.02)
    raise SystemExit(f"the runner ended; its log is in {bench.folder}")


def bare(bench: Bench, delivery: str, form: str, records: int) -> tuple[float, float]:
    """The same of the bare loop."""
    messages = records if form == "single" else records // PACKED
    batch = 999 if form == "single" else 999 // PACKED
    command = pinned(0, ["-c", _BARE, bench.server.uri, delivery, str(messages), str(batch)])
    wall, cpu = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return records / wall, records / cpu


async def latency(bench: Bench, delivery: str, form: str) -> tuple[float, float]:
    """(p50, p99) in milliseconds at a steady pace of records."""
    await fill(bench.server, form, 0)
    work = bench.work(delivery, form, rows=256, wait=0.005)
    with bench.runner(work):
        await until(lambda: bench.report().ready and bool(bench.report().partitions))
        nc = await nats.connect(bench.server.uri)
        found: list[float] = []

        async def arrived(message: Msg) -> None:
            now = time.time()
            if message.headers and "Sent" in message.headers:
                found.append(now - float(message.headers["Sent"]))

        await nc.subscribe(work.sink.subject, cb=arrived)
        each = 1 if form == "single" else PACKED
        ready = list(payloads(form, _PACES[form] * _PACE_SECONDS))
        began = time.perf_counter()
        for number, payload in enumerate(ready):
            pause = began + number * each / _PACES[form] - time.perf_counter()
            if pause > 0:
                await asyncio.sleep(pause)
            await nc.publish("bench.in", payload, headers={"Sent": str(time.time())})
        await until(lambda: len(found) >= len(ready))
        await nc.close()
    steady = found[len(found) // 6 :]
    return tuple(1000 * float(np.percentile(steady, share)) for share in (50, 99))  # type: ignore[return-value]


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not fact():  # noqa: ASYNC110  whatever the fact is made of
            await asyncio.sleep(0.02)


def compare(table: Table, bench: Bench, records: int, rounds: int) -> None:
    for form in ("single", "packed"):
        for delivery in ("exactlyOnce", "atLeastOnce"):
            total = records if form == "single" else records * 8 // PACKED * PACKED
            ours, ratios, walls, hand = [], [], [], []
            for _ in range(rounds):
                asyncio.run(fill(bench.server, form, total))
                theirs = bare(bench, delivery, form, total)
                rate = drain(bench, delivery, form, total)
                walls.append(rate[0])
                hand.append(theirs[0])
                ours.append(rate[1])
                ratios.append(rate[1] / theirs[1])
            needed = form == "packed" and delivery == "exactlyOnce"
            per_core = statistics.median(ours)
            target = f">= {_LEAST_PACKED:,}" if needed else ""
            table.row(f"{delivery}, {form}: records/s", f"{statistics.median(walls):,.0f}")
            table.row("  of the bare loop", f"{statistics.median(hand):,.0f}")
            table.row("  per core", f"{per_core:,.0f}", target, good=not needed or per_core >= _LEAST_PACKED)
            table.row("  per core, of the bare loop's", f"{statistics.median(ratios):.2f}")
    for form in ("single", "packed"):
        for delivery in ("exactlyOnce", "atLeastOnce"):
            p50, p99 = asyncio.run(latency(bench, delivery, form))
            needed = form == "packed" and delivery == "exactlyOnce"
            target = f"<= {_MOST_P50_MS}" if needed else ""
            name = f"{delivery}, {form}: ms to the output at {_PACES[form]:,}/s"
            table.row(f"{name}, p50 / p99", f"{p50:.1f} / {p99:.1f}", target, good=not needed or p50 <= _MOST_P50_MS)


async def growth(bench: Bench) -> float:
    """MB for each million records more, after the first half million."""
    await fill(bench.server, "packed", _MILLIONS * 1_000_000)
    work = bench.work("exactlyOnce", "packed", rows=999)
    nc = await nats.connect(bench.server.uri)
    done, seen, used = 0.0, [], []
    with bench.runner(work) as process:
        while done < _MILLIONS - PACKED / 1e6:
            await asyncio.sleep(0.1)
            answer = json.loads((await nc.request(f"$JS.API.STREAM.INFO.{work.sink.stream}", b"", timeout=10)).data)
            done = PACKED * (answer.get("state", {}).get("messages", 0) - 1) / 1e6
            if done > 0.5:
                seen.append(done)
                used.append(process.memory_info().rss / 2**20)
    await nc.close()
    return float(np.polyfit(seen, used, 1)[0])


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    table = Table()
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as name, Nats(Path(name) / "nats") as server:
        bench = Bench(Path(name), server)
        compare(table, bench, asked.records, asked.rounds)
        more = asyncio.run(growth(bench))
        table.row(
            "memory of a runner, MB more per million records",
            f"{more:.1f}",
            f"<= {_MOST_GROWTH}",
            good=more <= _MOST_GROWTH,
        )
    return int(table.missed)


if __name__ == "__main__":
    sys.exit(main())

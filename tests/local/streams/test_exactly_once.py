"""Fifty thousand records, each scored once and in order, whatever is killed. `MODELYARD_SEED` repeats a history."""

import asyncio
import json
import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from jobs_testing import API, Object, pause, slow_model
from nats_testing import Nats
from streams_world_testing import CHUNK, KEYS, PARTITIONS, Proxy, Publisher, World, make_source
from streams_world_testing import seed as chosen_seed
from yard_testing import Yard, wait_until

RECORDS = int(os.environ.get("MODELYARD_STREAM_RECORDS") or 50_000)
PATIENCE = max(1.0, RECORDS / 50_000)
"""More records may take more time."""
FAULTS = 20
PACE = 0.25
"""Seconds for each batch, as long as there are faults."""


def poison(number: int) -> float | None:
    """What ends the model's process, and what it refuses."""
    return {777: -1.0, 888: -2.0}.get(number % 10_000)


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


@pytest.mark.timeout(300 * PATIENCE)
@pytest.mark.parametrize("delivery", ["exactlyOnce", "atLeastOnce"])
def test_every_record_is_scored_whatever_happens(
    delivery: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = chosen_seed()
    chance = random.Random(seed)
    with Nats(tmp_path / "nats") as nats, Yard(tmp_path) as yard:
        proxy = Proxy(nats.port)
        world = World(tmp_path, yard, nats, proxy, chance)
        publisher = Publisher(nats, RECORDS, poison)
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
            until = time.monotonic() + 120 * PATIENCE
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

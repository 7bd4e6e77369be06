"""Streams on a real cluster: each record is scored once and in order, whatever is killed in the middle."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster_serving_testing import model, models, secret
from cluster_testing import HOST, Cluster, Namespace
from installation_testing import SYSTEM, Installation
from kubectl_testing import until
from nats_testing import Nats
from s3_testing import S3

Object = dict[str, Any]
PARTITIONS, KEYS, CHUNK, CHUNKS = 2, 10, 500, 20
RECORDS = CHUNK * CHUNKS
SMALL = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"cpu": "500m", "memory": "512Mi"}}


@pytest.fixture
def lake(cluster: Cluster, namespace: Namespace, tmp_path: Path) -> Iterator[S3]:
    """A store with models, and its keys in the namespace."""
    _ = cluster.node  # pods reach this machine from our node only
    with models(tmp_path, HOST) as server:
        namespace.apply(secret("lake", server.credentials()))
        yield server


def stream(nats: Nats, **spec: Any) -> Object:
    body = {"apiVersion": "modelyard.dev/v1alpha1", "kind": "ModelStream", "metadata": {"name": "pay"}}
    declared = {
        "model": {"name": "plus-1"},
        "source": {"uri": nats.uri, "stream": "pay", "subjects": ["pay.in.*.>"], "columns": ["a", "b"]},
        "sink": {"uri": nats.uri, "stream": "scored", "subject": "scored.pay", "keep": ["id", "key"]},
        "delivery": "exactlyOnce",
        "partitions": PARTITIONS,
        "key": {"token": 3},
        "batch": {"rows": 100, "wait": "10ms"},
        "start": {"from": "earliest"},
        "replicas": 2,
        "resources": SMALL,
    }
    return {**body, "spec": {**declared, **spec}}


@pytest.mark.timeout(420)
@pytest.mark.usefixtures("lake")
def test_every_record_is_scored_once_although_pods_the_kubelet_and_the_leader_are_killed(
    cluster: Cluster, installed: Installation, namespace: Namespace, nats: Nats
) -> None:
    asyncio.run(_make(nats))
    asyncio.run(_publish(nats, range(CHUNKS // 2)))
    namespace.apply(model("plus-1", "s3://models/plus-1.onnx"), stream(nats))
    until(lambda: _count(nats) > 0, 120)
    (leader,) = (each for each in installed.pods("operator") if _leads(each))
    installed.kubectl("-n", SYSTEM, "delete", "pod", leader["metadata"]["name"], "--force", "--grace-period=0")
    cluster.node.kill("kubelet")
    cluster.node.start("kubelet")
    for chunk in range(CHUNKS // 2, CHUNKS):
        if chunk % 4 == 0:
            _kill_one(namespace)
        asyncio.run(_publish(nats, range(chunk, chunk + 1)))
    until(lambda: _count(nats) >= RECORDS, 180)
    _check(asyncio.run(_read(nats)))
    until(lambda: _ready(namespace), 120)
    namespace("scale", "modelstream", "pay", "--replicas=1")
    until(lambda: len(namespace.all("pods", "-l", "modelyard.dev/stream=pay")) == 1, 60)
    namespace("delete", "modelstream", "pay", "--timeout=120s")
    until(lambda: namespace.all("pods", "-l", "modelyard.dev/stream=pay") == [], 60)


def _kill_one(namespace: Namespace) -> None:
    pods = namespace.all("pods", "-l", "modelyard.dev/stream=pay", "--field-selector=status.phase=Running")
    if pods:
        namespace("delete", "pod", pods[0]["metadata"]["name"], "--force", "--grace-period=0")


def _ready(namespace: Namespace) -> bool:
    conditions = namespace.find("modelstream", "pay").get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _leads(pod: Object) -> bool:
    return bool(pod["metadata"]["labels"].get("modelyard.dev/leader") == "true")


def _check(scored: list[Object]) -> None:
    found = Counter(record["id"] for record in scored)
    assert sorted(found) == list(range(RECORDS))
    assert max(found.values()) == 1
    assert all(record["y"] == [record["id"] + 1, 2] for record in scored)
    for key in range(KEYS):
        mine = [record["id"] for record in scored if record["key"] == key]
        assert mine == sorted(mine), f"key {key} is out of order"


async def _make(nats: Nats) -> None:
    async with nats.client() as bare:
        await bare.stream("pay", ["pay.in.>"], allow_atomic=True)


async def _publish(nats: Nats, chunks: range) -> None:
    async with nats.client() as bare:
        for chunk in chunks:
            for number in range(chunk * CHUNK, (chunk + 1) * CHUNK):
                body = json.dumps({"id": number, "key": number % KEYS, "a": float(number), "b": 1.0}).encode()
                subject = f"pay.in.{number % KEYS % PARTITIONS}.{number % KEYS}"
                last = number == (chunk + 1) * CHUNK - 1
                await (bare.publish(subject, body) if last else bare.client.publish(subject, body))


async def _read(nats: Nats) -> list[Object]:
    async with nats.client() as bare:
        return [json.loads(payload) for _, payload, _ in await bare.read("scored", "scored.pay")]


def _count(nats: Nats) -> int:
    async def ask() -> int:
        async with nats.client() as bare:
            found = (await bare.info("scored", "scored.pay")).get("state", {}).get("subjects") or {}
            return int(found.get("scored.pay", 0))

    return asyncio.run(ask())

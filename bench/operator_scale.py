"""An operator with a thousand services on a real Kubernetes API server: what they cost. Two tables.

    tests/cluster/node/node.sh run env PYTHONPATH=.:src:tests .venv/bin/python bench/operator_scale.py [--services 1000]

Modelyard is installed as users do it, with two operators. All services have zero replicas and one Model, so that what
is measured is the control plane alone. Processor time and memory are those of the process of the operator that leads,
seen from its node; everything that it does counts, requests, watches and gateways included. Looks that find nothing to
do are apart from those that write. Second table: how long the other operator takes to lead, by its log.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp

from cluster_serving_testing import model, models, secret, service
from cluster_testing import HOST, Namespace, connected
from installation_testing import SYSTEM, Installation
from kubectl_testing import until
from modelyard.control.kube.client import Client
from modelyard.control.kube.resources import MODELS, MODELSERVICES

Object = dict[str, Any]
_AT_ONCE = 16
_PATIENCE_SECONDS = 600.0
_TICKS = 100
"""Of a second: USER_HZ of Linux."""
_LEADER = "modelyard.dev/leader"
_QUIET_SECONDS = 2.0
_FIRST, _ALL = "objects to be looked at", "everything was looked at"
_TARGET_MILLIS, _TARGET_MB = 1.0, 120.0


@dataclass(frozen=True, slots=True)
class Cost:
    """So far. cpu: seconds."""

    at: float
    cpu: float
    reconciles: float
    writes: float


class Operator:
    """One of an installation, seen from outside. leads: the one that does, or the other one."""

    def __init__(self, installed: Installation, *, leads: bool = True) -> None:
        self._installed = installed
        pods = [each for each in installed.pods("operator") if "deletionTimestamp" not in each["metadata"]]
        (self._pod,) = (each for each in pods if (each["metadata"]["labels"].get(_LEADER) == "true") is leads)
        self.name = str(self._pod["metadata"]["name"])

    @property
    def pid(self) -> str:
        """In the node."""
        (status,) = self._pod["status"]["containerStatuses"]
        container = status["containerID"].removeprefix("containerd://")
        tasks = self._installed.cluster.node.exec("ctr", "-n", "k8s.io", "tasks", "ls")
        (pid,) = (line.split()[1] for line in tasks.splitlines() if line.startswith(container))
        return str(pid)

    def said(self, part: str) -> float | None:
        """When its log had this first, in seconds; None: not yet."""
        log = self._installed.kubectl("-n", SYSTEM, "logs", self.name).splitlines()
        found = next((line for line in log if part in line), None)
        return None if found is None else datetime.strptime(found[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp()  # noqa: DTZ007

    async def cost(self) -> Cost:
        told = self._installed.cluster.node.exec("cat", f"/proc/{self.pid}/stat").rpartition(")")[2].split()
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{self._pod['status']['podIP']}:8080/metrics") as answer,
        ):
            lines = (await answer.text()).splitlines()
        told_of = {
            each.split()[0]: float(each.split()[1])
            for each in lines
            if each.startswith("modelyard_") and "{" not in each
        }
        return Cost(
            at=time.monotonic(),
            cpu=(int(told[11]) + int(told[12])) / _TICKS,
            reconciles=told_of["modelyard_reconciles_total"],
            writes=told_of["modelyard_writes_total"],
        )

    def memory_mb(self) -> float:
        """Resident."""
        status = self._installed.cluster.node.exec("cat", f"/proc/{self.pid}/status").splitlines()
        (line,) = (each for each in status if each.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024


class Many:
    """Services by one client."""

    def __init__(self, client: Client, namespace: str, count: int) -> None:
        self._client = client
        self._namespace = namespace
        self._names = [f"bench-{number:05d}" for number in range(count)]

    async def create(self) -> None:
        async def one(name: str) -> None:
            body = service(name, "plus-1", replicas=0)
            body["metadata"]["namespace"] = self._namespace
            await self._client.create(MODELSERVICES, body)

        await self._all(one)

    async def change(self, longest: str) -> None:
        """A change of the route of each."""

        async def one(name: str) -> None:
            await self._client.patch(MODELSERVICES, self._namespace, name, {"spec": {"timeout": longest}})

        await self._all(one)

    async def look(self) -> None:
        """Makes the operator look at each, in vain: something about their Model that is nobody's business changes."""
        touched = {"metadata": {"annotations": {"example.com/touched": str(time.time_ns())}}}
        await self._client.patch(MODELS, self._namespace, "plus-1", touched)

    async def settled(self) -> None:
        """Until every status tells that what is declared holds."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            items = (await self._client.list(MODELSERVICES, self._namespace))["items"]
            left = [each["metadata"]["name"] for each in items if not _is_settled(each)]
            if not left:
                return
            if time.monotonic() > deadline:
                raise SystemExit(f"{len(left)} services are not settled after {_PATIENCE_SECONDS:g} s, {left[0]} first")
            await asyncio.sleep(0.25)

    async def _all(self, one: Callable[[str], Awaitable[None]]) -> None:
        turns = asyncio.Semaphore(_AT_ONCE)

        async def turn(name: str) -> None:
            async with turns:
                await one(name)

        async with asyncio.TaskGroup() as group:
            for name in self._names:
                group.create_task(turn(name))


def _is_settled(body: Object) -> bool:
    status = body.get("status", {})
    ready = [each for each in status.get("conditions", ()) if each["type"] == "Ready"]
    return (
        bool(ready) and ready[0]["status"] == "True" and status["observedGeneration"] == body["metadata"]["generation"]
    )


def say(*cells: object) -> None:
    sys.stdout.write("  ".join(f"{each!s:<36}" for each in cells).rstrip() + "\n")
    sys.stdout.flush()


async def rests(operator: Operator) -> Cost:
    """Until it looks at nothing and writes nothing any more."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    before = await operator.cost()
    while time.monotonic() < deadline:
        await asyncio.sleep(_QUIET_SECONDS)
        now = await operator.cost()
        if (now.reconciles, now.writes) == (before.reconciles, before.writes):
            return before
        before = now
    raise SystemExit("the operator finds no rest")


async def measured(what: str, operator: Operator, work: Awaitable[None], settled: Awaitable[None]) -> None:
    """Do it, wait for its effect and until the last event is written, and write a row."""
    before = await rests(operator)
    began = time.monotonic()
    await work
    done = time.monotonic()
    await settled
    held = time.monotonic()
    after = await rests(operator)
    looks, writes = after.reconciles - before.reconciles, after.writes - before.writes
    millis = 1000 * (after.cpu - before.cpu) / max(looks, 1)
    say(
        what,
        f"{done - began:.1f} s, {held - done:.1f} s more",
        f"{looks:.0f} with {writes:.0f} writes",
        f"{millis:.2f} ms (target {_TARGET_MILLIS:g})",
        f"{operator.memory_mb():.0f} MB (target {_TARGET_MB:g})",
    )


async def nothing() -> None:
    """To wait for."""


async def bench(installed: Installation, namespace: Namespace, count: int) -> None:
    operator = Operator(installed)
    async with Client(installed.cluster.config) as client:
        many = Many(client, namespace.name, count)
        say("", "written, until all hold", "looks", "CPU of each", "resident memory")
        await measured(f"{count} services created", operator, many.create(), many.settled())
        await measured("their Model touched", operator, many.look(), nothing())
        await measured(f"{count} routes changed", operator, many.change("30s"), many.settled())
        next_one = Operator(installed, leads=False)
        say("")
        say("", "the other one", "memory while it waits")
        waiting = next_one.memory_mb()
        began = time.monotonic()
        installed.kubectl("-n", SYSTEM, "delete", "pod", operator.name, "--wait=false")
        await many.change("40s")
        await many.settled()
        say("leads, and a change of all holds", f"{time.monotonic() - began:.1f} s", f"{waiting:.0f} MB")
        won = next_one.said("leads from now on")
        for what, part in (("lead won until its first look", _FIRST), ("lead won until all were looked at", _ALL)):
            when = next_one.said(part)
            say(what, "unknown" if won is None or when is None else f"{when - won:.2f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=1000)
    count = parser.parse_args().services
    with tempfile.TemporaryDirectory() as folder, connected(Path(folder)) as cluster:
        installed = Installation(cluster)
        installed.install()
        until(lambda: sum(_LEADER in each["metadata"]["labels"] for each in installed.pods("operator")) == 1, 60)
        until(lambda: len(installed.pods("operator")) == 2, 60)
        namespace = cluster.create("bench")  # it goes with the node
        with models(Path(folder) / "models", HOST) as s3:
            namespace.apply(secret("lake", s3.credentials()), model("plus-1", "s3://models/plus-1.onnx"))
            namespace("wait", "model/plus-1", "--for=condition=Ready", "--timeout=120s")
            asyncio.run(bench(installed, namespace, count))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Reports of pods are read while they run; they come from untrusted code."""

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from modelyard.base.clock import SystemClock
from modelyard.control.drivers.kube.index import Index
from modelyard.control.drivers.kube.looks import Looks
from modelyard.control.ir import names
from modelyard.control.ir.observed import ObservedTask
from modelyard.control.ir.task import Task
from modelyard.control.ir.values import Key
from modelyard.control.kube.auth import ClientConfig
from modelyard.control.kube.client import Client
from modelyard.control.render import kube_pod, kube_workload
from modelyard.control.render.kube_container import REPORT_PORT
from modelyard.control.render.kube_pod import PodSettings
from modelyard.control.render.kube_workload import Around
from modelyard.testing.driver_rig import JOB, crew, unit

Object = dict[str, Any]
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
_numbers = itertools.count(1)
CREW = crew(parallelism=1)
UNIT = unit()
OWNER = {"apiVersion": "modelyard.dev/v1alpha1", "kind": "ModelService", "metadata": {"name": "iris", "uid": "1"}}
UID = "11111111-0000-4000-8000-000000000001"


@asynccontextmanager
async def pod(answer: Answer) -> AsyncIterator[str]:
    """Something that listens where pods do, at an address of this test alone."""
    ip = f"127.{os.getpid() % 250 + 1}.{os.getpid() // 250 % 250 + 1}.{next(_numbers)}"
    app = web.Application()
    app.router.add_get("/report", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, ip, REPORT_PORT).start()
    try:
        yield ip
    finally:
        await runner.cleanup()


@asynccontextmanager
async def looking(ip: str) -> AsyncIterator[tuple[Callable[[], ObservedTask], list[Key]]]:
    """A crew of one as it is observed, and who was told of news."""
    told: list[Key] = []
    index = Index(told.append)
    index.workload_handler("Job")(names.kube(CREW.name), None, _job(CREW))
    stored = _pod(ip)
    index.pod_handler(("default", "p"), None, stored)
    told.clear()
    async with Client(ClientConfig(server="http://127.0.0.1:1")) as client, asyncio.TaskGroup() as group:
        looks = Looks(client, index, SystemClock())
        running = group.create_task(looks.run())
        await asyncio.wait_for(looks.first.wait(), 20)
        yield lambda: index.observed(JOB, looks.facts()).tasks[0], told
        running.cancel()


async def test_the_report_of_a_pod_that_runs_is_read_and_its_owner_told() -> None:
    body = {"version": 1, "job": {"run": 1, "committed": 3, "shards": 4}}
    async with pod(_saying(json.dumps(body).encode())) as ip, looking(ip) as (there, told):
        report = there().members[0].report
        assert report is not None
        assert report.job is not None
        assert report.job.committed == 3
        assert told == [JOB]


async def test_what_a_pod_has_used_is_counted_and_is_no_news() -> None:
    asked = itertools.count(1)

    async def say(_: web.Request) -> web.StreamResponse:
        body = {"version": 1, "job": {"run": 1}, "usage": {"cpuSeconds": float(next(asked)), "memoryByteSeconds": 8.0}}
        return web.json_response(body)

    async with pod(say) as ip, looking(ip) as (there, told), asyncio.timeout(20):
        while there().usage.cpu_seconds < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert there().usage.memory_byte_seconds == 8.0
        assert told == [JOB]


@pytest.mark.parametrize("data", [b"", b"\xff", b"{}", b'{"version": 1, "job": {}}' + b" " * 5000, b"x" * 10_000_000])
async def test_what_is_no_report_is_left_out(data: bytes) -> None:
    async with pod(_saying(data)) as ip, looking(ip) as (there, told):
        assert (there().members[0].report, told) == (None, [])


async def test_who_points_elsewhere_is_not_followed() -> None:
    async def elsewhere(_: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("http://127.0.0.1:1/secret")

    async with pod(elsewhere) as ip, looking(ip) as (there, _):
        assert there().members[0].report is None


async def test_who_does_not_answer_holds_up_nobody() -> None:
    async def never(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    async with pod(never) as ip, looking(ip) as (there, _):
        assert there().members[0].report is None


@pytest.mark.parametrize("compared", [frozenset(), frozenset({UNIT.name})], ids=["no copies", "copies"])
async def test_of_those_who_serve_only_who_gets_copies_of_requests_is_asked(compared: frozenset[str]) -> None:
    body = {"version": 1, "serve": {"ready": True, "shadow": {"compared": 3}}}
    index = Index(lambda _: None)
    workload = kube_workload.unit(UNIT, Around(template=kube_pod.template(UNIT, PodSettings()), owner=OWNER))
    workload["metadata"] |= {"uid": UID, "resourceVersion": "1"}
    index.workload_handler("Deployment")(names.kube(UNIT.name), None, workload)
    async with (
        pod(_saying(json.dumps(body).encode())) as ip,
        Client(ClientConfig(server="http://127.0.0.1:1")) as client,
        asyncio.TaskGroup() as group,
    ):
        stored = _pod(ip)
        short = workload["metadata"]["name"]
        stored["metadata"]["labels"] = {names.LABEL_UNIT: names.kube(UNIT.name)[1]}
        stored["metadata"]["ownerReferences"] = [{"kind": "ReplicaSet", "name": f"{short}-1", "controller": True}]
        index.pod_handler(("default", "p"), None, stored)
        looks = Looks(client, index, SystemClock(), lambda: compared)
        running = group.create_task(looks.run())
        await asyncio.wait_for(looks.first.wait(), 20)
        (member,) = index.observed(None, looks.facts()).units[0].members
        assert bool(member.report) == bool(compared)
        running.cancel()


def _saying(data: bytes) -> Answer:
    async def say(_: web.Request) -> web.StreamResponse:
        return web.Response(body=data)

    return say


def _job(task: Task) -> Object:
    annotations = {names.ANNOTATION_TASK: names.canonical(task).decode(), names.ANNOTATION_ASKED: "1"}
    metadata = {"name": names.kube(task.name)[1], "namespace": "default", "uid": UID, "resourceVersion": "1"}
    return {"metadata": {**metadata, "annotations": annotations, "labels": {names.LABEL_JOB: JOB.name}}, "spec": {}}


def _pod(ip: str) -> Object:
    metadata = {
        "name": "p",
        "namespace": "default",
        "uid": "p",
        "labels": {names.LABEL_TASK: names.kube(CREW.name)[1], names.LABEL_JOB: JOB.name},
        "ownerReferences": [{"kind": "Job", "name": "j", "uid": UID, "controller": True}],
    }
    state = {"running": {"startedAt": "2026-11-28T18:00:00Z"}}
    status = {"phase": "Running", "podIP": ip, "containerStatuses": [{"name": "main", "ready": True, "state": state}]}
    return {"metadata": metadata, "spec": {}, "status": status}

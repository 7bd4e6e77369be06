"""Events are news: never waited for, never failing, counted when they repeat."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kube_testing import running, until
from modelyard.base.clock import ManualClock
from modelyard.base.errors import RetryLater
from modelyard.control.kube import events
from modelyard.control.kube.auth import ClientConfig
from modelyard.control.kube.client import MERGE_PATCH, ApiError, Client
from modelyard.control.kube.events import EventRecorder
from modelyard.control.kube.resources import Resource

Object = dict[str, Any]
IRIS: Object = {
    "apiVersion": "modelyard.dev/v1alpha1",
    "kind": "ModelService",
    "metadata": {"name": "iris", "namespace": "default", "uid": "u-1"},
}


class Memory(Client):
    """Keeps events; `failures` are raised by the next requests."""

    def __init__(self) -> None:
        super().__init__(ClientConfig(server="http://nowhere"))
        self.stored: dict[str, Object] = {}
        self.failures: list[Exception] = []
        self.asked: list[str] = []

    def _fail(self, verb: str) -> None:
        self.asked.append(verb)
        if self.failures:
            raise self.failures.pop(0)

    async def create(self, resource: Resource, body: Object) -> Object:
        self._fail("create")
        name = body["metadata"]["name"]
        if name in self.stored:
            raise ApiError(409, "AlreadyExists", "is there")
        self.stored[name] = body
        return body

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        self._fail("get")
        return self.stored[name]

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Any,
        *,
        kind: str = MERGE_PATCH,
        subresource: str | None = None,
    ) -> Object:
        self._fail("patch")
        if name not in self.stored:
            raise ApiError(404, "NotFound", "gone")
        self.stored[name] = {**self.stored[name], **body}
        return self.stored[name]

    @property
    def counts(self) -> dict[str, int]:
        return {f"{each['reason']}: {each['message']}": each["count"] for each in self.stored.values()}


@asynccontextmanager
async def recording(client: Memory, clock: ManualClock | None = None) -> AsyncIterator[EventRecorder]:
    recorder = EventRecorder(client, "modelyard", clock or ManualClock())
    async with running(recorder.run()):
        yield recorder


async def test_an_event_says_whom_it_is_about() -> None:
    client = Memory()
    async with recording(client) as recorder:
        recorder.record(IRIS, "Warning", "Crashed", "it ended")
        await until(lambda: bool(client.stored))
    ((name, event),) = client.stored.items()
    assert name.startswith("iris.")
    assert event["involvedObject"] == {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "ModelService",
        "name": "iris",
        "namespace": "default",
        "uid": "u-1",
    }
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "Crashed", "it ended")
    assert (event["count"], event["source"]) == (1, {"component": "modelyard"})
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2023-11-14T22:13:20Z"


async def test_what_repeats_is_counted() -> None:
    client, clock = Memory(), ManualClock()
    async with recording(client, clock) as recorder:
        for _ in range(3):
            recorder.record(IRIS, "Warning", "Crashed", "it ended")
            clock.advance(60)
        recorder.record(IRIS, "Warning", "Crashed", "it ended otherwise")
        recorder.record({**IRIS, "metadata": {**IRIS["metadata"], "uid": "u-2"}}, "Warning", "Crashed", "it ended")
        await until(lambda: len(client.stored) == 3)
    first = next(iter(client.stored.values()))
    assert (first["count"], first["firstTimestamp"][-9:], first["lastTimestamp"][-9:]) == (3, "22:13:20Z", "22:15:20Z")
    assert [each["count"] for each in client.stored.values()] == [3, 1, 1]


async def test_counting_goes_on_after_a_restart_and_after_the_event_expired() -> None:
    client = Memory()
    for count in (1, 2):
        async with recording(client) as recorder:
            recorder.record(IRIS, "Normal", "Started", "ready")
            await until(lambda count=count: client.counts == {"Started: ready": count})  # type: ignore[misc]
            if count == 2:
                client.stored.clear()
                recorder.record(IRIS, "Normal", "Started", "ready")
                await until(lambda: client.counts == {"Started: ready": 1})
                recorder.record(IRIS, "Normal", "Started", "ready")
                await until(lambda: client.counts == {"Started: ready": 2})


@pytest.mark.parametrize(
    "failure", [RetryLater("away"), ApiError(403, "Forbidden", "no"), ApiError(500, "", ""), KeyError("defect")]
)
async def test_one_that_cannot_be_written_stops_nothing(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    client = Memory()
    client.failures.append(failure)
    async with recording(client) as recorder:
        recorder.record(IRIS, "Normal", "Lost", "never mind")
        recorder.record(IRIS, "Normal", "Kept", "fine")
        await until(lambda: client.counts == {"Kept: fine": 1})
    assert "an event could not be written" in caplog.text


async def test_a_count_that_somebody_spoiled_starts_anew() -> None:
    client = Memory()
    async with recording(client) as recorder:
        recorder.record(IRIS, "Normal", "Started", "ready")
        await until(lambda: bool(client.stored))
    for event in client.stored.values():
        event["count"] = "many"
    async with recording(client) as recorder:
        recorder.record(IRIS, "Normal", "Started", "ready")
        await until(lambda: client.counts == {"Started: ready": 2})


async def test_recording_never_waits_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_REMEMBERED", 10)
    client = Memory()
    recorder = EventRecorder(client, "modelyard", ManualClock())
    for index in range(1005):
        recorder.record(IRIS, "Normal", "Started", f"{index}")
    assert recorder.dropped == 5
    async with running(recorder.run()):
        await until(lambda: len(client.stored) == 1000)
    await asyncio.sleep(0)
    assert len(recorder._counts) == 10


async def test_a_long_message_is_cut_as_kubernetes_wants_it() -> None:
    client = Memory()
    async with recording(client) as recorder:
        recorder.record(IRIS, "Normal", "Started", "x" * 5000)
        await until(lambda: bool(client.stored))
    (event,) = client.stored.values()
    assert len(event["message"]) == 1024
    assert event["message"].endswith("x ...")

"""Spans of requests, at a collector that speaks OTLP over gRPC."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

import otlp_testing
from gateway_testing import becomes_true
from modelyard.control.ir.platform import Platform, Tracing
from modelyard.control.render import xds
from modelyard.testing.gateway_suite import IRIS, acknowledged, route
from otlp_testing import Collector, Span

from .conftest import LAPTOP, EnvoyRig

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
EARLY = "1af7651916cd43dd8448eb211c80319c"


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with otlp_testing.collector() as found:
        yield found


async def serve(rig: EnvoyRig, tracing: Tracing | None, collector: Collector | None = None) -> None:
    """With iris, and the listener in force that traces so; the collector is reached."""
    await rig.gateway.publish((route(IRIS, "a"),), (await rig.endpoints("a"),))
    await acknowledged(rig.gateway, route(IRIS, "a"))
    await trace(rig, msgspec.structs.replace(LAPTOP, tracing=tracing))
    if collector is not None:
        await reached(rig, collector)


async def trace(rig: EnvoyRig, platform: Platform) -> None:
    rig.gateway.configure(platform)
    await becomes_true(lambda: rig.gateway._ads.holds(xds.LISTENER, xds.LISTENER_NAME))


async def reached(rig: EnvoyRig, collector: Collector) -> None:
    """Spans are thrown away until Envoy has found the collector."""
    async with asyncio.timeout(30):
        while not collector.spans:
            await sent(rig, f"00-{EARLY}-{SPAN}-01")
            await asyncio.sleep(0.2)


def spans(collector: Collector) -> list[Span]:
    """Without those of `reached`."""
    return [each for each in collector.spans if each.trace != EARLY]


async def sent(rig: EnvoyRig, header: str = "") -> str:
    """The trace context that the replica got."""
    # Who is connected goes on with the listener that it came through.
    headers = {"connection": "close"} | ({"traceparent": header} if header else {})
    _, body, _ = await rig.request("GET", "/v2/models/iris/echo?token=hush", headers=headers)
    found = re.search(r"\r\ntraceparent: (\S+)\r\n", body["head"])
    return found[1] if found else ""


async def test_a_request_without_trace_context_begins_a_trace(
    rig: EnvoyRig, collector: Collector, tmp_path: Path
) -> None:
    await serve(rig, Tracing(address=collector.address), collector)
    found = re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-01", await sent(rig))
    assert found
    await becomes_true(lambda: len(spans(collector)) == 1)
    (span,) = spans(collector)
    assert (span.trace, span.id, span.parent, span.service) == (found[1], found[2], "", "modelyard-gateway")
    assert span.tags["modelyard.model"] == "iris.default"
    assert span.tags["modelyard.revision"] == "a"
    assert span.tags["http.status_code"] == "200"
    await becomes_true(lambda: f'"trace":"{span.trace}"' in (tmp_path / "access.log").read_text())


async def test_a_callers_trace_is_gone_on_with(rig: EnvoyRig, collector: Collector) -> None:
    await serve(rig, Tracing(address=collector.address, sample_percent=0), collector)
    context = await sent(rig, f"00-{TRACE}-{SPAN}-01")
    await becomes_true(lambda: len(spans(collector)) == 1)
    (span,) = spans(collector)
    assert (span.trace, span.parent) == (TRACE, SPAN)
    assert context == f"00-{TRACE}-{span.id}-01"


async def test_what_is_not_sampled_is_not_sent(rig: EnvoyRig, collector: Collector) -> None:
    await serve(rig, Tracing(address=collector.address, sample_percent=0), collector)
    assert not (await sent(rig)).endswith("-01")
    assert (await sent(rig, f"00-{TRACE}-{SPAN}-00")).startswith(f"00-{TRACE}-")
    await sent(rig, f"00-{TRACE}-{SPAN}-01")
    await becomes_true(lambda: len(spans(collector)) > 0)
    assert [each.parent for each in spans(collector)] == [SPAN]


async def test_without_a_collector_trace_context_passes_untouched(rig: EnvoyRig) -> None:
    await serve(rig, None)
    assert await sent(rig, f"00-{TRACE}-{SPAN}-01") == f"00-{TRACE}-{SPAN}-01"
    assert await sent(rig) == ""


async def test_a_collector_that_does_not_answer_holds_nobody_up(rig: EnvoyRig) -> None:
    await serve(rig, Tracing(address="127.0.0.1:1"))
    async with asyncio.timeout(5):
        for _ in range(20):
            assert (await rig.ask("iris"))[0] == 200


async def test_tracing_is_turned_on_and_off_under_load(rig: EnvoyRig, collector: Collector) -> None:
    await serve(rig, None)
    for tracing in (Tracing(address=collector.address), None, Tracing(address=collector.address, sample_percent=50)):
        asked = [asyncio.create_task(rig.ask("iris")) for _ in range(20)]
        rig.gateway.configure(msgspec.structs.replace(LAPTOP, tracing=tracing))
        assert [(await each)[0] for each in asked] == [200] * 20
        await becomes_true(lambda: rig.gateway._ads.holds(xds.LISTENER, xds.LISTENER_NAME))


async def test_a_collector_that_envoy_refuses_is_done_without(
    rig: EnvoyRig, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    await serve(rig, None)
    before = rig.gateway.pid
    rig.gateway.configure(msgspec.structs.replace(LAPTOP, tracing=Tracing(address="collector.example:70000")))
    await becomes_true(lambda: "not traced" in caplog.text)
    assert (await rig.ask("iris"))[0] == 200
    await trace(rig, msgspec.structs.replace(LAPTOP, tracing=Tracing(address=collector.address)))
    await reached(rig, collector)
    assert rig.gateway.pid == before

"""What Envoy counts about units."""

import asyncio
import re

import pytest
import tritonclient.grpc.aio as aio
from tritonclient.utils import InferenceServerException

from gateway_testing import becomes_true
from modelyard.control.gateway import stats
from modelyard.control.ir.observed import Load
from modelyard.control.ir.route import Endpoints
from modelyard.control.render import xds
from modelyard.testing.gateway_suite import IRIS, acknowledged, route

from .conftest import EnvoyRig

UNIT = "iris-svc-00001.default"


async def serve(rig: EnvoyRig) -> None:
    await rig.gateway.publish((route(IRIS, UNIT),), (await rig.endpoints(UNIT),))
    await acknowledged(rig.gateway, route(IRIS, UNIT))


def load(rig: EnvoyRig) -> Load:
    return rig.gateway.load().get(UNIT, Load(unit=UNIT))


async def test_a_request_under_way_and_its_end_are_seen(rig: EnvoyRig) -> None:
    await serve(rig)
    rig.upstreams[UNIT].hold()
    asked = asyncio.create_task(rig.ask("iris"))
    await becomes_true(lambda: load(rig).in_flight == 1)
    rig.upstreams[UNIT].release()
    assert await asked == (200, UNIT)
    await becomes_true(lambda: load(rig).in_flight == 0 and load(rig).answered == 1)
    await becomes_true(lambda: (load(rig).p99_seconds or 0) > 0.001)


async def test_connections_that_fail_and_tries_again_are_counted(rig: EnvoyRig) -> None:
    gone = Endpoints(unit=UNIT, addresses=(f"unix:{rig.folder}/gone.sock",))
    await rig.gateway.publish((route(IRIS, UNIT),), (gone,))
    await acknowledged(rig.gateway, route(IRIS, UNIT))
    assert (await rig.ask("iris"))[0] == 503
    await becomes_true(lambda: load(rig).failed == 1)
    assert load(rig).connect_failures == 4
    assert load(rig).retries == 3


async def test_totals_go_on_when_envoy_is_started_again(rig: EnvoyRig) -> None:
    await serve(rig)
    assert await rig.ask("iris") == (200, UNIT)
    await becomes_true(lambda: load(rig).answered == 1)
    before = rig.gateway.pid
    rig.gateway._envoy.kill()
    await becomes_true(lambda: rig.gateway.pid not in (0, before) and rig.gateway._ads.holds(xds.SCOPE, "iris"))
    assert await rig.ask("iris") == (200, UNIT)
    await becomes_true(lambda: load(rig).answered == 2)


async def test_nothing_is_kept_about_units_that_nobody_calls(rig: EnvoyRig) -> None:
    await serve(rig)
    text = await rig.gateway._envoy.admin("GET", "/stats?filter=^cluster\\.iris")
    assert text == ""
    assert stats.counts(await rig.gateway._envoy.admin("GET", stats.ASK)) == {}


async def answers(rig: EnvoyRig, model: str = "") -> list[str]:
    """Lines of the metrics about answers, after the model."""
    text = await rig.gateway.metrics(model)
    return re.findall(r"^modelyard_gateway_answers_total\{model=(.*)$", text, re.MULTILINE)


async def test_every_answer_is_counted_with_its_model(rig: EnvoyRig) -> None:
    await serve(rig)
    before = await answers(rig)
    assert await rig.ask("iris") == (200, UNIT)
    assert (await rig.request("GET", "/v2/models/iris/ready", headers={"host": "evil.example"}))[0] == 403
    assert (await rig.ask("nope"))[0] == 404
    assert (await rig.request("GET", '/v2/models/a"b/ready'))[0] == 404
    wanted = [
        '"",code="404",grpc=""} 2',
        '"iris.default",code="200",grpc=""} 1',
        '"iris.default",code="403",grpc=""} 1',
    ]
    assert [each for each in await answers(rig) if each not in before] == wanted
    assert await answers(rig, "iris.default") == wanted[1:]
    for other in ("iris", "nope.default", ".*", "x&filter=answers"):
        assert await answers(rig, other) == []


async def test_a_failing_call_over_grpc_is_seen_by_its_status(rig: EnvoyRig) -> None:
    await serve(rig)
    async with aio.InferenceServerClient(rig.gateway.url.removeprefix("http://")) as client:
        with pytest.raises(InferenceServerException):
            await client.is_model_ready("nope")
    assert '"",code="200",grpc="5"} 1' in await answers(rig)

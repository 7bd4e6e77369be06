"""A revision in a pod that gets copies asks the one that serves: at the gateway that has sent the copy."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from msgspec.structs import replace

import front_testing
from front_testing import Front
from modelyard.control.ir import names
from modelyard.control.ir.access import OPEN
from modelyard.control.ir.route import Backend, Endpoints, Mirror, Route
from modelyard.control.ir.unit_secret import unit_secret
from modelyard.runtime.front.asking import Unanswered, ask
from modelyard.testing.gateway_suite import IRIS, acknowledged
from modelyard.wire import report as reports
from modelyard.wire.report import ShadowReport
from nats_testing import free_port
from network_testing import needs_network
from remote_testing import GatewayPod, RemoteRig, remote_rig
from yard_testing import write_onnx

from .conftest import becomes

pytestmark = needs_network

SERVING, SHADOW = "iris-svc-00001.default", "iris-svc-00002.default"
ROUTE = Route(
    owner=IRIS,
    ids=("iris.default", "iris"),
    backends=(Backend(unit=SERVING),),
    mirror=Mirror(unit=SHADOW, percent=100, compared_percent=100),
    access=OPEN,
)
INFER = "/v2/models/iris/infer"
secret = partial(unit_secret, b"k" * 32)


@pytest.fixture
async def rig() -> AsyncIterator[RemoteRig]:
    async with remote_rig(2, secret) as found:
        yield found


async def asked(pod: GatewayPod, bearing: str, path: str = INFER) -> int:
    """The status of an answer to who shows a secret; 0 where nobody listens."""
    head = f"POST {path} HTTP/1.1\r\nhost: shadow\r\nx-modelyard-gateway: {bearing}\r\n"
    try:
        at = (pod.address, names.SHADOW_PORT)
        return (await ask(at, head.encode(), b"{}", most_bytes=10_000, seconds=20)).status
    except Unanswered:
        return 0


class PodFront(Front):
    """A front that listens as in a pod. host: where."""

    def __init__(self, folder: Path, unit: str, plus: float, host: str) -> None:
        folder.mkdir()
        write_onnx(folder / "model.onnx", plus)
        self.address = f"{host}:{free_port(host)}"
        self.tells = f"{host}:{free_port(host)}"
        place = {"socket": "", "listen": self.address, "report_listen": self.tells}
        shadow = f":{names.SHADOW_PORT}"
        models = {"iris": folder / "model.onnx"}
        super().__init__(folder, models, gateway_secret=secret(unit), shadow=shadow, place=place)

    async def compared(self) -> ShadowReport:
        """As its driver reads it."""
        async with aiohttp.ClientSession() as caller, caller.get(f"http://{self.tells}/report") as answer:
            found = reports.decode(await answer.read())
        return (found.serve.shadow if found.serve else None) or ShadowReport()


async def test_the_secret_of_the_unit_that_gets_copies_opens_what_it_may_ask_and_nothing_else(rig: RemoteRig) -> None:
    endpoints = tuple([replace(await rig.endpoints(unit), unit=unit) for unit in (SERVING, SHADOW)])
    await rig.gateway.publish((replace(ROUTE, mirror=None),), endpoints)
    await acknowledged(rig.gateway, replace(ROUTE, mirror=None))
    assert [await asked(pod, secret(SHADOW)) for pod in rig.pods] == [0, 0]
    assert rig.gateway.compared == set()
    await rig.gateway.publish((ROUTE,), endpoints)
    for pod in rig.pods:
        await becomes(lambda pod=pod: asked(pod, secret(SHADOW)), lambda status: status == 200)  # type: ignore[misc]
        for bearing in ("", "~", secret(SERVING), secret("rose-svc-00001.default")):
            assert await asked(pod, bearing) == 403
        for path in ("/v2", "/v2/models/rose/infer", "/v2/models/iris/versions/1/infer", "/stats", "/v1/models/iris"):
            assert await asked(pod, secret(SHADOW), path) == 403
    assert rig.gateway.compared == {SHADOW}


async def test_what_is_different_is_found_and_told(rig: RemoteRig, tmp_path: Path) -> None:
    host = rig.network.address
    with PodFront(tmp_path / "1", SERVING, 1.0, host) as one, PodFront(tmp_path / "2", SHADOW, 1.25, host) as two:
        fronts = {SERVING: one, SHADOW: two}
        endpoints = tuple(Endpoints(unit=unit, addresses=(each.address,)) for unit, each in fronts.items())
        await rig.gateway.publish((ROUTE,), endpoints)
        await acknowledged(rig.gateway, ROUTE)
        content = front_testing.body([1.0, 3.0], name="X", shape=(1, 2))
        async with aiohttp.ClientSession() as caller:
            for pod in rig.pods:
                await becomes(lambda pod=pod: asked(pod, secret(SHADOW)), lambda status: status == 400)  # type: ignore[misc]
                for _ in range(5):
                    async with caller.post(f"{pod.url}{INFER}", data=content) as answer:
                        assert (await answer.json())["outputs"][0]["data"] == [2.0, 4.0]
        found = await becomes(two.compared, lambda told: told.compared + told.skipped == 10)
        assert found.different == found.compared >= 8
        assert found.largest_difference == 0.25
        assert await one.compared() == ShadowReport()
        assert secret(SHADOW) not in two.log

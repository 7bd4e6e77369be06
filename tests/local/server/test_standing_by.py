"""Who waits for the lead knows everything already, and does nothing."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from kube_testing import until
from modelyard.api import API_VERSION
from modelyard.base.errors import RetryLater
from modelyard.control.kube import auth
from modelyard.control.kube.client import Client
from modelyard.control.kube.resources import MODELSERVICES, Resource
from modelyard.server import operator_options
from modelyard.server.leading import Ready, Seams, leading, standing_by
from operator_process import MemoryGateways, MemoryPods
from operator_testing import Api, serving

SEAMS = Seams(driver=MemoryPods, gateways=MemoryGateways)


class Lead:
    """guard: as of an election. asked: how often somebody who does not lead has wanted to write."""

    def __init__(self) -> None:
        self.holds = False
        self.asked = 0

    def guard(self) -> None:
        if not self.holds:
            self.asked += 1
            raise RetryLater("somebody else leads")


async def declare(api: Api, name: str) -> None:
    metadata = {"name": name, "namespace": "default"}
    spec = {"model": {"name": "forest"}, "replicas": 0}
    body = {"apiVersion": API_VERSION, "kind": MODELSERVICES.kind, "metadata": metadata, "spec": spec}
    await api.client.create(MODELSERVICES, body)


async def observed(api: Api, name: str) -> bool:
    return "observedGeneration" in (await api.client.get(MODELSERVICES, "default", name)).get("status", {})


async def comes(fact: Callable[[], object]) -> None:
    await until(lambda: bool(fact()), 20)


def cached(ready: Ready, resource: Resource, name: str) -> bool:
    return ("default", name) in ready.parts.watched.objects[resource.kind].cache


async def test_who_leads_next_begins_with_what_it_has_followed(tmp_path: Path) -> None:
    lead = Lead()
    options = operator_options.parse(["--data", str(tmp_path / "data"), "--xds", "127.0.0.1:0"], {})
    async with serving(tmp_path) as api, Client(auth.load(api.kubeconfig), guard=lead.guard) as client:
        await declare(api, "iris")
        async with standing_by(options, client, SEAMS) as ready:
            await comes(lambda: cached(ready, MODELSERVICES, "iris"))
            await declare(api, "digits")
            await comes(lambda: cached(ready, MODELSERVICES, "digits"))
            assert len(ready.parts.queue) == 0, "nobody would take it"
            assert lead.asked == 0
            assert not await observed(api, "iris")

            new: list[bool] = []
            services = ready.parts.watched.objects[MODELSERVICES.kind]
            services.add_handler(lambda _place, old, _new: new.append(old is None))
            lists = services.relists
            lead.holds = True
            async with leading(ready, lambda _stop: None), asyncio.timeout(20):
                while not (await observed(api, "iris") and await observed(api, "digits")):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                assert services.relists == lists + 1, "what a dead connection may have missed is asked for"
            assert not any(new), "what was known is not taken up again"

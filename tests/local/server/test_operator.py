"""The operator as a program, against an API server: who leads, and how the lead changes."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from modelyard.control.kube.resources import SECRETS
from operator_testing import SYSTEM, Api, Operator, Start, operators, serving

DECIDES = "this operator decides"


@dataclass(frozen=True)
class Site:
    api: Api
    start: Start


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with serving(tmp_path) as api, operators(api, tmp_path) as start:
        yield Site(api, start)


async def asked(operator: Operator, path: str) -> tuple[int, str]:
    """At its pages."""
    port = next(match[1] for line in operator.said if (match := re.search(r"pages at port (\d+)", line)))
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


async def becomes(operator: Operator, path: str, status: int) -> None:
    async with asyncio.timeout(20):
        while (await asked(operator, path))[0] != status:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_the_first_one_leads_and_makes_what_it_needs(site: Site) -> None:
    await site.api.pod("one")
    await site.api.pod("two", labels={})
    one = await site.start("one")
    await one.says(DECIDES)
    assert await site.api.holder() == "one"
    assert await site.api.leaders() == ["one"]
    secrets = {each["metadata"]["name"] for each in (await site.api.client.list(SECRETS, SYSTEM))["items"]}
    assert secrets >= {"modelyard-gateway-key", "modelyard-xds-ca", "modelyard-gateway-tls", "modelyard-issuer"}
    assert "PRIVATE" not in "\n".join(one.said)
    await becomes(one, "/readyz", 200)
    figures = (await asked(one, "/metrics"))[1]
    assert "modelyard_leads 1" in figures
    assert re.search("^modelyard_writes_total [1-9]", figures, re.MULTILINE), "its Secrets and its label at least"
    assert (await asked(one, "/metrics?model=a.b"))[1].endswith("# of a.b\n")


async def test_pages_can_only_be_read(site: Site) -> None:
    one = await site.start("one")
    await one.says("pages at port")
    port = one.said[-1].rpartition(" ")[2]
    async with aiohttp.ClientSession() as session:
        for method, path, status in (("POST", "/healthz", 405), ("HEAD", "/healthz", 405), ("GET", "/", 404)):
            async with session.request(method, f"http://127.0.0.1:{port}{path}", data=b"x" * 5000) as answer:
                assert answer.status == status
    assert (await asked(one, "/healthz"))[0] == 200


async def test_who_waits_is_ready_and_takes_over_at_once_when_the_leader_ends_in_order(site: Site) -> None:
    for pod in ("one", "two"):
        await site.api.pod(pod)
    one = await site.start("one")
    await one.says(DECIDES)
    two = await site.start("two")
    await two.says("one_")
    await becomes(two, "/readyz", 200)
    assert "modelyard_leads 0" in (await asked(two, "/metrics"))[1]
    ended = one.signal(signal.SIGTERM)
    led = await two.says("leads from now on")
    await two.says(DECIDES)
    assert led - ended < 4.0
    assert await one.process.wait() == 0
    said = await one.rest()
    assert said.index("gateways: are told nothing more") < said.index("gateways: ended") < said.index("ended in order")
    assert await site.api.leaders() == ["two"]


async def test_one_that_was_stopped_for_long_ends_when_it_wakes_and_changes_nothing(site: Site) -> None:
    for pod in ("one", "two"):
        await site.api.pod(pod)
    one = await site.start("one")
    await one.says(DECIDES)
    two = await site.start("two")
    await two.says("one_")
    stopped = one.signal(signal.SIGSTOP)
    led = await two.says("leads from now on")
    assert 14.0 < led - stopped < 25.0
    await two.says(DECIDES)
    one.signal(signal.SIGCONT)
    said = await one.rest()
    assert await one.process.wait() == 1
    assert said.index("gateways: are told nothing more") < said.index("is lost: it could not be renewed for")
    assert await site.api.leaders() == ["two"]
    assert await site.api.holder() == "two"


async def test_a_key_that_is_none_is_told_and_the_lead_is_given_to_others(site: Site) -> None:
    metadata = {"name": "modelyard-gateway-key", "namespace": SYSTEM}
    await site.api.client.create(SECRETS, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
    one = await site.start("one")
    said = await one.rest()
    assert "Secret modelyard-system/modelyard-gateway-key: data[key] is no key of 64 hexadecimal digits" in said
    assert "Traceback" not in said
    assert await one.process.wait() == 1
    assert await site.api.holder() == ""

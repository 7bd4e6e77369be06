"""The operator's own Secrets, on an API server: made once, renewed in time, put back when somebody removes them."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from modelyard.base.clock import SystemClock
from modelyard.base.errors import UserError
from modelyard.control.kube.reflector import Reflector
from modelyard.control.kube.resources import SECRETS
from modelyard.control.plan.certificates import AUTHORITY_SECONDS, DAY, OVERLAP_SECONDS
from modelyard.server import certificates
from modelyard.server.deciding import tasks
from modelyard.server.kept_keys import KeptKeys
from modelyard.server.system_secrets import AUTHORITIES, GATEWAY, GATEWAY_KEY, SystemSecrets
from operator_testing import SYSTEM, Api, serving


class Later(SystemClock):
    """Some time ahead."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.ahead = seconds

    def now(self) -> float:
        return super().now() + self.ahead


@dataclass
class Site:
    api: Api
    stack: AsyncExitStack
    clock: Later = field(default_factory=Later)

    async def begin(self) -> SystemSecrets:
        """That of a new leader, which runs until the test ends."""
        reflector = Reflector(self.api.client, SECRETS, clock=self.clock, namespace=SYSTEM)
        found = SystemSecrets(self.api.client, reflector, SYSTEM, self.clock)
        await found.begin()
        await self.stack.enter_async_context(tasks(reflector.run(), found.run()))
        await reflector.synced.wait()
        return found

    async def data(self, name: str) -> dict[str, bytes]:
        found = (await self.api.client.get(SECRETS, SYSTEM, name))["data"]
        return {key: base64.b64decode(value) for key, value in found.items()}

    async def becomes(self, name: str, before: dict[str, bytes]) -> dict[str, bytes]:
        """Something else."""
        async with asyncio.timeout(20):
            while (found := await self.data(name)) == before:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return found

    async def comes_back(self, name: str) -> dict[str, bytes]:
        await self.api.client.delete(SECRETS, SYSTEM, name)
        async with asyncio.timeout(20):
            while True:
                listed = (await self.api.client.list(SECRETS, SYSTEM))["items"]
                if any(each["metadata"]["name"] == name for each in listed):
                    return await self.data(name)
                await asyncio.sleep(0.02)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with opened(tmp_path) as found:
        yield found


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Site]:
    async with serving(folder) as api, AsyncExitStack() as stack:
        yield Site(api, stack)


async def test_what_one_leader_made_the_next_one_uses(site: Site) -> None:
    first = await site.begin()
    stored = [await site.data(name) for name in (GATEWAY_KEY, AUTHORITIES, GATEWAY)]
    second = await site.begin()
    assert second.gateway_key == first.gateway_key == bytes.fromhex(stored[0]["key"].decode())
    assert [await site.data(name) for name in (GATEWAY_KEY, AUTHORITIES, GATEWAY)] == stored
    assert first.identity().authority == second.identity().authority == stored[2]["ca.crt"].decode()
    assert first.identity().certificate != second.identity().certificate


async def test_what_somebody_removes_is_put_back_as_it_was(site: Site) -> None:
    secrets = await site.begin()
    for name in (GATEWAY_KEY, AUTHORITIES):
        before = await site.data(name)
        assert await site.comes_back(name) == before
    made = await site.comes_back(GATEWAY)
    assert made["ca.crt"].decode() == secrets.identity().authority


async def test_leaves_are_renewed_and_what_somebody_broke_is_mended(site: Site) -> None:
    secrets = await site.begin()
    before, shown = await site.data(GATEWAY), secrets.identity()
    site.clock.ahead = 61 * DAY
    stored = await site.api.client.get(SECRETS, SYSTEM, GATEWAY)
    await site.api.client.patch(SECRETS, SYSTEM, GATEWAY, {"metadata": {"labels": {"look": "again"}}})
    after = await site.becomes(GATEWAY, before)
    assert after["tls.crt"] != before["tls.crt"]
    assert after["ca.crt"] == before["ca.crt"]
    async with asyncio.timeout(20):
        while secrets.identity() == shown:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await site.api.client.patch(SECRETS, SYSTEM, GATEWAY, {"data": {"tls.key": stored["data"]["tls.key"]}})
    mended = await site.becomes(GATEWAY, {**after, "tls.key": before["tls.key"]})
    assert certificates.fits(certificates.Pair(certificate=mended["tls.crt"], key=mended["tls.key"]))


async def test_an_authority_is_changed_with_both_trusted_on_the_way(site: Site) -> None:
    await site.begin()
    first = await site.data(GATEWAY)
    site.clock.ahead = AUTHORITY_SECONDS * 2 / 3
    await site.begin()
    second = await site.data(GATEWAY)
    assert second["ca.crt"].startswith(first["ca.crt"].rstrip())
    assert second["ca.crt"].count(b"BEGIN") == 2
    site.clock.ahead += OVERLAP_SECONDS
    await site.begin()
    third = await site.data(GATEWAY)
    assert set(third["ca.crt"].split(b"-----END CERTIFICATE-----\n")) == set(
        second["ca.crt"].split(b"-----END CERTIFICATE-----\n")
    )
    assert third["tls.crt"] != second["tls.crt"]
    site.clock.ahead += OVERLAP_SECONDS
    await site.begin()
    assert (await site.data(GATEWAY))["ca.crt"].count(b"BEGIN") == 1


async def test_a_key_that_was_overwritten_is_told_and_not_guessed(site: Site) -> None:
    await site.begin()
    await site.stack.aclose()
    wrong = {"key": base64.b64encode(b"s3cret").decode()}
    await site.api.client.patch(SECRETS, SYSTEM, GATEWAY_KEY, {"data": wrong})
    with pytest.raises(
        UserError, match=r"Secret modelyard-system/modelyard-gateway-key: data\[key\] is no key"
    ) as told:
        await site.begin()
    assert "s3cret" not in told.value.message


async def test_keys_of_issuers_are_kept_for_the_next_leader(site: Site, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    (one / "corp-0123.json").write_text('{"keys": "a"}')
    (one / "odd name.json").write_text("x")
    kept = KeptKeys(site.api.client, SYSTEM, one, site.clock)
    await kept.restore()
    kept.look_again()
    await site.stack.enter_async_context(tasks(kept.run()))
    async with asyncio.timeout(20):
        while not any(  # noqa: ASYNC110
            each["metadata"]["name"] == "modelyard-issuer-keys"
            for each in (await site.api.client.list(SECRETS, SYSTEM))["items"]
        ):
            await asyncio.sleep(0.05)
    two.mkdir()
    (two / "own-4567.json").write_text("mine")
    await KeptKeys(site.api.client, SYSTEM, two, site.clock).restore()
    assert {each.name: each.read_text() for each in two.iterdir()} == {
        "corp-0123.json": '{"keys": "a"}',
        "own-4567.json": "mine",
    }

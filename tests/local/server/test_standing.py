"""What holds for the gateway follows the settings, Secrets and keys: against the embedded API server."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from certificates_testing import Authority
from gateway_testing import becomes_true
from modelyard.api import issuer
from modelyard.api.schema import crds
from modelyard.base.clock import Clock, SystemClock
from modelyard.control.apiserver import folder as apifolder
from modelyard.control.apiserver.server import ApiServer
from modelyard.control.apiserver.store import Store
from modelyard.control.engine import standing
from modelyard.control.engine.standing import Place, StandingWatch
from modelyard.control.ir.platform import OWN, Issuer, KeySource
from modelyard.control.kube import auth
from modelyard.control.kube.client import Client
from modelyard.control.kube.events import EventRecorder
from modelyard.control.kube.reflector import Reflector
from modelyard.control.kube.resources import CONFIGMAPS, EVENTS, SECRETS
from modelyard.control.plan.platform import CLOSED, Standing
from modelyard.sdk import objects, tokens
from modelyard.sdk.tokens import Bearer

SYSTEM = "modelyard-system"
CORP = "issuers: [{name: corp, url: 'https://corp.example', audiences: [m]}]\n"


class StandInKeys:
    """Of issuers that nobody asks."""

    def __init__(self) -> None:
        self.wanted: tuple[KeySource, ...] = ()
        self.found: dict[str, str] = {}
        self.wrong: dict[str, str] = {}

    def want(self, sources: tuple[KeySource, ...]) -> None:
        self.wanted = sources

    def known(self) -> dict[str, str]:
        return self.found

    def problems(self) -> dict[str, str]:
        return self.wrong


class Sleeper(SystemClock):
    """Of a machine that was asleep for a while: only the time of day goes on meanwhile."""

    slept = 0.0

    def now(self) -> float:
        return super().now() + self.slept


class Server:
    """An API server, and watches on it."""

    def __init__(self, client: Client, stack: AsyncExitStack) -> None:
        self.client = client
        self.keys = StandInKeys()
        self.stood: list[Standing] = []
        self._stack = stack

    @property
    def last(self) -> Standing:
        return self.stood[-1]

    def issuer(self, name: str = OWN) -> Issuer:
        return next(each for each in self.last.platform.issuers if each.name == name)

    async def watch(self, *, loopback: bool = True, clock: Clock | None = None) -> StandingWatch:
        """One that runs until the test ends."""
        clock = clock or SystemClock()
        recorder = EventRecorder(self.client, "modelyard", clock)
        configmaps = Reflector(self.client, CONFIGMAPS, clock=clock, namespace=SYSTEM)
        secrets = Reflector(self.client, SECRETS, clock=clock, namespace=SYSTEM)
        watch = StandingWatch(
            client=self.client,
            configmaps=configmaps,
            secrets=secrets,
            keys=self.keys,
            recorder=recorder,
            clock=clock,
            place=lambda: Place(loopback=loopback, accounts='{"keys": []}'),
            stand=self.stood.append,
        )
        await self._run(configmaps.run(), secrets.run(), recorder.run())
        await watch.begin()
        await self._run(watch.run())
        return watch

    def other(self) -> "Server":
        """One that starts later, with the same API server."""
        return Server(self.client, self._stack)

    async def _run(self, *work: Any) -> None:
        tasks = [asyncio.create_task(each) for each in work]
        self._stack.push_async_callback(asyncio.gather, *tasks, return_exceptions=True)
        for each in tasks:
            self._stack.callback(each.cancel)

    async def settle(self, text: str, key: str = "settings.yaml") -> None:
        metadata = {"name": "modelyard", "namespace": SYSTEM}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {key: text}}
        await objects.apply(self.client, body, namespace=SYSTEM)

    async def put(self, name: str, **data: bytes) -> None:
        encoded = {key.replace("_", "."): base64.b64encode(each).decode() for key, each in data.items()}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": SYSTEM}, "data": encoded}
        await self.client.create(SECRETS, body)

    async def told(self) -> list[tuple[str, str]]:
        found = await self.client.list(EVENTS, SYSTEM)
        return [(each["reason"], each["message"]) for each in found["items"]]

    async def becomes_told(self, reason: str, part: str) -> None:
        async with asyncio.timeout(20):
            while not any(of == reason and part in message for of, message in await self.told()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        home = stack.enter_context(apifolder.opened(tmp_path))
        store = await stack.enter_async_context(Store.open(home.database, clock))
        tls = home.tls("127.0.0.1", clock)
        api = ApiServer(store, crds(), token=home.token, tls=tls, clock=clock, key=home.key())
        url = await stack.enter_async_context(api.listening("127.0.0.1", 0))
        client = await stack.enter_async_context(Client(auth.load(home.write_kubeconfig(url))))
        yield Server(client, await stack.enter_async_context(AsyncExitStack()))


async def test_a_new_server_has_an_issuer_of_its_own_whose_tokens_count_from_the_start(server: Server) -> None:
    await server.watch()
    assert len(server.stood) == 1
    assert server.last.authentication == "none"
    stored = issuer.read(await server.client.get(SECRETS, SYSTEM, issuer.NAME))
    assert server.issuer().keys == stored.keys(time.time())
    made = await tokens.create(server.client, Bearer(user="ana"), 60.0, time.time())
    assert made.token.count(".") == 2


async def test_settings_hold_as_soon_as_they_are_written_and_are_told(server: Server) -> None:
    await server.watch()
    await server.settle(CORP + "gateway: {authentication: required}")
    await becomes_true(lambda: server.last.authentication == "required")
    assert server.keys.wanted == (KeySource(name="corp", url="https://corp.example"),)
    await server.becomes_told("SettingsApplied", "required, issuers modelyard, serviceaccounts, corp (no keys yet)")


async def test_settings_that_cannot_be_read_leave_the_last_ones_in_force_and_name_all_mistakes(server: Server) -> None:
    await server.watch()
    await server.settle(CORP)
    await becomes_true(lambda: len(server.stood) == 2)
    await server.settle("issuers: [{name: Corp}]\ngateway: {floor: perhaps}\n")
    await server.becomes_told("SettingsInvalid", "the last good settings stay in force until that is mended")
    (said,) = [message for reason, message in await server.told() if reason == "SettingsInvalid"]
    for part in ("issuers[0].name", "issuers[0].url", "issuers[0].audiences", "gateway.floor"):
        assert part in said
    assert len(server.stood) == 2
    await server.settle("gateway: {authentication: optional}")
    await becomes_true(lambda: server.last.authentication == "optional")


@pytest.mark.parametrize("key", ["settings.yaml", "settings.yml"])
async def test_a_server_that_starts_with_settings_that_cannot_be_read_is_shut(server: Server, key: str) -> None:
    await server.settle("issuers: 5" if key == "settings.yaml" else CORP, key)
    await server.watch()
    assert (server.last.authentication, server.last.floor) == ("required", "required")
    assert not server.last.platform.anonymous
    await server.becomes_told("SettingsInvalid", "only tokens of built-in issuers count until that is mended")
    await server.client.delete(CONFIGMAPS, SYSTEM, "modelyard")
    await server.becomes_told("SettingsInvalid", "is gone")
    assert server.last.authentication == "required"
    await server.settle("{}")
    await becomes_true(lambda: server.last.authentication == "none")


async def test_settings_that_are_deleted_stay_in_force_at_a_later_start_too_until_others_are_written(
    server: Server,
) -> None:
    await server.watch()
    await server.settle(CORP + "gateway: {authentication: required}")
    await becomes_true(lambda: server.last.authentication == "required")
    in_force = server.last
    await server.client.delete(CONFIGMAPS, SYSTEM, "modelyard")
    await server.becomes_told("SettingsInvalid", "is gone: write it again, for the defaults with settings.yaml: '{}'")
    assert server.last == in_force
    later = server.other()
    await later.watch()
    assert later.last == in_force
    await server.settle("gateway: {floor: perhaps}")
    await server.becomes_told("SettingsInvalid", "gateway.floor")
    third = server.other()
    await third.watch()
    assert third.last == server.last == in_force
    await server.settle("{}")
    await becomes_true(lambda: later.last.authentication == server.last.authentication == "none")


async def test_settings_that_were_never_in_order_are_no_way_to_the_defaults(server: Server) -> None:
    await server.settle("issuers: 5")
    await server.watch()
    await server.becomes_told("SettingsInvalid", "only tokens of built-in issuers count")
    await server.client.delete(CONFIGMAPS, SYSTEM, "modelyard")
    later = server.other()
    await later.watch()
    assert (later.last.authentication, later.last.platform.anonymous) == ("required", False)


async def test_what_is_wrong_with_an_issuer_is_told_and_its_keys_are_taken_over_when_they_come(server: Server) -> None:
    await server.settle(CORP)
    server.keys.wrong = {"corp": "the keys of issuer corp cannot be fetched: it is down"}
    watch = await server.watch()
    await server.becomes_told("IssuerUnreachable", "the keys of issuer corp cannot be fetched: it is down")
    server.keys.wrong, server.keys.found = {}, {"corp": '{"keys": [1]}'}
    watch.look_again()
    await becomes_true(lambda: server.issuer("corp").keys == '{"keys": [1]}')
    await server.becomes_told("SettingsApplied", "issuers modelyard, serviceaccounts, corp")


async def test_a_rotated_key_counts_until_its_grace_is_over_and_a_revoked_token_no_more(server: Server) -> None:
    await server.watch()
    made = await tokens.create(server.client, Bearer(user="ana"), 60.0, time.time())
    await tokens.revoke(server.client, made.token, time.time())
    await becomes_true(lambda: server.last.platform.revoked == (made.id,))
    await tokens.rotate(server.client, 2.0, time.time())
    await becomes_true(lambda: len(json.loads(server.issuer().keys)["keys"]) == 2)
    await becomes_true(lambda: len(json.loads(server.issuer().keys)["keys"]) == 1)


async def test_a_grace_that_ends_while_the_machine_sleeps_is_over_soon_after(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "_LONGEST_WAIT_SECONDS", 0.1)
    clock = Sleeper()
    await server.watch(clock=clock)
    await tokens.rotate(server.client, 3600.0, time.time())
    await becomes_true(lambda: len(json.loads(server.issuer().keys)["keys"]) == 2)
    clock.slept = 3700.0
    await becomes_true(lambda: len(json.loads(server.issuer().keys)["keys"]) == 1)


async def test_two_who_change_the_issuer_at_once_both_have_their_way(server: Server) -> None:
    await server.watch()
    made = [await tokens.create(server.client, Bearer(user="ana"), 60.0, time.time()) for _ in range(4)]
    await asyncio.gather(*(tokens.revoke(server.client, each.id, time.time()) for each in made))
    await becomes_true(lambda: set(server.last.platform.revoked) == {each.id for each in made})


async def test_an_issuer_whose_secret_cannot_be_read_vouches_for_nobody_and_a_deleted_one_is_made_anew(
    server: Server,
) -> None:
    await server.watch()
    first = server.issuer().keys
    await server.settle("{}")
    broken = {"data": {"key.pem": base64.b64encode(b"broken").decode()}}
    await server.client.patch(SECRETS, SYSTEM, issuer.NAME, broken)
    await becomes_true(lambda: server.issuer().keys == "")
    await server.becomes_told("SettingsInvalid", "data[key.pem] cannot be used")
    await server.client.delete(SECRETS, SYSTEM, issuer.NAME)
    await becomes_true(lambda: server.issuer().keys not in ("", first))


async def test_certificates_are_taken_up_when_their_secret_comes_and_kept_when_it_breaks(
    server: Server,
) -> None:
    shown = Authority().sign("models.example")
    await server.settle("gateway: {tls: {secret: shown}}")
    await server.watch()
    assert server.last.platform.tls == CLOSED
    await server.becomes_told("SettingsInvalid", "tls.crt of Secret modelyard-system/shown is missing; nobody can")
    await server.put("shown", tls_crt=shown.certificate.encode(), tls_key=shown.key.encode())
    await becomes_true(lambda: server.last.platform.tls not in (None, CLOSED))
    before = server.last.platform.tls
    await server.client.patch(SECRETS, SYSTEM, "shown", {"data": {"tls.key": base64.b64encode(b"x").decode()}})
    await server.becomes_told("SettingsInvalid", "is no private key in PEM without a password; what was shown before")
    assert server.last.platform.tls == before


async def test_off_loopback_a_token_is_needed_whatever_the_settings_say(server: Server) -> None:
    await server.settle("gateway: {authentication: none}")
    await server.watch(loopback=False)
    assert (server.last.authentication, server.last.floor) == ("required", "none")
    await server.becomes_told("SettingsInvalid", "counts only where the gateway listens on loopback")

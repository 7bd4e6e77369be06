"""Ten thousand models behind one gateway: what starting, changing and asking costs. One table.

    PYTHONPATH=src:tests python bench/gateway_scale.py [--models 10000] [--rounds 20]

The gateway and its Envoy are real; every model has a route, a unit and a cluster of its own, and two stand-ins for
replicas answer for all of them. Each kind of change is made `rounds` times, the median counts: from the call of
`publish` to the first request that is answered by it (a caller asks all the time on one connection), and then without a
caller the processor time of this process and of Envoy per change. Last comes the whole way of a change of roles: from
the moment that a binding is known, by the evaluation of all roles, to a caller with a token. The status is 1 when a
target is missed.
"""

import argparse
import asyncio
import contextlib
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import psutil
from msgspec import structs

import gateway_testing
import tokens_testing as tokens
from modelyard.base.clock import SystemClock
from modelyard.control.drivers.memory import MemoryDriver
from modelyard.control.engine.grants import Grants
from modelyard.control.engine.publisher import Publisher
from modelyard.control.gateway.envoy import EnvoyGateway
from modelyard.control.ir.access import Access, Caller, Claim
from modelyard.control.ir.platform import OWN, Platform
from modelyard.control.ir.route import Backend, Endpoints, Route
from modelyard.control.ir.values import Key
from modelyard.control.plan.platform import Standing
from modelyard.testing.gateway_suite import route
from rest import Measured

_PATIENCE_SECONDS = 120.0
_MOST = {"first answer": 3.0, "envoy": 360.0, "add": 8.0, "grants of 1,000": 1.0, "grants of all": 5.0}
_ROLES = {"roles of 1,000": 1.0, "roles of all": 5.0}
_RULE = {"verbs": ["predict"], "apiGroups": ["modelyard.dev"], "resources": ["modelservices"]}
_MEASURED_AT = 10_000
_ASKED = 3000
_PAUSE_SECONDS = 0.01  # between questions, where asking all the time would take time from what is measured


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class OneCaller:
    """Asks on one connection, one request after the other."""

    def __init__(self, url: str, token: str = "") -> None:
        self._more = [f"Authorization: Bearer {token}"] if token else []
        self._host, _, self._port = url.removeprefix("http://").partition(":")

    async def __aenter__(self) -> "OneCaller":
        self._reader, self._writer = await asyncio.open_connection(self._host, int(self._port))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def ask(self, model: str) -> tuple[int, bytes]:
        """Status and body of one inference."""
        # Without a body: Envoy ends a connection whose request it answers itself before it has read everything.
        lines = [f"GET /v2/models/{model}/infer HTTP/1.1", "Host: localhost", *self._more]
        self._writer.write("\r\n".join([*lines, "", ""]).encode())
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.split(b"content-length: ")[1].split(b"\r\n")[0])
        return int(answer[9:12]), await self._reader.readexactly(length)

    async def until(self, model: str, fact: Callable[[int, bytes], bool], pause: float = 0.0) -> None:
        """Ask until an answer is as it should be."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not fact(*await self.ask(model)):  # noqa: ASYNC110  asking is what is measured
                await asyncio.sleep(pause)


class Yard:
    """The goal of the gateway, and changes of it that are timed."""

    def __init__(self, gateway: EnvoyGateway, models: int, addresses: tuple[str, str]) -> None:
        self.gateway = gateway
        self.addresses = addresses
        self.routes = {key: route(key, f"u{number}") for number, key in enumerate(keys(models))}
        self.units = {f"u{number}": Endpoints(unit=f"u{number}", addresses=addresses[:1]) for number in range(models)}
        # Of two units, for what moves between them.
        for number, address in enumerate(addresses):
            self.units[f"both{number}"] = Endpoints(unit=f"both{number}", addresses=(address,))
        self._hints = gateway.hints()

    @property
    def envoy(self) -> psutil.Process:
        return psutil.Process(self.gateway.pid)

    async def publish(self) -> None:
        await self.gateway.publish(tuple(self.routes.values()), tuple(self.units.values()))

    def put(self, changed: Route) -> None:
        self.routes[changed.owner] = changed

    async def in_force(self, *owners: Key) -> None:
        """Until the gateway acknowledged the routes of these."""
        waiting = {each for each in owners if self.gateway.observe(each).acknowledged != self.routes[each]}
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while waiting:
                hinted = await anext(self._hints)
                if hinted in waiting and self.gateway.observe(hinted).acknowledged == self.routes[hinted]:
                    waiting.discard(hinted)

    def cpu(self) -> tuple[float, float]:
        """Seconds of this process and of Envoy."""
        times = self.envoy.cpu_times()
        return time.process_time(), times.user + times.system


def keys(models: int) -> list[Key]:
    return [Key(kind="ModelService", namespace="default", name=f"m{number}") for number in range(models)]


def pss(process: psutil.Process) -> float:
    """Proportional memory in MB."""
    return float(process.memory_full_info().pss) / 1e6


@asynccontextmanager
async def replicas(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """Two that answer for everybody."""
    paths = folder / "one.sock", folder / "two.sock"
    running = []
    try:
        for path in paths:
            process = await asyncio.create_subprocess_exec(
                sys.executable, gateway_testing.__file__, str(path), path.stem, stdout=asyncio.subprocess.PIPE
            )
            running.append(process)
            assert process.stdout is not None
            await process.stdout.readline()
        yield f"unix:{paths[0]}", f"unix:{paths[1]}"
    finally:
        for process in running:
            process.kill()
            await process.communicate()


async def first_answers(yard: Yard, table: Measured) -> None:
    """From nothing to everything; then once more after the death of Envoy."""
    empty = pss(yard.envoy), pss(psutil.Process())
    *_, last = yard.routes
    async with OneCaller(yard.gateway.url) as caller:
        began, cpu = time.monotonic(), time.process_time()
        await yard.publish()
        await caller.until(last.name, lambda status, _: status == 200, _PAUSE_SECONDS)
        at_scale = len(yard.routes) >= _MEASURED_AT
        first = time.monotonic() - began
    await yard.in_force(*yard.routes)
    table.row("from nothing to an answer of the last model", first, "s", _MOST["first answer"] if at_scale else None)
    table.row("from nothing to all in force", time.monotonic() - began, "s")
    table.row("  processor time of the control plane", time.process_time() - cpu, "s")
    yard.envoy.kill()
    began = time.monotonic()
    while True:
        try:
            async with OneCaller(yard.gateway.url) as caller:
                await caller.until(last.name, lambda status, _: status == 200, _PAUSE_SECONDS)
                break
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.005)
    table.row("a killed Envoy answers for the last again", time.monotonic() - began, "s", 3.0 if at_scale else None)
    await asyncio.sleep(2)
    gc.collect()
    before, began = yard.cpu(), time.monotonic()
    await asyncio.sleep(5)
    used = yard.cpu()[1] - before[1]
    table.row("processor of Envoy when nobody asks, of one core", 100 * used / (time.monotonic() - began), "%")
    table.row("memory of Envoy (PSS)", pss(yard.envoy), "MB", _MOST["envoy"] if at_scale else None)
    table.row("memory of the control plane (PSS)", pss(psutil.Process()), "MB")
    table.row("  as its pod counts it (RSS)", psutil.Process().memory_info().rss / 1e6, "MB")
    say(f"  (without models: Envoy {empty[0]:.0f} MB, this process {empty[1]:.0f} MB)")


async def changes(yard: Yard, table: Measured, rounds: int) -> None:
    """Each kind of change, one at a time."""
    owner = next(iter(yard.routes))

    def add(count: int) -> tuple[Key, str]:
        key = Key(kind="ModelService", namespace="default", name=f"new{count}")
        unit = f"new{count}"
        yard.units[unit] = Endpoints(unit=unit, addresses=yard.addresses[:1])
        yard.put(route(key, unit))
        return key, "one"

    def swap(count: int) -> tuple[Key, str]:
        address = yard.addresses[(count + 1) % 2]
        yard.units["u0"] = Endpoints(unit="u0", addresses=(address,))
        return owner, ("two", "one")[count % 2]

    def switch(count: int) -> tuple[Key, str]:
        yard.put(route(owner, f"both{count % 2}"))
        return owner, ("one", "two")[count % 2]

    def weigh(count: int) -> tuple[Key, str]:
        shares = (Backend(unit="both0", weight=1 + count), Backend(unit="both1", weight=99 - count))
        yard.put(structs.replace(yard.routes[owner], backends=shares))
        return owner, ""

    for name, change, most in (
        ("add a model", add, _MOST["add"]),
        ("swap endpoints", swap, None),
        ("switch to another unit", switch, None),
        ("move weights", weigh, None),
    ):
        await one_kind(yard, table, (name, change, most), rounds)


def answered_by(name: str, status: int, body: bytes) -> bool:
    return status == 200 and name.encode() in body


async def one_kind(
    yard: Yard,
    table: Measured,
    kind: tuple[str, Callable[[int], tuple[Key, str]], float | None],
    rounds: int,
) -> None:
    name, change, most = kind
    times, here, there = [], [], []
    async with OneCaller(yard.gateway.url) as caller:
        for count in range(2 * rounds):
            watched = count < rounds
            owner, answerer = change(count)
            await asyncio.sleep(0.02)  # what the last one left behind is done
            before, began = yard.cpu(), time.monotonic()
            await yard.publish()
            if watched and answerer:
                await caller.until(owner.name, partial(answered_by, answerer))
                times.append(time.monotonic() - began)
            await yard.in_force(owner)
            if watched and not answerer:
                times.append(time.monotonic() - began)
            if not watched:
                await asyncio.sleep(0.1)
                after = yard.cpu()
                here.append(after[0] - before[0])
                there.append(after[1] - before[1])
    table.row(f"{name}: in force after", 1e3 * statistics.median(times), "ms", most)
    table.row("  the slowest of them", 1e3 * max(times), "ms")
    table.row("  processor time of the control plane", 1e3 * statistics.mean(here), "ms")
    table.row("  processor time of Envoy", 1e3 * statistics.mean(there), "ms")


async def grants(yard: Yard, table: Measured) -> None:
    """A change of who may call, for a thousand models and for all."""
    everybody = list(yard.routes)
    for number, (name, some) in enumerate((("grants of 1,000", everybody[-1000:]), ("grants of all", everybody))):
        caller = Caller(issuer=OWN, claims=(Claim(path=("groups",), value=f"team-{number}", listed=True),))
        access = Access(authentication="required", callers=(caller,))
        for owner in some:
            yard.put(structs.replace(yard.routes[owner], access=access))
        cpu, began = yard.cpu(), time.monotonic()
        await yard.publish()
        await yard.in_force(*some)
        took, after = time.monotonic() - began, yard.cpu()
        table.row(f"{name}: in force after", took, "s", _MOST[name])
        table.row("  processor time of the control plane", after[0] - cpu[0], "s")
        table.row("  processor time of Envoy", after[1] - cpu[1], "s")


class Roles:
    """What grants, and the way of it to the gateway, as the engine goes it."""

    def __init__(self, yard: Yard) -> None:
        issuer = structs.replace(tokens.issuer("corp"), prefix="corp:")
        self.platform = Platform(issuers=(issuer,), authentication="required")
        self._yard = yard
        self._grants = Grants()
        self._grants.stand(Standing(platform=self.platform, authentication="required", floor="required"))
        self.publisher = Publisher(MemoryDriver(SystemClock()), yard.gateway, self._grants.access)
        self._grants.renew()
        for owner, each in yard.routes.items():
            self.publisher.offer(owner, (each,))
        self.publisher.open()

    def bind(self, group: str, owners: list[Key]) -> None:
        """A role about these, and a binding to a group."""
        rule = {**_RULE, "resourceNames": [each.name for each in owners]}
        self._grants.put_role(
            ("default", group), {"metadata": {"name": group, "namespace": "default"}, "rules": [rule]}
        )
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": group}
        subjects = [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": f"corp:{group}"}]
        body = {"metadata": {"name": group, "namespace": "default"}, "roleRef": reference, "subjects": subjects}
        self._grants.put_binding(("default", group), body)

    async def take_up(self) -> None:
        """Turn it round, and tell the gateway."""
        places = self._grants.renew()
        owners = (
            None if places is None else [Key(kind="ModelService", namespace=where, name=name) for where, name in places]
        )
        await self.publisher.regrant(owners)

    async def in_force(self) -> None:
        """Until the gateway acknowledged who may call what."""
        routes = self._yard.routes
        routes |= {owner: structs.replace(each, access=self._grants.access(owner)) for owner, each in routes.items()}
        await self._yard.in_force(*routes)


async def role_changes(yard: Yard, table: Measured) -> None:
    """From a binding to a caller who may call now, evaluation, rendering and gateway together."""
    everybody = list(yard.routes)
    roles = Roles(yard)
    yard.gateway.configure(roles.platform)
    publishing = asyncio.create_task(roles.publisher.run())
    await roles.in_force()
    for number, (name, some) in enumerate(zip(_ROLES, (everybody[-1000:], everybody), strict=True)):
        token = tokens.token("corp", sub="ana", groups=[f"team-{number}"])
        async with OneCaller(yard.gateway.url, token) as caller:
            assert (await caller.ask(some[-1].name))[0] == 403
            cpu, began = yard.cpu(), time.monotonic()
            roles.bind(f"team-{number}", some)
            await roles.take_up()
            await caller.until(some[-1].name, lambda status, _: status == 200, _PAUSE_SECONDS)
            table.row(f"{name}: the last one may be called after", time.monotonic() - began, "s", _ROLES[name])
            await roles.in_force()
            took, after = time.monotonic() - began, yard.cpu()
        table.row("  all in force after", took, "s", _ROLES[name])
        table.row("  processor time of the control plane", after[0] - cpu[0], "s")
        table.row("  processor time of Envoy", after[1] - cpu[1], "s")
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)


async def requests(yard: Yard, table: Measured) -> None:
    """What one request costs Envoy, for the first and the last model, in turns."""
    first, *_, last = (each.name for each in yard.routes)
    found: dict[str, list[float]] = {first: [], last: []}
    async with OneCaller(yard.gateway.url) as caller:
        for _ in range(3):
            for name, costs in found.items():
                before = yard.cpu()[1]
                for _ in range(_ASKED):
                    assert (await caller.ask(name))[0] == 200
                costs.append((yard.cpu()[1] - before) / _ASKED)
    for what, name in (("first", first), ("last", last)):
        table.row(f"processor time of Envoy per request, {what} model", 1e6 * statistics.median(found[name]), "us")


async def measure(models: int, rounds: int, table: Measured) -> None:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gs-", dir="/tmp")))
        addresses = await stack.enter_async_context(replicas(folder))
        gateway = EnvoyGateway(host="127.0.0.1", port=0, run=folder, logs=folder, clock=SystemClock())
        await stack.enter_async_context(gateway)
        yard = Yard(gateway, models, addresses)
        await first_answers(yard, table)
        await requests(yard, table)
        await changes(yard, table, rounds)
        await grants(yard, table)
        await role_changes(yard, table)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=20, help="how often each kind of change is made")
    options = parser.parse_args()
    say(f"{options.models:,} models; the machine's load is {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    table = Measured()
    asyncio.run(measure(options.models, options.rounds, table))
    say(f"the machine's load is {os.getloadavg()[0]:.1f} now")
    return int(table.missed)


if __name__ == "__main__":
    sys.exit(main())

"""Changes of every kind while callers ask on connections that stay: none of them fails."""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest

import control_testing
import tokens_testing as tokens
from gateway_testing import Load, becomes_true, upstream
from modelyard.control.gateway.process import EnvoyProcess
from modelyard.control.ir.access import Access, Caller
from modelyard.control.ir.observed import ObservedRoute
from modelyard.control.ir.platform import Platform
from modelyard.control.ir.route import Backend, Endpoints, Route
from modelyard.control.ir.values import Key
from modelyard.testing.gateway_suite import ANA, IRIS, acknowledged, only, route, until

from .conftest import EnvoyRig, bearing, becomes

CHANGES = 100
CALLERS = 8
URL = "/v2/models/iris/infer"
TOKEN = bearing(tokens.token(ANA.issuer, **ANA.claims))
Change = Callable[[EnvoyRig, int], Awaitable[None]]


async def both(rig: EnvoyRig) -> tuple[Endpoints, Endpoints]:
    return await rig.endpoints("a"), await rig.endpoints("b")


async def aimed(rig: EnvoyRig, wanted: Route) -> None:
    await rig.gateway.publish((wanted,), await both(rig))
    await acknowledged(rig.gateway, wanted)


async def endpoints_are_swapped(rig: EnvoyRig, count: int) -> None:
    """The unit's replicas are the other ones now; nobody says when Envoy knows."""
    address = (await both(rig))[count % 2].addresses
    await rig.gateway.publish((route(IRIS, "u"),), (Endpoints(unit="u", addresses=address),))
    await acknowledged(rig.gateway, route(IRIS, "u"))


async def the_route_goes_to_another_unit(rig: EnvoyRig, count: int) -> None:
    await aimed(rig, route(IRIS, "ab"[count % 2]))


async def weights_move(rig: EnvoyRig, count: int) -> None:
    shares = (Backend(unit="a", weight=1 + count % 99), Backend(unit="b", weight=99 - count % 99))
    await aimed(rig, msgspec.structs.replace(route(IRIS, "a"), backends=shares))


async def access_changes(rig: EnvoyRig, count: int) -> None:
    """Wider and narrower, and in other ways; `ana` is always among them."""
    ways = (only("ana", f"other-{count}"), only("ana"), Access(callers=(Caller(issuer="corp"),)))
    await aimed(rig, route(IRIS, "a", access=ways[count % len(ways)]))


async def the_platform_changes(rig: EnvoyRig, count: int) -> None:
    """Issuers come and go, others' keys turn, tokens are revoked; that of `ana` is always in order."""
    corp, other = rig.issuers
    turned = tokens.issuer("other", tokens.Signer("ES256", f"key-{count}"))
    rig.gateway.configure(
        Platform(
            issuers=((corp, turned), (corp,), (corp, other))[count % 3],
            revoked=(f"stolen-{count}",),
            authentication=("none", "required")[count % 2],
            local_only=count % 5 == 0,
        )
    )
    await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "change",
    [endpoints_are_swapped, the_route_goes_to_another_unit, weights_move, access_changes, the_platform_changes],
    ids=lambda change: change.__name__,
)
async def test_a_hundred_changes_under_load_lose_no_request(rig: EnvoyRig, change: Change) -> None:
    rig.gateway.configure(Platform(issuers=rig.issuers, authentication="none", local_only=True))
    await aimed(rig, route(IRIS, "a", access=only("ana")))
    await becomes(partial(rig.ask, "iris", ANA), lambda answer: answer == (200, "a"))
    await change(rig, 0)
    before = await connections(rig)
    async with Load(rig.gateway.url + URL, callers=CALLERS, headers=TOKEN) as load:
        for count in range(CHANGES):
            answered = load.answered.total()
            await change(rig, count)
            await becomes_true(lambda seen=answered: load.answered.total() > seen)  # type: ignore[misc]
    assert load.failures == []
    assert await connections(rig) - before <= CALLERS + 1


async def connections(rig: EnvoyRig) -> int:
    """How many callers have connected so far."""
    text = await rig.gateway._envoy.admin("GET", "/stats?filter=^http.gateway.downstream_cx_total$")
    return int(text.split(": ")[1])


async def test_one_invalid_route_among_many_holds_up_none_and_is_told_in_envoys_words(rig: EnvoyRig) -> None:
    keys = [Key(kind="ModelService", namespace="bank", name=f"m{number}") for number in range(60)]
    routes = {key: route(key, "a", weight=0 if number % 20 == 7 else 100) for number, key in enumerate(keys)}
    await rig.gateway.publish(tuple(routes.values()), (await rig.endpoints("a"),))
    for number, key in enumerate(keys):
        if number % 20 == 7:
            seen = await until(rig.gateway, key, lambda each: each.rejected != "")
            assert "weight" in seen.rejected
            assert (await rig.ask(f"m{number}.bank"))[0] == 404
        else:
            await acknowledged(rig.gateway, routes[key])
            assert rig.gateway.observe(key) == ObservedRoute(acknowledged=routes[key])
    assert await rig.ask("m59.bank") == (200, "a")


@asynccontextmanager
async def envoy(run: Path, logs: Path) -> AsyncIterator[int]:
    """One that nobody but the control plane tells anything, at a free port; gives that."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = EnvoyProcess(run, logs)
    await process.start()
    reading = asyncio.create_task(process.wait())
    try:
        yield port
    finally:
        process.kill()
        await reading


@asynccontextmanager
async def control(run: Path, logs: Path, port: int, *upstreams: str) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    """A control plane that is killed when left; gives what makes it send requests to a unit."""
    argv = [control_testing.__file__, str(run), str(logs), str(port), *upstreams]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )

    async def tell(unit: str) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{unit}\n".encode())
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"in force\n"

    try:
        yield tell
    finally:
        process.kill()
        await process.communicate()


async def test_a_control_plane_that_is_killed_and_started_again_loses_no_request(
    run_folder: Path, tmp_path: Path
) -> None:
    async with (
        upstream(run_folder / "a.sock", "a") as one,
        upstream(run_folder / "b.sock", "b") as two,
        envoy(run_folder, tmp_path) as port,
    ):
        upstreams = (f"a={one.address}", f"b={two.address}")
        async with control(run_folder, tmp_path, port, *upstreams) as tell:
            await tell("a")
        async with Load(f"http://127.0.0.1:{port}{URL}", callers=CALLERS) as load:
            await becomes_true(lambda: load.answered["a"] > 200)
            for unit in "aba":  # each by another control plane; the first changes nothing
                began = time.monotonic()
                async with control(run_folder, tmp_path, port, *upstreams) as tell:
                    await tell(unit)
                    print(f"a new control plane has {unit!r} in force after {time.monotonic() - began:.1f} s")
                    before = load.answered[unit]
                    await becomes_true(lambda at=before, of=unit: load.answered[of] > at + 100)  # type: ignore[misc]
                before = load.answered[unit]
                await becomes_true(lambda at=before, of=unit: load.answered[of] > at + 500)  # type: ignore[misc]
        assert load.failures == []

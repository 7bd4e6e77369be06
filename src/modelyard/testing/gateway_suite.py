"""What every Gateway must do. Inherit from `GatewaySuite` and give a fixture `rig`."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import msgspec

from modelyard.control.engine.ports import Gateway
from modelyard.control.ir.access import ANONYMOUS, OPEN, Access, Authentication, Caller, Claim
from modelyard.control.ir.observed import Load, ObservedRoute
from modelyard.control.ir.platform import Issuer, Platform
from modelyard.control.ir.route import Backend, Endpoints, Mirror, Route, Version
from modelyard.control.ir.values import Key

DEADLINE_SECONDS = 10.0
POLL_SECONDS = 0.005

IRIS = Key(kind="ModelService", namespace="default", name="iris")
FRAUD = Key(kind="ModelService", namespace="bank", name="fraud")


class Bearer(NamedTuple):
    """Whoever bears a token that is in order: by which issuer, and what it claims besides what all of them must."""

    issuer: str
    claims: dict[str, Any]


class GatewayRig(Protocol):
    """A running gateway with upstreams, to which nobody needs a token."""

    @property
    def gateway(self) -> Gateway: ...

    @property
    def issuers(self) -> tuple[Issuer, ...]:
        """Two, called `corp` and `other`, whose tokens `ask` can bear."""
        ...

    @property
    def proxies(self) -> int:
        """How many requests `ask` sends: one to each proxy that the gateway has."""
        ...

    async def endpoints(self, unit: str) -> Endpoints:
        """Where a replica of the unit answers with the unit's name; started when it is asked for first."""
        ...

    async def ask(self, public_id: str, bearer: Bearer | None = None) -> tuple[int, str]:
        """An inference: (200, the unit that answered) or (an error's status, its sentence)."""
        ...


def route(owner: Key, *units: str, unavailable: str = "", weight: int = 100, access: Access = OPEN) -> Route:
    """A route to units that share its traffic; with `weight=0` one that every gateway refuses."""
    backends = tuple(Backend(unit=unit, weight=weight // len(units)) for unit in units)
    ids = (f"{owner.name}.{owner.namespace}",) + ((owner.name,) if owner.namespace == "default" else ())
    return Route(owner=owner, ids=ids, backends=backends, unavailable=unavailable, access=access)


def only(*subjects: str, authentication: Authentication = "required") -> Access:
    """For these users of `corp`."""
    callers = tuple(Caller(issuer="corp", claims=(Claim(path=("sub",), value=each),)) for each in sorted(subjects))
    return Access(authentication=authentication, callers=callers)


ANA, BOB = Bearer("corp", {"sub": "ana"}), Bearer("corp", {"sub": "bob"})


async def until(
    gateway: Gateway, owner: Key, holds: Callable[[ObservedRoute], bool], seconds: float = DEADLINE_SECONDS
) -> ObservedRoute:
    """Wait for a fact about an owner's route; the assertion shows what was observed instead."""
    deadline = time.monotonic() + seconds
    while not holds(gateway.observe(owner)):
        assert time.monotonic() < deadline, f"still {gateway.observe(owner)} after {seconds} s"
        await asyncio.sleep(POLL_SECONDS)
    return gateway.observe(owner)


async def acknowledged(gateway: Gateway, wanted: Route) -> None:
    """Wait until a route is in force."""
    await until(gateway, wanted.owner, lambda seen: seen == ObservedRoute(acknowledged=wanted))


class GatewaySuite:
    """The contract of `modelyard.control.engine.ports.Gateway`."""

    async def test_a_published_route_is_acknowledged_and_answers_under_all_its_ids(self, rig: GatewayRig) -> None:
        wanted = route(IRIS, "a")
        assert rig.gateway.observe(IRIS) == ObservedRoute()
        await rig.gateway.publish((wanted,), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, wanted)
        assert await rig.ask("iris.default") == (200, "a")
        assert await rig.ask("iris") == (200, "a")

    async def test_an_id_that_no_route_has_is_not_found(self, rig: GatewayRig) -> None:
        await rig.gateway.publish((route(FRAUD, "a"),), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, route(FRAUD, "a"))
        assert (await rig.ask("fraud"))[0] == 404
        assert (await rig.ask("fraud.default"))[0] == 404

    async def test_owners_are_hinted_when_their_route_is_acknowledged_or_removed(self, rig: GatewayRig) -> None:
        hints = rig.gateway.hints()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await rig.gateway.publish((route(IRIS, "a"),), (await rig.endpoints("a"),))
            assert await anext(hints) == IRIS
            await acknowledged(rig.gateway, route(IRIS, "a"))
            await rig.gateway.publish((), (await rig.endpoints("a"),))
            assert await anext(hints) == IRIS
            assert rig.gateway.observe(IRIS) == ObservedRoute()

    async def test_a_route_without_backends_says_why(self, rig: GatewayRig) -> None:
        wanted = route(IRIS, unavailable='the service is scaled to zero: set "replicas" to 1')
        await rig.gateway.publish((wanted,), ())
        await acknowledged(rig.gateway, wanted)
        assert await rig.ask("iris") == (503, 'the service is scaled to zero: set "replicas" to 1')

    async def test_a_unit_without_ready_replicas_is_unavailable_and_comes_back(self, rig: GatewayRig) -> None:
        wanted = route(IRIS, "a")
        await rig.gateway.publish((wanted,), (Endpoints(unit="a"),))
        await acknowledged(rig.gateway, wanted)
        assert (await rig.ask("iris"))[0] == 503
        await rig.gateway.publish((wanted,), (await rig.endpoints("a"),))
        await _answered(rig, "iris", (200, "a"))

    async def test_a_route_is_not_switched_before_its_new_unit_is_known(self, rig: GatewayRig) -> None:
        await rig.gateway.publish((route(IRIS, "a"),), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, route(IRIS, "a"))
        await rig.gateway.publish((route(IRIS, "b"),), (await rig.endpoints("a"),))
        await rig.gateway.publish((route(IRIS, "b"), route(FRAUD, "a")), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, route(FRAUD, "a"))
        assert rig.gateway.observe(IRIS) == ObservedRoute(acknowledged=route(IRIS, "a"))
        assert await rig.ask("iris") == (200, "a")
        both = (await rig.endpoints("a"), await rig.endpoints("b"))
        await rig.gateway.publish((route(IRIS, "b"), route(FRAUD, "a")), both)
        await acknowledged(rig.gateway, route(IRIS, "b"))
        assert await rig.ask("iris") == (200, "b")

    async def test_a_route_waits_for_every_unit_that_it_names(self, rig: GatewayRig) -> None:
        named = msgspec.structs.replace(
            route(IRIS, "a"), versions=(Version(name="canary", unit="b", number="2"),), mirror=Mirror(unit="c")
        )
        await rig.gateway.publish((route(IRIS, "a"),), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, route(IRIS, "a"))
        known = [await rig.endpoints("a"), await rig.endpoints("b")]
        await rig.gateway.publish((named,), tuple(known))
        await rig.gateway.publish((named, route(FRAUD, "a")), tuple(known))
        await acknowledged(rig.gateway, route(FRAUD, "a"))
        assert rig.gateway.observe(IRIS) == ObservedRoute(acknowledged=route(IRIS, "a"))
        await rig.gateway.publish((named, route(FRAUD, "a")), (*known, await rig.endpoints("c")))
        await acknowledged(rig.gateway, named)
        assert await rig.ask("iris") == (200, "a")

    async def test_a_route_of_which_only_bounds_change_is_acknowledged(self, rig: GatewayRig) -> None:
        await rig.gateway.publish((route(IRIS, "a"),), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, route(IRIS, "a"))
        for changes in ({"max_concurrency": 7}, {"sticky_header": "x-user"}, {"retries": 0, "max_concurrency": 2}):
            changed = msgspec.structs.replace(route(IRIS, "a"), **changes)
            await rig.gateway.publish((changed,), (await rig.endpoints("a"),))
            await acknowledged(rig.gateway, changed)
            assert await rig.ask("iris") == (200, "a")

    async def test_endpoints_of_a_route_in_force_outlive_their_publication(self, rig: GatewayRig) -> None:
        await rig.gateway.publish((route(IRIS, "a"),), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, route(IRIS, "a"))
        await rig.gateway.publish((route(IRIS, "b"), route(FRAUD, "c")), (await rig.endpoints("c"),))
        await acknowledged(rig.gateway, route(FRAUD, "c"))
        assert await rig.ask("iris") == (200, "a")

    async def test_a_rejected_route_leaves_the_former_one_in_force_and_others_alone(self, rig: GatewayRig) -> None:
        await rig.gateway.publish((route(IRIS, "a"),), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, route(IRIS, "a"))
        both = (await rig.endpoints("a"), await rig.endpoints("b"))
        await rig.gateway.publish((route(FRAUD, "b"), route(IRIS, "b", weight=0)), both)
        await acknowledged(rig.gateway, route(FRAUD, "b"))
        seen = await until(rig.gateway, IRIS, lambda each: each.rejected != "")
        assert "weight" in seen.rejected
        assert seen.acknowledged == route(IRIS, "a")
        assert await rig.ask("iris") == (200, "a")
        assert await rig.ask("fraud.bank") == (200, "b")
        await rig.gateway.publish((route(FRAUD, "b"), route(IRIS, "b")), both)
        await acknowledged(rig.gateway, route(IRIS, "b"))
        assert await rig.ask("iris") == (200, "b")

    async def test_a_new_route_that_is_rejected_is_not_in_force(self, rig: GatewayRig) -> None:
        await rig.gateway.publish((route(IRIS, "a", weight=0),), (await rig.endpoints("a"),))
        seen = await until(rig.gateway, IRIS, lambda each: each.rejected != "")
        assert seen.acknowledged is None
        assert (await rig.ask("iris"))[0] == 404

    async def test_a_removed_route_is_gone(self, rig: GatewayRig) -> None:
        await rig.gateway.publish((route(IRIS, "a"), route(FRAUD, "a")), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, route(IRIS, "a"))
        await rig.gateway.publish((route(FRAUD, "a"),), (await rig.endpoints("a"),))
        await until(rig.gateway, IRIS, lambda seen: seen == ObservedRoute())
        assert (await rig.ask("iris"))[0] == 404
        await _answered(rig, "fraud.bank", (200, "a"))

    async def test_an_id_belongs_to_the_route_that_has_it(self, rig: GatewayRig) -> None:
        first = Key(kind="ModelService", namespace="default", name="a-newcomer")
        thief = Route(owner=first, ids=("iris",), backends=(Backend(unit="b"),), access=OPEN)
        await rig.gateway.publish((route(IRIS, "a"),), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, route(IRIS, "a"))
        both = (await rig.endpoints("a"), await rig.endpoints("b"))
        await rig.gateway.publish((thief, route(IRIS, "a")), both)
        seen = await until(rig.gateway, first, lambda each: each.rejected != "")
        assert "'iris' belongs to ModelService default/iris" in seen.rejected
        assert await rig.ask("iris") == (200, "a")
        await rig.gateway.publish((thief,), both)
        await acknowledged(rig.gateway, thief)
        assert await rig.ask("iris") == (200, "b")
        assert (await rig.ask("iris.default"))[0] == 404

    async def test_publishing_the_same_again_hints_nobody(self, rig: GatewayRig) -> None:
        hints = rig.gateway.hints()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await rig.gateway.publish((route(IRIS, "a"),), (await rig.endpoints("a"),))
            assert await anext(hints) == IRIS
            await rig.gateway.publish((route(IRIS, "a"),), (await rig.endpoints("a"),))
            await rig.gateway.publish((route(IRIS, "a"), route(FRAUD, "a")), (await rig.endpoints("a"),))
            assert await anext(hints) == FRAUD

    async def test_only_the_callers_of_a_route_may_call_it(self, rig: GatewayRig) -> None:
        rig.gateway.configure(Platform(issuers=rig.issuers))
        members = Caller(issuer="corp", claims=(Claim(path=("groups",), value="team", listed=True),))
        wanted = route(IRIS, "a", access=Access(callers=(*only("ana").callers, members)))
        await rig.gateway.publish((wanted,), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, wanted)
        await _answered(rig, "iris", (200, "a"), ANA)
        assert (await rig.ask("iris"))[0] == 401
        assert (await rig.ask("iris", BOB))[0] == 403
        assert (await rig.ask("iris", Bearer("corp", {"sub": "bob", "groups": ["x", "team"]})))[0] == 200
        assert (await rig.ask("iris", Bearer("corp", {"sub": "bob", "groups": "team"})))[0] == 200
        assert (await rig.ask("iris", Bearer("corp", {"sub": "team", "groups": ["teams"]})))[0] == 403
        assert (await rig.ask("iris", Bearer("other", {"sub": "ana", "groups": ["team"]})))[0] == 403

    async def test_what_nobody_may_call_cannot_be_told_from_what_is_not_there(self, rig: GatewayRig) -> None:
        rig.gateway.configure(Platform(issuers=rig.issuers))
        wanted = route(IRIS, "a", access=Access())
        await rig.gateway.publish((wanted,), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, wanted)
        for each in ("iris", "nothing"):
            await _answered(rig, each, 401)
            await _answered(rig, each, 403, ANA)

    async def test_without_a_token_callers_are_anonymous_where_one_is_optional(self, rig: GatewayRig) -> None:
        rig.gateway.configure(Platform(issuers=rig.issuers))
        both = (ANONYMOUS, *only("ana").callers)
        optional = route(IRIS, "a", access=Access(authentication="optional", callers=both))
        required = route(FRAUD, "a", access=Access(authentication="required", callers=both))
        await rig.gateway.publish((optional, required), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, optional)
        await acknowledged(rig.gateway, required)
        await _answered(rig, "iris", (200, "a"))
        await _answered(rig, "iris", (200, "a"), ANA)
        await _answered(rig, "iris", 403, BOB)
        await _answered(rig, "fraud.bank", 401)

    async def test_where_nobody_may_be_anonymous_an_open_route_needs_a_token_too(self, rig: GatewayRig) -> None:
        rig.gateway.configure(Platform(issuers=rig.issuers, anonymous=False))
        await rig.gateway.publish((route(IRIS, "a"),), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, route(IRIS, "a"))
        await _answered(rig, "iris", 401)
        await _answered(rig, "iris", (200, "a"), BOB)

    async def test_nobody_is_believed_whose_issuer_is_not_known_any_more(self, rig: GatewayRig) -> None:
        rig.gateway.configure(Platform(issuers=rig.issuers))
        wanted = route(IRIS, "a", access=only("ana"))
        await rig.gateway.publish((wanted,), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, wanted)
        await _answered(rig, "iris", (200, "a"), ANA)
        rig.gateway.configure(Platform(issuers=tuple(each for each in rig.issuers if each.name != "corp")))
        await _answered(rig, "iris", 401, ANA)

    async def test_who_may_call_changes_with_the_route(self, rig: GatewayRig) -> None:
        rig.gateway.configure(Platform(issuers=rig.issuers))
        for subjects in (("ana", "bob"), ("bob",), ("ana",)):
            wanted = route(IRIS, "a", access=only(*subjects))
            await rig.gateway.publish((wanted,), (await rig.endpoints("a"),))
            await acknowledged(rig.gateway, wanted)
            for bearer in (ANA, BOB):
                await _answered(rig, "iris", (200, "a") if bearer.claims["sub"] in subjects else 403, bearer)

    async def test_fewer_callers_do_not_wait_for_a_new_unit(self, rig: GatewayRig) -> None:
        rig.gateway.configure(Platform(issuers=rig.issuers))
        await rig.gateway.publish((route(IRIS, "a", access=only("ana", "bob")),), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, route(IRIS, "a", access=only("ana", "bob")))
        await rig.gateway.publish((route(IRIS, "b", access=only("ana")),), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, route(IRIS, "a", access=only("ana")))
        await _answered(rig, "iris", 403, BOB)
        await _answered(rig, "iris", (200, "a"), ANA)

    async def test_a_rejected_route_that_narrows_shuts_everybody_out(self, rig: GatewayRig) -> None:
        rig.gateway.configure(Platform(issuers=rig.issuers))
        first = route(IRIS, "a", access=only("ana", "bob"))
        await rig.gateway.publish((first, route(FRAUD, "a")), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, first)
        await acknowledged(rig.gateway, route(FRAUD, "a"))
        bad = route(IRIS, "a", weight=0, access=only("ana"))
        await rig.gateway.publish((bad, route(FRAUD, "a")), (await rig.endpoints("a"),))
        closed = route(IRIS, "a", access=Access())
        seen = await until(rig.gateway, IRIS, lambda each: each.acknowledged == closed)
        assert "weight" in seen.rejected
        assert "until that is mended nobody may call" in seen.rejected
        for bearer in (ANA, BOB):
            await _answered(rig, "iris", 403, bearer)
        assert await rig.ask("fraud.bank") == (200, "a")
        mended = route(IRIS, "a", access=only("ana"))
        await rig.gateway.publish((mended, route(FRAUD, "a")), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, mended)
        await _answered(rig, "iris", (200, "a"), ANA)

    async def test_a_rejected_route_that_widens_leaves_the_former_one_in_force(self, rig: GatewayRig) -> None:
        rig.gateway.configure(Platform(issuers=rig.issuers))
        first = route(IRIS, "a", access=only("ana"))
        await rig.gateway.publish((first,), (await rig.endpoints("a"),))
        await acknowledged(rig.gateway, first)
        wide = route(IRIS, "a", weight=0, access=only("ana", "bob"))
        await rig.gateway.publish((wide,), (await rig.endpoints("a"),))
        seen = await until(rig.gateway, IRIS, lambda each: each.rejected != "")
        assert seen.acknowledged == first
        await _answered(rig, "iris", (200, "a"), ANA)
        await _answered(rig, "iris", 403, BOB)

    async def test_what_a_unit_has_to_do_is_counted(self, rig: GatewayRig) -> None:
        unit, wanted = "a.default", route(IRIS, "a.default")
        await rig.gateway.publish((wanted,), (await rig.endpoints(unit),))
        await acknowledged(rig.gateway, wanted)
        assert unit not in rig.gateway.load()
        for _ in range(3):
            assert await rig.ask("iris") == (200, unit)
        await _counted(rig, unit, lambda load: load.answered == 3 * rig.proxies and load.p50_seconds is not None)
        await rig.gateway.publish((wanted,), (Endpoints(unit=unit),))
        await _answered(rig, "iris", 503)
        found = await _counted(rig, unit, lambda load: load.failed > 0)
        assert found == rig.gateway.load()[unit]
        # It may have answered until it was known that it has no replicas.
        assert found.answered >= 3
        assert (found.refused, found.in_flight) == (0, 0)


async def _counted(rig: GatewayRig, unit: str, holds: Callable[[Load], bool]) -> Load:
    """Wait for a fact about a load."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds(found := rig.gateway.load().get(unit, Load(unit=unit))):
        assert time.monotonic() < deadline, f"still {found} after {DEADLINE_SECONDS} s"
        await asyncio.sleep(POLL_SECONDS)
    return found


async def _answered(
    rig: GatewayRig, public_id: str, wanted: tuple[int, str] | int, bearer: Bearer | None = None
) -> None:
    """Wait for an answer: that new endpoints of a known unit, or a platform, are in force is acknowledged to nobody."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while wanted not in (found := await rig.ask(public_id, bearer), found[0]):
        assert time.monotonic() < deadline, f"still {found} after {DEADLINE_SECONDS} s"
        await asyncio.sleep(POLL_SECONDS)

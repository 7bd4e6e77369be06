"""Who may call what, from roles and AccessPolicies to the gateway, through the real loop."""

from typing import Any

import pytest

from engine_testing import World, virtual
from modelyard.control.engine.grants import Grants
from modelyard.control.ir.access import OPEN, Access, Authentication
from modelyard.control.ir.admission import admits
from modelyard.control.ir.platform import ACCOUNTS, OWN, Issuer, Platform
from modelyard.control.ir.route import Endpoints, Route
from modelyard.control.ir.values import Key
from modelyard.control.kube.resources import (
    ACCESSPOLICIES,
    CLUSTERROLEBINDINGS,
    CLUSTERROLES,
    ROLEBINDINGS,
    ROLES,
    SERVICEACCOUNTS,
)
from modelyard.control.plan.grants import AccessTable
from modelyard.control.plan.platform import Standing

FOREST = "models/forest.onnx"
PREDICT = {"verbs": ["predict"], "apiGroups": ["modelyard.dev"], "resources": ["modelservices"]}
ISSUERS = (
    Issuer(name=OWN, url="modelyard:users", audiences=("modelyard",)),
    Issuer(name=ACCOUNTS, url="modelyard", audiences=("modelyard",)),
)


def standing(authentication: Authentication = "required", floor: Authentication = "required") -> Standing:
    platform = Platform(issuers=ISSUERS, authentication=authentication)
    return Standing(platform=platform, authentication=authentication, floor=floor)


def key(name: str) -> Key:
    return Key(kind="ModelService", namespace="default", name=name)


def access(world: World, name: str = "digits") -> Access | None:
    """What is in force."""
    route = world.gateway.observe(key(name)).acknowledged
    return route.access if route else None


def may(world: World, user: str, name: str = "digits") -> bool:
    found = access(world, name)
    return found is not None and admits(found, OWN, {"sub": user})


def grant(world: World, user: str, *names: str) -> None:
    """One role and binding for each user."""
    rule = {**PREDICT, **({"resourceNames": list(names)} if names else {})}
    world.api.place(ROLES, user, rules=[rule])
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user}
    world.api.place(ROLEBINDINGS, user, roleRef=reference, subjects=[{"kind": "User", "name": user}])


async def served(*names: str, at: Standing | None = None) -> World:
    world = World()
    world.standing = at or standing()
    async with world.running():
        for name in names:
            await world.serve(name, FOREST)
        await world.all_goes_well()
    return world


def status(world: World, name: str = "rule") -> dict[str, Any]:
    found = world.api.find(ACCESSPOLICIES, name)
    assert found is not None
    return {each["type"]: (each["status"], each["reason"]) for each in found["status"]["conditions"]} | {
        "services": found["status"]["services"]
    }


@virtual
async def test_a_role_takes_effect_without_a_look_at_the_services() -> None:
    world = await served("digits", "iris")
    async with world.running() as engine:
        await world.settle()
        looked, writes = engine.counters.reconciles, len(world.api.writes)
        assert access(world) == Access(callers=access_of_masters(world))
        grant(world, "ana", "digits")
        await world.settle()
        assert (may(world, "ana"), may(world, "eve"), may(world, "ana", "iris")) == (True, False, False)
        grant(world, "ana", "iris")
        await world.settle()
        assert (may(world, "ana"), may(world, "ana", "iris")) == (False, True)
        world.api.remove((ROLEBINDINGS.plural, "default", "ana"))
        await world.settle()
        assert not may(world, "ana", "iris")
        assert engine.counters.reconciles == looked
        assert [each for each in world.api.writes[writes:] if each[1] == "modelservices"] == []
        assert world.ready("ModelService", "digits")[0] == "True"


def access_of_masters(world: World) -> Any:
    found = access(world)
    assert found is not None
    assert [each.issuer for each in found.callers] == [OWN]
    assert admits(found, OWN, {"sub": "root", "groups": ["system:masters"]})
    return found.callers


@virtual
async def test_a_cluster_role_holds_everywhere_and_a_later_service_finds_it() -> None:
    world = await served("digits")
    async with world.running():
        world.api.place(CLUSTERROLES, "callers", rules=[PREDICT])
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "callers"}
        subject = {"kind": "Group", "name": "system:authenticated"}
        world.api.place(CLUSTERROLEBINDINGS, "callers", roleRef=reference, subjects=[subject])
        await world.settle()
        assert may(world, "ana")
        await world.serve("later", FOREST)
        await world.all_goes_well()
        assert may(world, "ana", "later")
        await world.serve("digits", FOREST, replicas=2)
        await world.all_goes_well()
        assert access(world) == access(world, "later")


@virtual
async def test_nothing_is_published_before_the_platform_stands() -> None:
    world = World()
    world.standing = None
    async with world.running() as engine:
        grant(world, "ana")
        await world.serve("digits", FOREST)
        await world.all_goes_well()
        assert access(world) is None
        engine.stand(standing())
        await world.all_goes_well()
        assert may(world, "ana")
        assert world.ready("ModelService", "digits")[0] == "True"


@virtual
async def test_a_control_plane_that_starts_again_publishes_only_what_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await served("digits", "iris")
    grant(world, "ana", "digits")
    seen: list[Access] = []
    publish = world.gateway.publish

    async def published(routes: tuple[Route, ...], endpoints: tuple[Endpoints, ...]) -> None:
        seen.extend(route.access for route in routes if route.owner == key("digits"))
        await publish(routes, endpoints)

    monkeypatch.setattr(world.gateway, "publish", published)
    async with world.running():
        await world.settle()
    assert seen
    assert all(admits(each, OWN, {"sub": "ana"}) and not admits(each, OWN, {"sub": "eve"}) for each in seen)


@virtual
async def test_another_standing_holds_for_all_services_at_once() -> None:
    world = await served("digits", at=standing("none", "none"))
    async with world.running() as engine:
        await world.settle()
        assert access(world) == OPEN
        engine.stand(standing())
        await world.settle()
        assert not may(world, "ana")
        engine.stand(standing("none", "none"))
        await world.settle()
        assert access(world) == OPEN


@virtual
async def test_a_policy_tightens_says_so_and_is_forgotten_when_it_is_deleted() -> None:
    world = await served("digits", "iris", at=standing("none", "none"))
    async with world.running():
        await world.apply("AccessPolicy", "rule", {"services": ["digits"], "authentication": "required"})
        await world.settle()
        assert (may(world, "ana"), may(world, "ana", "iris")) == (False, True)
        assert status(world) == {"Ready": ("True", "Valid"), "services": 1}
        await world.apply("AccessPolicy", "rule", {"services": ["digits", "iris"], "authentication": "none"})
        await world.settle()
        assert status(world)["Open"] == ("True", "OpenToAnybody")
        await world.apply("AccessPolicy", "rule", {"services": ["digits"], "authentication": "required"})
        await world.settle()
        assert not may(world, "ana")
        await world.delete("AccessPolicy", "rule")
        await world.settle()
        assert may(world, "ana")


@virtual
async def test_a_policy_counts_its_services_and_names_those_that_are_missing() -> None:
    world = await served("digits")
    async with world.running():
        await world.apply("AccessPolicy", "rule", {"services": ["digits", "iris"], "authentication": "none"})
        await world.apply("AccessPolicy", "all", {"authentication": "required"})
        await world.settle()
        assert status(world) == {"Ready": ("False", "BelowFloor"), "services": 1}
        await world.apply("AccessPolicy", "rule", {"services": ["digits", "iris"], "authentication": "required"})
        await world.settle()
        assert status(world) == {"Ready": ("False", "ServiceNotFound"), "services": 1}
        await world.serve("iris", FOREST)
        await world.settle()
        assert status(world) == {"Ready": ("True", "Valid"), "services": 2}
        assert status(world, "all")["services"] == 2
        await world.delete("ModelService", "iris")
        await world.settle()
        assert (status(world)["services"], status(world, "all")["services"]) == (1, 1)


@virtual
async def test_a_policy_that_cannot_be_read_lets_nobody_in() -> None:
    world = await served("digits", "iris", at=standing("none", "none"))
    async with world.running():
        await world.apply("AccessPolicy", "rule", {"services": ["digits"]})
        await world.settle()
        assert may(world, "ana")
        world.api.write_past_the_schema(ACCESSPOLICIES, "rule", spec={"services": ["digits"], "issuers": 3})
        await world.settle()
        assert (access(world), access(world, "iris")) == (Access(), OPEN)
        assert world.ready("AccessPolicy", "rule")[:2] == ("False", "Invalid")


@virtual
async def test_an_account_that_is_made_again_is_another_one() -> None:
    world = await served("digits")
    async with world.running():
        world.api.place(SERVICEACCOUNTS, "bot")
        grant(world, "ana")
        subject = {"kind": "ServiceAccount", "name": "bot", "namespace": "default"}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "ana"}
        world.api.place(ROLEBINDINGS, "bot", roleRef=reference, subjects=[subject])
        await world.settle()
        stored = world.api.find(SERVICEACCOUNTS, "bot")
        assert stored is not None
        named = {"name": "bot", "uid": stored["metadata"]["uid"]}
        token = {"sub": "system:serviceaccount:default:bot", "kubernetes.io": {"serviceaccount": named}}
        found = access(world)
        assert found is not None
        assert admits(found, ACCOUNTS, token)
        world.api.remove((SERVICEACCOUNTS.plural, "default", "bot"))
        world.api.place(SERVICEACCOUNTS, "bot")
        await world.settle()
        found = access(world)
        assert found is not None
        assert not admits(found, ACCOUNTS, token)


@virtual
async def test_after_a_defect_nobody_may_call_until_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await served("digits")
    async with world.running():
        grant(world, "ana")
        await world.settle()
        assert may(world, "ana")

        def broken(*_: object) -> None:
            raise RuntimeError("broken")

        with monkeypatch.context() as patched:
            patched.setattr(AccessTable, "bind", broken)
            grant(world, "bob")
            await world.settle()
            assert access(world) == Access()
        grant(world, "eve")
        await world.settle()
        assert (may(world, "ana"), may(world, "bob"), may(world, "eve")) == (True, True, True)


@virtual
async def test_what_makes_no_sense_grants_nothing() -> None:
    world = await served("digits")
    async with world.running():
        grant(world, "ana")
        await world.settle()
        assert may(world, "ana")
        world.api.place(ROLES, "ana", rules=[3])
        world.api.place(ROLEBINDINGS, "eve", roleRef="ana", subjects=None)
        await world.settle()
        assert not may(world, "ana")


@virtual
async def test_a_grant_in_the_middle_of_a_switch_leaves_no_unit_behind() -> None:
    world = World(automatic_gateway=False)
    world.standing = standing()
    async with world.running():
        for uri in (FOREST, "models/logistic.onnx"):
            await world.serve("digits", uri)
            await world.prepares()
            await world.loads()
            if uri == FOREST:
                world.gateway.settle()
                await world.settle()
        switched = world.gateway._goal[key("digits")]
        grant(world, "ana")
        await world.settle()
        granted = world.gateway._goal[key("digits")]
        assert (granted.access, granted.backends) != (switched.access, switched.backends)
        for goal in (switched, granted):  # what was told first is in force first
            world.gateway._goal[key("digits")] = goal
            world.gateway.settle()
            await world.settle()
        await world.drains()
        assert [each.unit.name for each in world.driver.observe().units] == [each.unit for each in granted.backends]
        assert may(world, "ana")


def test_a_group_of_accounts_has_those_that_came_before_it_was_bound() -> None:
    grants = Grants()
    grants.stand(standing())
    predict = {"metadata": {"namespace": "default", "name": "callers"}, "rules": [PREDICT]}
    grants.put_role(("default", "callers"), predict)

    def bind(name: str, group: str) -> None:
        subjects = [{"kind": "Group", "name": group}]
        reference = {"kind": "Role", "name": "callers"}
        body = {"metadata": {"namespace": "default", "name": name}, "roleRef": reference, "subjects": subjects}
        grants.put_binding(("default", name), body)
        grants.renew()

    bind("first", "system:serviceaccounts:default")
    grants.put_account(("other", "bot"), {"metadata": {"namespace": "other", "name": "bot", "uid": "uid-1"}})
    bind("second", "system:serviceaccounts:other")
    token = {"sub": "system:serviceaccount:other:bot", "kubernetes.io": {"serviceaccount": {"uid": "uid-1"}}}
    assert admits(grants.access(key("digits")), ACCOUNTS, token)

"""The roles that come with the server, as the evaluator reads them."""

import pytest

from modelyard.api.schema import crds
from modelyard.base.clock import ManualClock
from modelyard.control.apiserver import defaults, kinds
from modelyard.control.apiserver.database import Key, Range
from modelyard.control.apiserver.objects import Objects, decoded
from modelyard.control.apiserver.store import Store
from modelyard.control.plan.rbac import Ask, Binding, Policy, Role, User, not_held

SERVED = (*kinds.builtin(), *map(kinds.from_crd, crds()))
ROLES = {body["metadata"]["name"]: Role.of(body) for body in defaults.roles(SERVED)}
OURS = "modelyard.dev"
ANA = User("ana")


def may(role: str, verb: str, resource: str, group: str = OURS, subresource: str = "") -> bool:
    binding = {
        "metadata": {"name": "b", "namespace": "n"},
        "roleRef": {"kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "name": "ana"}],
    }
    policy = Policy.of(ROLES.values(), [Binding.of(binding)])
    ask = Ask(verb=verb, namespace="n", group=group, resource=resource, subresource=subresource, name="x")
    return policy.decide(ANA, ask).allowed


@pytest.mark.parametrize("kind", [each for each in SERVED if each.custom], ids=lambda each: each.kind)
def test_every_kind_of_ours_is_read_by_viewers_and_written_by_editors(kind: kinds.Kind) -> None:
    for verb in ("get", "list", "watch"):
        assert may("view", verb, kind.plural)
    for verb in ("create", "update", "patch", "delete", "deletecollection"):
        assert not may("view", verb, kind.plural)
        assert may("edit", verb, kind.plural)
    assert may("view", "get", kind.plural, subresource="status")
    assert not may("admin", "update", kind.plural, subresource="status")


def test_secrets_are_for_editors_and_roles_for_admins() -> None:
    assert [may(role, "get", "secrets", "") for role in ("view", "edit", "admin")] == [False, True, True]
    assert [may(role, "create", "roles", kinds.RBAC) for role in ("view", "edit", "admin")] == [False, False, True]
    assert [may(role, "predict", "modelservices") for role in ("view", "edit", "admin")] == [False, True, True]
    assert not may("admin", "bind", "clusterroles", kinds.RBAC)
    assert not may("admin", "escalate", "roles", kinds.RBAC)
    assert may("cluster-admin", "escalate", "roles", kinds.RBAC)


def test_each_role_holds_the_smaller_one() -> None:
    for smaller, larger in (("view", "edit"), ("edit", "admin"), ("admin", "cluster-admin")):
        assert not_held(ROLES[larger].rules, ROLES[smaller].rules) == []
        assert not_held(ROLES[smaller].rules, ROLES[larger].rules)


async def test_they_are_made_those_of_this_release_at_every_start() -> None:
    clock = ManualClock()
    async with Store.memory(clock) as store:
        objects = Objects(store, clock)
        await defaults.publish(store, objects, SERVED)
        view = next(each for each in kinds.builtin() if each.kind == "ClusterRole")
        stored = await store.get(Key(view.resource_name, "", "view"))
        assert stored is not None
        old = decoded(stored)
        await objects.put(view, stored, {**old, "rules": []})
        before = store.published
        await defaults.publish(store, objects, SERVED)
        again = await store.get(Key(view.resource_name, "", "view"))
        assert again is not None
        assert decoded(again)["rules"] == old["rules"]
        assert decoded(again)["metadata"]["uid"] == old["metadata"]["uid"]
        assert store.published == before + 1
        assert len((await store.page(Range(view.resource_name))).items) == len(ROLES)

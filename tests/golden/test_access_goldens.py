"""Goldens of who may call: settings, roles and AccessPolicies -> the access of services, and what policies say.

`access/<case>.in.yaml` -> `access/<case>.out.yaml`. Regenerate with `UPDATE_GOLDENS=1 make test` and read the
difference.
"""

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from modelyard.api import load
from modelyard.api.access import AccessPolicy
from modelyard.api.settings import Settings
from modelyard.control.plan import access_policy
from modelyard.control.plan.grants import AccessTable, Written, reach
from modelyard.control.plan.platform import Ground, Standing, stand
from modelyard.control.plan.rbac import Binding, Role
from modelyard.control.plan.tightening import Tightening
from modelyard.control.plan.views import AccessPolicyView

CASES = sorted((Path(__file__).parent / "access").glob("*.in.yaml"))
NOW = 1_800_000_000.0
Object = dict[str, Any]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name.removesuffix(".in.yaml"))
def test_the_access_is_as_recorded(path: Path) -> None:
    found = yaml.safe_dump(decided(yaml.safe_load(path.read_text())), sort_keys=False, width=110)
    expected = path.with_name(path.name.replace(".in.", ".out."))
    if os.environ.get("UPDATE_GOLDENS"):
        expected.write_text(found)
    assert found == expected.read_text(), "the access changed; if it should, regenerate and read the difference"


def test_every_case_has_its_result() -> None:
    names = {path.name for path in CASES[0].parent.glob("*.yaml")}
    assert {name.replace(".in.", ".out.") for name in names} == {name for name in names if ".out." in name}


def decided(given: Object) -> Object:
    """services: `namespace/name` of those there are. objects: roles, bindings, ServiceAccounts and AccessPolicies."""
    settings = Settings.model_validate(given.get("settings") or {})
    standing, problems = stand(Ground(settings=settings, loopback=given.get("loopback", False)))
    policies = [each for body in of(given, "AccessPolicy") if isinstance(each := load.decode(body), AccessPolicy)]
    table = AccessTable(written(given, standing, policies))
    services = [tuple(each.split("/")) for each in given["services"]]
    return {
        "problems": list(problems),
        "access": {f"{space}/{name}": msgspec.to_builtins(table.access(space, name)) for space, name in services},
        "policies": {
            f"{each.metadata.namespace}/{each.metadata.name}": said(each, table, standing, services)
            for each in policies
        },
    }


def written(given: Object, standing: Standing, policies: list[AccessPolicy]) -> Written:
    here: dict[str, list[Tightening]] = defaultdict(list)
    for each in policies:
        here[each.metadata.namespace].append(Tightening.of(each))
    roles = [Role.of(body) for body in of(given, "Role", "ClusterRole")]
    accounts: dict[str, dict[str, str]] = defaultdict(dict)
    for body in of(given, "ServiceAccount"):
        accounts[body["metadata"]["namespace"]][body["metadata"]["name"]] = body["metadata"]["uid"]
    return Written(
        standing=standing,
        roles={role.key: reach(role.rules) for role in roles},
        bindings=[Binding.of(body) for body in of(given, "RoleBinding", "ClusterRoleBinding")],
        accounts=accounts,
        policies=here,
    )


def said(policy: AccessPolicy, table: AccessTable, standing: Standing, services: list[tuple[str, ...]]) -> Object:
    about = policy.spec.services
    here = [name for space, name in services if space == policy.metadata.namespace and (not about or name in about)]
    view = AccessPolicyView(
        policy=policy,
        services={name: table.access(policy.metadata.namespace, name) for name in here},
        standing=standing,
    )
    outcome = access_policy.desire(view, NOW)
    assert outcome.status is not None
    return {
        "services": outcome.status["services"],
        "conditions": [
            f"{each['type']} {each['status']} {each['reason']}: {each['message']}"
            for each in outcome.status["conditions"]
        ],
        "events": [f"{each.type} {each.reason}: {each.message}" for each in outcome.events],
    }


def of(given: Object, *kinds: str) -> list[Object]:
    return [body for body in given.get("objects", ()) if body["kind"] in kinds]

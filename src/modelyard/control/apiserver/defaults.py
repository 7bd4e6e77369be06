"""The roles that come with the server: what they allow is generated from the served kinds, and no client changes them.

Source: k8s.io/kubernetes plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go.
"""

from collections.abc import Iterable
from typing import Any

from modelyard.control.apiserver import kinds
from modelyard.control.apiserver.database import Key
from modelyard.control.apiserver.kinds import RBAC, Kind
from modelyard.control.apiserver.objects import Objects, decoded
from modelyard.control.apiserver.store import Store
from modelyard.control.plan.rbac import AUTHENTICATED, MASTERS

Object = dict[str, Any]
_READS = ["get", "list", "watch"]
_WRITES = ["create", "delete", "deletecollection", "patch", "update"]
_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_DISCOVERY = [
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
]


async def publish(store: Store, objects: Objects, served: Iterable[Kind]) -> None:
    """Make the stored roles those of this release."""
    by_name = {kind.kind: kind for kind in kinds.builtin()}
    for body in (*roles(served), *_bindings()):
        kind = by_name[body["kind"]]
        stored = await store.get(Key(kind.resource_name, "", body["metadata"]["name"]))
        if stored is None:
            await objects.establish(kind, body)
            continue
        current = decoded(stored)
        if any(current.get(each) != body.get(each) for each in ("rules", "roleRef", "subjects")):
            await objects.put(kind, stored, {**body, "metadata": current["metadata"]})


def roles(served: Iterable[Kind]) -> list[Object]:
    """All ClusterRoles. served: the kinds of the server; ours among them are what the roles are about."""
    ours = [kind for kind in served if kind.custom]
    names = sorted(kind.plural for kind in ours)
    group = ours[0].group if ours else ""
    scales = sorted(f"{kind.plural}/scale" for kind in ours if kind.scale is not None)
    below = sorted(f"{kind.plural}/status" for kind in ours if kind.status)
    view = [
        _rule(_READS, group, [*names, *scales, *below]),
        _rule(_READS, "", ["configmaps", "events", "namespaces", "serviceaccounts"]),
        _rule(_READS, "apps", ["controllerrevisions"]),
    ]
    edit = [
        *view,
        _rule(_WRITES, group, [*names, *scales]),
        _rule(["predict"], group, ["modelservices"]),
        _rule([*_READS, *_WRITES], "", ["configmaps", "secrets", "serviceaccounts"]),
        _rule(["create"], "", ["serviceaccounts/token"]),
        _rule(["impersonate"], "", ["serviceaccounts"]),
        _rule(["create", "patch", "update"], "", ["events"]),
    ]
    admin = [
        *edit,
        _rule([*_READS, *_WRITES], RBAC, ["rolebindings", "roles"]),
        _rule(["create"], "authorization.k8s.io", ["localsubjectaccessreviews"]),
    ]
    reviews = ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]
    return [
        _role("cluster-admin", [_rule(["*"], "*", ["*"]), {"verbs": ["*"], "nonResourceURLs": ["*"]}]),
        _role("view", view),
        _role("edit", edit),
        _role("admin", admin),
        _role("system:discovery", [{"verbs": ["get"], "nonResourceURLs": _DISCOVERY}]),
        _role(
            "system:basic-user",
            [
                _rule(["create"], "authorization.k8s.io", reviews),
                _rule(["create"], "authentication.k8s.io", ["selfsubjectreviews"]),
            ],
        ),
    ]


def _bindings() -> list[Object]:
    return [
        _binding("cluster-admin", MASTERS),
        _binding("system:discovery", AUTHENTICATED),
        _binding("system:basic-user", AUTHENTICATED),
    ]


def _rule(verbs: list[str], group: str, resources: list[str]) -> Object:
    return {"verbs": verbs, "apiGroups": [group], "resources": resources}


def _role(name: str, rules: list[Object]) -> Object:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name, "labels": _LABELS},
        "rules": rules,
    }


def _binding(name: str, group: str) -> Object:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name, "labels": _LABELS},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "Group", "apiGroup": RBAC, "name": group}],
    }

"""Who may do what: the operator as little as it can do with, people what their roles say already.

Source: kubernetes.io/docs/reference/access-authn-authz/rbac (aggregated ClusterRoles, user-facing roles).
"""

from typing import Any

from modelyard.control.render.install_options import GATEWAY, NAMESPACE, OPERATOR, Object, Options, made

_RBAC = "rbac.authorization.k8s.io"
_OURS = ("accesspolicies", "models", "modeljobs", "modelservices", "modelstreams", "runtimes")
_LOOK = ("get", "list", "watch")
_APPLY = ("create", "patch", "delete")
_CHANGE = ("create", "update", "patch", "delete")
_AGGREGATE = f"{_RBAC}/aggregate-to-"


def access(options: Options) -> list[Object]:
    """ServiceAccounts, roles and bindings."""
    return [
        {**made("v1", "ServiceAccount", OPERATOR, options, "operator"), "automountServiceAccountToken": False},
        {**made("v1", "ServiceAccount", GATEWAY, options, "gateway"), "automountServiceAccountToken": False},
        *_operator(options),
        *_people(options),
    ]


def rule(group: str, resources: str, *verbs: str, **more: Any) -> Object:
    """resources: separated by blanks."""
    return {"apiGroups": [group], "resources": resources.split(), "verbs": list(verbs), **more}


def everywhere() -> list[Object]:
    """What the operator may do in all namespaces. It reads no Secret there, and no log."""
    return [
        rule("modelyard.dev", " ".join(_OURS), *_LOOK),
        # Models behind inline `uri`s and outputs of jobs are objects of the operator's own.
        rule("modelyard.dev", "models", "create", "delete"),
        rule("modelyard.dev", "modeljobs", "delete"),  # those whose ttlSecondsAfterFinished is over
        rule("modelyard.dev", "modelstreams", "patch"),  # the finalizer
        rule("modelyard.dev", " ".join(f"{each}/status" for each in _OURS), "update"),
        # Where owners are protected (OwnerReferencesPermissionEnforcement), children may name them.
        rule("modelyard.dev", " ".join(f"{each}/finalizers" for each in _OURS), "update"),
        rule("apps", "controllerrevisions", *_LOOK, "create", "delete"),
        # What serves is a Deployment, a stream's runners are a ReplicaSet; what stands beside names them as its owner.
        rule("apps", "deployments replicasets", *_LOOK, *_APPLY),
        rule("apps", "deployments/finalizers replicasets/finalizers", "update"),
        rule("batch", "jobs", *_LOOK, *_APPLY),
        rule("policy", "poddisruptionbudgets", *_LOOK, *_APPLY),
        rule("networking.k8s.io", "networkpolicies", *_LOOK, *_APPLY),
        rule("", "services", *_LOOK, *_APPLY),  # for the nodes of one job to find each other
        rule("", "pods", *_LOOK, "delete"),
        rule("", "events", "get", "list", "create", "patch"),
        # Who may call a model is said by roles, and tokens name the uid of their ServiceAccount.
        rule("", "serviceaccounts", *_LOOK),
        rule(_RBAC, "roles rolebindings clusterroles clusterrolebindings", *_LOOK),
        {"nonResourceURLs": ["/.well-known/openid-configuration", "/openid/v1/jwks"], "verbs": ["get"]},
    ]


def at_home() -> list[Object]:
    """What it may do in its own namespace besides."""
    return [
        rule("", "secrets", *_LOOK, "create", "update"),
        rule("", "configmaps", *_LOOK),
        rule("", "pods", "patch"),  # the label of the leader
        rule("coordination.k8s.io", "leases", "get", "create", "update"),
    ]


def _operator(options: Options) -> list[Object]:
    wide = made(f"{_RBAC}/v1", "ClusterRole", OPERATOR, options, "operator", namespaced=False)
    wide_binding = made(f"{_RBAC}/v1", "ClusterRoleBinding", OPERATOR, options, "operator", namespaced=False)
    return [
        {**wide, "rules": everywhere()},
        {**wide_binding, **_binds("ClusterRole")},
        {**made(f"{_RBAC}/v1", "Role", OPERATOR, options, "operator"), "rules": at_home()},
        {**made(f"{_RBAC}/v1", "RoleBinding", OPERATOR, options, "operator"), **_binds("Role")},
    ]


def _binds(kind: str) -> Object:
    return {
        "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": OPERATOR},
        "subjects": [{"kind": "ServiceAccount", "name": OPERATOR, "namespace": NAMESPACE}],
    }


def _people(options: Options) -> list[Object]:
    """What `view`, `edit` and `admin` get with regard to our kinds; the same as on a laptop."""
    scales = "modelservices/scale modelstreams/scale"
    look = rule("modelyard.dev", " ".join(_OURS), *_LOOK)
    change = rule("modelyard.dev", " ".join(_OURS), *_CHANGE, "deletecollection")
    return [
        _for_people(options, "view", "view", look, rule("modelyard.dev", scales, "get")),
        _for_people(options, "edit", "edit", change, rule("modelyard.dev", scales, "update", "patch")),
        # Who edits a namespace may take the tokens of its ServiceAccounts anyhow, and who administers it can give
        # others only what they hold themselves.
        _for_people(options, "predict", "edit", rule("modelyard.dev", "modelservices", "predict")),
    ]


def _for_people(options: Options, name: str, into: str, *rules: Object) -> Object:
    found = made(f"{_RBAC}/v1", "ClusterRole", f"modelyard-{name}", options, "access", namespaced=False)
    found["metadata"]["labels"][f"{_AGGREGATE}{into}"] = "true"
    return {**found, "rules": list(rules)}

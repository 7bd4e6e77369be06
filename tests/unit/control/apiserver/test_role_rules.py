"""Roles and bindings: what is stored can be evaluated."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.control.apiserver import kinds
from modelyard.control.apiserver.admission import admit
from modelyard.control.apiserver.status import StatusError
from modelyard.control.plan.rbac import Binding, Policy, Role

KINDS = {kind.kind: kind for kind in kinds.builtin()}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 1) | st.sampled_from(["", "*", "a", "User", "ServiceAccount"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "kind", "verbs"]), inner),
    max_leaves=4,
)


def mostly(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(value, value, value, ANYTHING)


TEXTS = mostly(st.lists(mostly(st.sampled_from(["get", "*", "/x", ""])), min_size=1, max_size=2))
RULE = st.fixed_dictionaries(
    {"verbs": TEXTS, "apiGroups": TEXTS, "resources": TEXTS},
    optional={"resourceNames": TEXTS, "nonResourceURLs": TEXTS},
)
SUBJECT = st.fixed_dictionaries(
    {"kind": mostly(st.sampled_from(["User", "Group", "ServiceAccount"])), "name": mostly(st.just("a"))},
    optional={"namespace": mostly(st.just("n")), "apiGroup": mostly(st.just(""))},
)
REFERENCE = st.fixed_dictionaries(
    {"kind": mostly(st.sampled_from(["Role", "ClusterRole"])), "name": mostly(st.just("r"))},
    optional={"apiGroup": mostly(st.just(kinds.RBAC))},
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "rules": mostly(st.lists(mostly(RULE), max_size=2)),
        "subjects": mostly(st.lists(mostly(SUBJECT), max_size=2)),
        "roleRef": mostly(REFERENCE),
    },
)


@given(BODIES, st.sampled_from(["Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"]))
def test_whatever_is_admitted_can_be_evaluated(body: dict[str, Any], name: str) -> None:
    kind = KINDS[name]
    metadata = {"name": "x", **({"namespace": "n"} if kind.namespaced else {})}
    with contextlib.suppress(StatusError):
        admitted, _ = admit(kind, {**body, "metadata": metadata}, None, field_validation="Ignore")
        if name.endswith("Binding"):
            Policy.of([], [Binding.of(admitted)])
        else:
            Policy.of([Role.of(admitted)], [])


@pytest.mark.parametrize(
    ("kind", "subject", "field"),
    [
        ("RoleBinding", {"kind": "Robot", "name": "a"}, "subjects[0].kind"),
        ("RoleBinding", {"kind": "User", "name": ""}, "subjects[0].name"),
        ("RoleBinding", {"kind": "User", "name": "a", "namespace": "n"}, "subjects[0].namespace"),
        ("RoleBinding", {"kind": "User", "name": "a", "apiGroup": "apps"}, "subjects[0].apiGroup"),
        ("RoleBinding", {"kind": "ServiceAccount", "name": "A"}, "subjects[0].name"),
        ("ClusterRoleBinding", {"kind": "ServiceAccount", "name": "a"}, "subjects[0].namespace"),
    ],
)
def test_a_subject_that_means_nobody_is_refused(kind: str, subject: dict[str, str], field: str) -> None:
    body = {"roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [subject], "metadata": {"name": "x"}}
    with pytest.raises(StatusError) as caught:
        admit(KINDS[kind], body, None)
    assert field in {cause.field for cause in caught.value.causes}


@pytest.mark.parametrize(
    "reference",
    [{"kind": "Role", "name": "r"}, {"kind": "ClusterRole", "name": ""}, {"kind": "ClusterRole", "name": "a/b"}],
)
def test_a_cluster_wide_binding_names_a_cluster_role(reference: dict[str, str]) -> None:
    with pytest.raises(StatusError):
        admit(KINDS["ClusterRoleBinding"], {"roleRef": reference, "metadata": {"name": "x"}}, None)

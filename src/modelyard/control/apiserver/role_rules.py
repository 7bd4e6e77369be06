"""What roles and bindings demand beyond their schemas.

Source: k8s.io/kubernetes pkg/apis/rbac/validation/validation.go.
"""

from collections.abc import Iterator
from typing import Any

from modelyard.control.apiserver.names import path_segment_faults, subdomain_faults
from modelyard.control.apiserver.status import Cause
from modelyard.control.apiserver.values import same

Object = dict[str, Any]
_GROUP = "rbac.authorization.k8s.io"
_SUBJECTS = {"User": _GROUP, "Group": _GROUP, "ServiceAccount": ""}


def check(new: Object, old: Object | None) -> Iterator[Cause]:
    """Every violated rule; old: what the object replaces."""
    return _binding(new, old) if "roleRef" in new else _role(new)


def _role(new: Object) -> Iterator[Cause]:
    for index, rule in enumerate(new.get("rules") or ()):
        yield from _rule(rule, f"rules[{index}]", paths=new["kind"] == "ClusterRole")


def _rule(rule: Object, at: str, *, paths: bool) -> Iterator[Cause]:
    if not rule.get("verbs"):
        yield Cause.required(f"{at}.verbs", "verbs must contain at least one value")
    if rule.get("nonResourceURLs"):
        if not paths:
            detail = "namespaced rules cannot apply to non-resource URLs"
            yield Cause.invalid(f"{at}.nonResourceURLs", rule["nonResourceURLs"], detail)
        if any(rule.get(each) for each in ("apiGroups", "resources", "resourceNames")):
            detail = "rules cannot apply to both regular resources and non-resource URLs"
            yield Cause.invalid(f"{at}.nonResourceURLs", rule["nonResourceURLs"], detail)
        return
    if not rule.get("apiGroups"):
        yield Cause.required(f"{at}.apiGroups", "resource rules must supply at least one api group")
    if not rule.get("resources"):
        yield Cause.required(f"{at}.resources", "resource rules must supply at least one resource")


def _binding(new: Object, old: Object | None) -> Iterator[Cause]:
    reference, local = new["roleRef"], new["kind"] == "RoleBinding"
    if reference.get("apiGroup") != _GROUP:
        yield Cause.unsupported("roleRef.apiGroup", reference.get("apiGroup", ""), (_GROUP,))
    kinds = ("Role", "ClusterRole") if local else ("ClusterRole",)
    if reference["kind"] not in kinds:
        yield Cause.unsupported("roleRef.kind", reference["kind"], kinds)
    if not reference["name"]:
        yield Cause.required("roleRef.name")
    yield from (Cause.invalid("roleRef.name", reference["name"], fault)
                for fault in path_segment_faults(reference["name"]))  # fmt: skip
    if old is not None and not same(reference, old["roleRef"]):
        yield Cause.invalid("roleRef", "object", "cannot change roleRef: delete the binding and make it again")
    for index, subject in enumerate(new.get("subjects") or ()):
        yield from _subject(subject, f"subjects[{index}]", local=local)


def _subject(subject: Object, at: str, *, local: bool) -> Iterator[Cause]:
    kind, name = subject["kind"], subject["name"]
    if not name:
        yield Cause.required(f"{at}.name")
    if kind not in _SUBJECTS:
        yield Cause.unsupported(f"{at}.kind", kind, _SUBJECTS)
        return
    if subject.get("apiGroup") not in (None, "", _SUBJECTS[kind]):
        yield Cause.unsupported(f"{at}.apiGroup", subject["apiGroup"], (_SUBJECTS[kind],))
    if kind == "ServiceAccount":
        if name:
            yield from (Cause.invalid(f"{at}.name", name, fault) for fault in subdomain_faults(name))
        if not subject.get("namespace") and not local:
            yield Cause.required(f"{at}.namespace")
    elif subject.get("namespace"):
        yield Cause.forbidden(f"{at}.namespace", f"a {kind} has no namespace")

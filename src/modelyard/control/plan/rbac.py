"""Who may do what: the rules of Kubernetes RBAC over frozen values.

Source: k8s.io/kubernetes plugin/pkg/auth/authorizer/rbac and pkg/registry/rbac/validation, k8s.io/component-helpers
auth/rbac/validation/policy_comparator.go. Aggregation of ClusterRoles is not evaluated: only rules written down.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, NamedTuple

GROUP = "rbac.authorization.k8s.io"
MASTERS = "system:masters"
"""The group that may do everything, whatever is written down."""
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
ANONYMOUS = "system:anonymous"
_ALL = "*"
_ACCOUNT = "system:serviceaccount:"
_MOST_COMBINATIONS = 20_000


@dataclass(frozen=True, slots=True)
class User:
    """Who asks, as authentication found it."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One question. path "": about a resource; namespace "": the cluster or all namespaces; name "": the collection."""

    verb: str
    namespace: str = ""
    group: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is allowed. names empty: every object. A rule is about resources or about paths."""

    verbs: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    paths: frozenset[str] = frozenset()

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "Rule":
        """From a PolicyRule."""
        parts = ("verbs", "apiGroups", "resources", "resourceNames", "nonResourceURLs")
        verbs, groups, resources, names, paths = (frozenset(body.get(each) or ()) for each in parts)
        return cls(verbs=verbs, groups=groups, resources=resources, names=names, paths=paths)

    def body(self) -> dict[str, list[str]]:
        """The PolicyRule, its lists sorted."""
        parts = {
            "verbs": self.verbs,
            "apiGroups": self.groups,
            "resources": self.resources,
            "resourceNames": self.names,
            "nonResourceURLs": self.paths,
        }
        return {key: sorted(found) for key, found in parts.items() if found}

    def allows(self, ask: Ask) -> bool:
        """Whether this rule alone answers yes."""
        if not _has(self.verbs, ask.verb):
            return False
        if ask.path:
            return any(_path_covers(each, ask.path) for each in self.paths)
        return (
            _has(self.groups, ask.group) and self._allows_resource(ask) and (not self.names or ask.name in self.names)
        )

    def _allows_resource(self, ask: Ask) -> bool:
        if not ask.subresource:
            return _has(self.resources, ask.resource)
        wanted = (f"{ask.resource}/{ask.subresource}", f"*/{ask.subresource}")
        return _ALL in self.resources or any(each in self.resources for each in wanted)

    def covers(self, other: "Rule") -> bool:
        """Whether who holds this rule alone holds all of the other."""
        return (
            _has_all(self.verbs, other.verbs)
            and _has_all(self.groups, other.groups)
            and (_ALL in self.resources or all(self._covers_resource(each) for each in other.resources))
            and (not self.names or (bool(other.names) and other.names <= self.names))
            and all(any(_path_covers(mine, each) for mine in self.paths) for each in other.paths)
        )

    def _covers_resource(self, resource: str) -> bool:
        _, slash, subresource = resource.partition("/")
        return resource in self.resources or bool(slash and f"*/{subresource}" in self.resources)


class RoleKey(NamedTuple):
    """Which role; namespace "": a ClusterRole."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Role:
    """A Role or ClusterRole."""

    key: RoleKey
    rules: tuple[Rule, ...]

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "Role":
        """From a Role or ClusterRole."""
        metadata = body["metadata"]
        key = RoleKey(metadata.get("namespace") or "", metadata["name"])
        return cls(key, tuple(map(Rule.of, body.get("rules") or ())))


@dataclass(frozen=True, slots=True)
class Subject:
    """kind: User, Group or ServiceAccount; only the last has a namespace."""

    kind: str
    name: str
    namespace: str = ""

    @property
    def key(self) -> "SubjectKey":
        """What it is found by: whether it is a group, and the name of group or user."""
        name = account_name(self.namespace, self.name) if self.kind == "ServiceAccount" else self.name
        return self.kind == "Group", name

    def __str__(self) -> str:
        name = f"{self.name}/{self.namespace}" if self.kind == "ServiceAccount" else self.name
        return f'{self.kind} "{name}"'


@dataclass(frozen=True, slots=True)
class Binding:
    """A RoleBinding, or a ClusterRoleBinding where namespace is ""."""

    namespace: str
    name: str
    role: RoleKey
    subjects: tuple[Subject, ...]

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "Binding":
        """From a RoleBinding or ClusterRoleBinding. A ServiceAccount without a namespace is never meant."""
        metadata, reference = body["metadata"], body["roleRef"]
        namespace = metadata.get("namespace") or ""
        role = RoleKey(namespace if reference["kind"] == "Role" else "", reference["name"])
        found = (
            Subject(each["kind"], each["name"], each.get("namespace") or namespace)
            if each["kind"] == "ServiceAccount"
            else Subject(each["kind"], each["name"])
            for each in body.get("subjects") or ()
        )
        return cls(
            namespace,
            metadata["name"],
            role,
            tuple(each for each in found if each.kind != "ServiceAccount" or each.namespace),
        )

    def __str__(self) -> str:
        if not self.namespace:
            return f'ClusterRoleBinding "{self.name}"'
        return f'RoleBinding "{self.name}/{self.namespace}"'


SubjectKey = tuple[bool, str]
Bound = tuple[Binding, Subject]


class Decision(NamedTuple):
    """reason: which binding allows it; empty for a denial, since nothing allows it."""

    allowed: bool
    reason: str = ""


class Grant(NamedTuple):
    """A rule that somebody holds, and through what."""

    rule: Rule
    binding: Binding
    subject: Subject


@dataclass(slots=True)
class Grants:
    """What one subject holds in one namespace: rules for all objects, and rules by the names that they speak of."""

    broad: list[Grant] = field(default_factory=list)
    named: dict[str, list[Grant]] = field(default_factory=dict)

    def about(self, name: str) -> Iterator[Grant]:
        """What may speak of an object of that name."""
        yield from self.broad
        yield from self.named.get(name, ())


_NOTHING = Grants()


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """All roles and bindings at one moment, made by `of`. A question costs what its subjects hold, not all there is.

    roles: rules by role. bindings: by namespace and name. bound: by subject and namespace. found: answers' own memory.
    """

    roles: Mapping[RoleKey, tuple[Rule, ...]] = field(default_factory=dict)
    bindings: Mapping[tuple[str, str], Binding] = field(default_factory=dict)
    bound: Mapping[SubjectKey, Mapping[str, tuple[Bound, ...]]] = field(default_factory=dict)
    found: dict[tuple[SubjectKey, str], Grants] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, roles: Iterable[Role], bindings: Iterable[Binding]) -> "Policy":
        """From all that there are."""
        by_name = {(binding.namespace, binding.name): binding for binding in bindings}
        gathered: dict[SubjectKey, dict[str, list[Bound]]] = {}
        for binding in by_name.values():
            for subject in binding.subjects:
                by_namespace = gathered.setdefault(subject.key, {})
                by_namespace.setdefault(binding.namespace, []).append((binding, subject))
        bound = {key: {each: tuple(found) for each, found in spaces.items()} for key, spaces in gathered.items()}
        return cls({role.key: role.rules for role in roles}, by_name, bound)

    def with_role(self, key: RoleKey, role: Role | None) -> "Policy":
        """The policy after a role was written, or removed."""
        roles = {each: rules for each, rules in self.roles.items() if each != key}
        if role is not None:
            roles[key] = role.rules
        return replace(self, roles=roles, found={})

    def with_binding(self, namespace: str, name: str, binding: Binding | None) -> "Policy":
        """The policy after a binding was written, or removed; namespace "": a ClusterRoleBinding."""
        bindings, bound = dict(self.bindings), dict(self.bound)
        old = bindings.pop((namespace, name), None)
        for key in {subject.key for subject in old.subjects} if old else ():
            kept = tuple(each for each in bound[key][namespace] if each[0] is not old)
            rest = {space: found for space, found in bound.pop(key).items() if space != namespace}
            if kept or rest:
                bound[key] = {**rest, namespace: kept} if kept else rest
        if binding is not None:
            bindings[namespace, name] = binding
            for subject in binding.subjects:
                spaces = bound.get(subject.key, {})
                bound[subject.key] = {**spaces, namespace: (*spaces.get(namespace, ()), (binding, subject))}
        return replace(self, bindings=bindings, bound=bound, found={})

    def decide(self, user: User, ask: Ask) -> Decision:
        """The answer; what nothing allows is denied."""
        if MASTERS in user.groups:
            return Decision(True, f"the group {MASTERS} may do everything")
        for grants in self._held(user, "" if ask.path else ask.namespace):
            for grant in grants.about(ask.name):
                if grant.rule.allows(ask):
                    role = grant.binding.role
                    kind = "Role" if role.namespace else "ClusterRole"
                    why = f'RBAC: allowed by {grant.binding} of {kind} "{role.name}" to {grant.subject}'
                    return Decision(True, why)
        return Decision(False)

    def rules_for(self, user: User, namespace: str) -> tuple[Rule, ...]:
        """What a user holds in a namespace ("": in the whole cluster), each rule once, in the order of the bindings."""
        every = Rule(verbs=_STAR, groups=_STAR, resources=_STAR), Rule(verbs=_STAR, paths=_STAR)
        found: dict[Rule, None] = dict.fromkeys(every) if MASTERS in user.groups else {}
        for scope in _scopes(namespace):
            for key in _keys(user):
                for binding, _ in self.bound.get(key, {}).get(scope, ()):
                    # Paths are no resources of a namespace: only ClusterRoleBindings grant them.
                    rules = self.roles.get(binding.role, ())
                    found.update(dict.fromkeys(rule for rule in rules if not scope or not rule.paths))
        return tuple(found)

    def rules_of(self, role: RoleKey) -> tuple[Rule, ...] | None:
        """What a role allows; None when there is no such role."""
        return self.roles.get(role)

    def _held(self, user: User, namespace: str) -> Iterator[Grants]:
        for scope in _scopes(namespace):
            for key in _keys(user):
                yield self._grants(key, scope)

    def _grants(self, key: SubjectKey, scope: str) -> Grants:
        bound = self.bound.get(key, {}).get(scope)
        if not bound:
            return _NOTHING
        found = self.found.get((key, scope))
        if found is None:
            found = self.found[key, scope] = Grants()
            for binding, subject in bound:
                for rule in self.roles.get(binding.role, ()):
                    grant = Grant(rule, binding, subject)
                    if rule.paths or not rule.names:
                        found.broad.append(grant)
                        continue
                    for name in rule.names:
                        found.named.setdefault(name, []).append(grant)
        return found


def not_held(held: Iterable[Rule], wanted: Iterable[Rule]) -> list[Rule]:
    """The parts of the wanted rules that no held rule covers: what somebody may not grant to others.

    A rule with very many combinations counts as not held unless one held rule covers it whole.
    """
    mine = tuple(held)
    missing: dict[Rule, set[str]] = {}
    for rule in wanted:
        if any(each.covers(rule) for each in mine):
            continue
        parts = (rule.verbs, rule.groups, rule.resources, rule.names, rule.paths)
        count = 1
        for part in parts:
            count *= max(len(part), 1)
        if count > _MOST_COMBINATIONS:
            missing.setdefault(rule, set()).update(rule.verbs)
            continue
        for each in _smallest(rule):
            if not any(own.covers(each) for own in mine):
                missing.setdefault(rule, set()).update(each.verbs)
    return [
        Rule(verbs=frozenset(verbs), groups=r.groups, resources=r.resources, names=r.names, paths=r.paths)
        for r, verbs in missing.items()
    ]


def _smallest(rule: Rule) -> Iterator[Rule]:
    """The rules with one verb, group, resource and name, or one verb and path, that say the same together."""
    for verb in sorted(rule.verbs):
        one = frozenset({verb})
        for path in sorted(rule.paths):
            yield Rule(verbs=one, paths=frozenset({path}))
        for group, resource, name in product(rule.groups, rule.resources, rule.names or {""}):
            names = frozenset({name}) if name else frozenset[str]()
            yield Rule(verbs=one, groups=frozenset({group}), resources=frozenset({resource}), names=names)


def account_name(namespace: str, name: str) -> str:
    """The user name of a ServiceAccount: `system:serviceaccount:default:ana`."""
    return f"{_ACCOUNT}{namespace}:{name}"


def account_of(user: str) -> tuple[str, str] | None:
    """Namespace and name of the ServiceAccount with that user name; None for other users."""
    namespace, colon, name = user.removeprefix(_ACCOUNT).partition(":")
    whole = user.startswith(_ACCOUNT) and namespace and colon and name and ":" not in name
    return (namespace, name) if whole else None


def account_groups(namespace: str) -> tuple[str, str]:
    """The groups of every ServiceAccount in a namespace."""
    return "system:serviceaccounts", f"system:serviceaccounts:{namespace}"


_STAR = frozenset({_ALL})


def _keys(user: User) -> Iterator[SubjectKey]:
    yield False, user.name
    for group in user.groups:
        yield True, group


def _scopes(namespace: str) -> tuple[str, ...]:
    return ("", namespace) if namespace else ("",)


def _has(allowed: frozenset[str], wanted: str) -> bool:
    return _ALL in allowed or wanted in allowed


def _has_all(allowed: frozenset[str], wanted: frozenset[str]) -> bool:
    return _ALL in allowed or wanted <= allowed


def _path_covers(allowed: str, wanted: str) -> bool:
    if allowed in (_ALL, wanted):
        return True
    return allowed.endswith(_ALL) and wanted.startswith(allowed.rstrip(_ALL))

"""Who may call which service: roles, bindings and AccessPolicies turned round, for all services at once.

For a service the answer is that of `rbac.Policy.decide` for the verb `predict`, about every caller that a token can
name; AccessPolicies tighten it.
"""

from bisect import insort
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from modelyard.api import GROUP
from modelyard.control.ir.access import ANONYMOUS, Access, Authentication, Caller, RateLimit
from modelyard.control.plan import tightening
from modelyard.control.plan.callers import Accounts, Callers, order
from modelyard.control.plan.platform import Standing
from modelyard.control.plan.rbac import Ask, Binding, RoleKey, Rule
from modelyard.control.plan.tightening import Tightening

RESOURCE = "modelservices"
VERB = "predict"


class Reach(NamedTuple):
    """Of which services a role lets callers ask predictions: everywhere that it is bound, or these names there."""

    everywhere: bool = False
    names: frozenset[str] = frozenset()


NOWHERE = Reach()
_NO_GROUPS: Mapping[RoleKey, int] = {}


def reach(rules: Iterable[Rule]) -> Reach:
    """What a role's rules say about predictions."""
    names: set[str] = set()
    for rule in rules:
        name = next(iter(rule.names), "")
        if not rule.allows(Ask(verb=VERB, group=GROUP, resource=RESOURCE, name=name)):
            continue
        if not rule.names:
            return Reach(everywhere=True)
        names |= rule.names
    return Reach(names=frozenset(names))


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """Everything that grants and tightens, at one moment.

    roles: by what they reach; others may be left out. accounts: uids of ServiceAccounts by namespace and name.
    policies: by namespace, in any order.
    """

    standing: Standing
    roles: Mapping[RoleKey, Reach]
    bindings: Iterable[Binding] = ()
    accounts: Accounts
    policies: Mapping[str, Iterable[Tightening]]


class _Terms(NamedTuple):
    """What holds for a service besides who is granted what. issuers: None: all of them."""

    authentication: Authentication
    issuers: frozenset[str] | None
    limits: tuple[RateLimit, ...]


class _Place:
    """What is granted in a namespace, or everywhere: by role the number of the group that holds it."""

    __slots__ = ("broad", "named", "reached")

    def __init__(self) -> None:
        self.reached: dict[RoleKey, Reach] = {}
        self.broad: dict[RoleKey, int] = {}
        self.named: dict[str, dict[RoleKey, int]] = {}

    def put(self, role: RoleKey, reached: Reach, group: int) -> None:
        """The only grant of this role here from now on."""
        self.reached[role] = reached
        if reached.everywhere:
            self.broad[role] = group
        for name in reached.names:
            self.named.setdefault(name, {})[role] = group

    def take(self, role: RoleKey) -> Reach:
        """Forget a role. -> what it reached."""
        reached = self.reached.pop(role, NOWHERE)
        self.broad.pop(role, None)
        for name in reached.names:
            self.named[name].pop(role)
            if not self.named[name]:
                del self.named[name]
        return reached


class _Base:
    """An Access that many services share, its callers by number, and what becomes of it with some more of them."""

    __slots__ = ("access", "callers", "more")

    def __init__(self, access: Access, callers: frozenset[int]) -> None:
        self.access = access
        self.callers = callers
        self.more: dict[frozenset[int], Access] = {}


class _Shut:
    """seen: how many callers were looked at so far."""

    __slots__ = ("callers", "seen")

    def __init__(self) -> None:
        self.callers: set[int] = set()
        self.seen = 0


class AccessTable:
    """The Access of every service, found by namespace and name; those that are equal are one object.

    Making one costs what is written down, once; `bind` what it concerns, and an answer what concerns the service.
    Callers are numbered, and so are the groups of them that hold a role somewhere.
    """

    def __init__(self, written: Written) -> None:
        self.callers = Callers(written.standing.platform.issuers, written.accounts)
        self._standing = written.standing
        self._policies = {namespace: _Policies(each) for namespace, each in written.policies.items()}
        self._terms: dict[_Terms, int] = {}
        self._terms_at: dict[tuple[str, str | None], tuple[_Terms, int]] = {}
        self._found: dict[tuple[int, tuple[int, ...], tuple[int, ...]], Access] = {}
        self._bases: dict[tuple[int, tuple[int, ...]], _Base] = {}
        self._equal: dict[tuple[int, frozenset[int]], _Base] = {}
        self._numbers: dict[Caller, int] = {}
        self._numbered: list[Caller] = []
        self._shut: dict[tuple[Authentication, frozenset[str] | None], _Shut] = defaultdict(_Shut)
        self._group_numbers: dict[frozenset[int], int] = {}
        self._groups: list[frozenset[int]] = []
        self._places: dict[str, _Place] = defaultdict(_Place)
        self._nothing = _Place()
        self._masters = self._numbers_of(self.callers.masters())
        bound: dict[tuple[str, RoleKey], list[Binding]] = defaultdict(list)
        for binding in written.bindings:
            bound[binding.namespace, binding.role].append(binding)
        for (namespace, role), bindings in bound.items():
            self.bind(namespace, role, written.roles.get(role, NOWHERE), bindings)

    def bind(self, namespace: str, role: RoleKey, reached: Reach, bindings: Iterable[Binding]) -> tuple[Reach, Reach]:
        """From now on these are all bindings of a role in a namespace ("": everywhere). -> what it reached and reaches.

        Bindings to one role in one place count as one, so that a role of a thousand names is looked at once.
        """
        place = self._places[namespace]
        before = place.take(role)
        if reached == NOWHERE:
            return before, NOWHERE
        group = self._numbers_of(
            caller for each in bindings for subject in each.subjects for caller in self.callers.of(subject.key)
        )
        if not group:
            return before, NOWHERE
        number = self._group_numbers.setdefault(group, len(self._groups))
        if number == len(self._groups):
            self._groups.append(group)
        place.put(role, reached, number)
        return before, reached

    def access(self, namespace: str, name: str) -> Access:
        """Who may call the service, and how often; whether there is such a service or not."""
        terms, number = self._terms_of(namespace, name)
        cluster, here = (self._places.get(each, self._nothing) for each in ("", namespace))
        broad = (*cluster.broad.values(), *here.broad.values())
        named = (*cluster.named.get(name, _NO_GROUPS).values(), *here.named.get(name, _NO_GROUPS).values())
        found = self._found.get((number, broad, named))
        if found is None:
            base = self._base(terms, number, broad)
            found = self._found[number, broad, named] = self._more(terms, base, named) if named else base.access
        return found

    def _base(self, terms: _Terms, number: int, groups: tuple[int, ...]) -> _Base:
        """For services of which no role speaks by name."""
        found = self._bases.get((number, groups))
        if found is None:
            kept = self._masters.union(*(self._groups[each] for each in groups)) - self._shut_out(terms)
            found = self._equal.get((number, kept))
            if found is None:
                callers = tuple(sorted((self._numbered[each] for each in kept), key=order))
                access = Access(authentication=terms.authentication, callers=callers, limits=terms.limits)
                found = self._equal[number, kept] = _Base(access, kept)
            self._bases[number, groups] = found
        return found

    def _more(self, terms: _Terms, base: _Base, groups: tuple[int, ...]) -> Access:
        """What roles grant by name comes on top; ten thousand services may share a base of a thousand callers."""
        kept = frozenset[int]().union(*(self._groups[each] for each in groups)) - self._shut_out(terms) - base.callers
        if not kept:
            return base.access
        found = base.more.get(kept)
        if found is None:
            callers = list(base.access.callers)
            for each in kept:
                insort(callers, self._numbered[each], key=order)
            found = base.more[kept] = msgspec.structs.replace(base.access, callers=tuple(callers))
        return found

    def _numbers_of(self, callers: Iterable[Caller]) -> frozenset[int]:
        found = []
        for each in callers:
            number = self._numbers.get(each)
            if number is None:
                number = self._numbers[each] = len(self._numbered)
                self._numbered.append(each)
            found.append(number)
        return frozenset(found)

    def _shut_out(self, terms: _Terms) -> set[int]:
        """Who is not let in, whatever they are granted."""
        shut = self._shut[terms.authentication, terms.issuers]
        for number in range(shut.seen, len(self._numbered)):
            if not _lets_in(terms, self._numbered[number]):
                shut.callers.add(number)
        shut.seen = len(self._numbered)
        return shut.callers

    def _terms_of(self, namespace: str, name: str) -> tuple[_Terms, int]:
        """With a number, which is quicker to look up."""
        policies = self._policies.get(namespace)
        at = (namespace, name if policies.singles(name) else None) if policies else ("", None)
        found = self._terms_at.get(at)
        if found is None:
            terms = self._said(policies.about(name) if policies else ())
            found = self._terms_at[at] = terms, self._terms.setdefault(terms, len(self._terms))
        return found

    def _said(self, policies: tuple[Tightening, ...]) -> _Terms:
        said = [each.authentication for each in policies if each.authentication is not None]
        return _Terms(
            authentication=tightening.authentication(said, self._standing),
            issuers=tightening.issuers(policies),
            limits=tightening.counted(tightening.in_order(policies), self.callers),
        )


def _lets_in(terms: _Terms, caller: Caller) -> bool:
    if terms.authentication == "none":
        return False  # there is nobody to name
    if caller == ANONYMOUS:
        return terms.authentication == "optional"
    return terms.issuers is None or caller.issuer in terms.issuers


class _Policies:
    """The AccessPolicies of a namespace, by the services that they name; those for all services are few."""

    def __init__(self, policies: Iterable[Tightening]) -> None:
        ordered = tightening.in_order(policies)
        self._general = tightening.folded([each for each in ordered if each.services is None])
        named: dict[str, list[Tightening]] = defaultdict(list)
        for each in ordered:
            for name in each.services or ():
                named[name].append(each)
        self._named = {name: (*self._general, *found) for name, found in named.items()}

    def singles(self, name: str) -> bool:
        """Whether any of them names the service."""
        return name in self._named

    def about(self, name: str) -> tuple[Tightening, ...]:
        """What holds for a service."""
        return self._named.get(name, self._general)

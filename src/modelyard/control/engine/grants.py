"""Who may call each service, kept up to date: what grants is followed, and turned round at once for all services."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from modelyard.api.access import AccessPolicy
from modelyard.control.ir.access import Access
from modelyard.control.ir.platform import Platform
from modelyard.control.ir.values import Key
from modelyard.control.kube.reflector import Reflector
from modelyard.control.kube.resources import (
    CLUSTERROLEBINDINGS,
    CLUSTERROLES,
    ROLEBINDINGS,
    ROLES,
    SERVICEACCOUNTS,
)
from modelyard.control.plan.grants import NOWHERE, AccessTable, Reach, Written, reach
from modelyard.control.plan.platform import Standing
from modelyard.control.plan.rbac import Binding, Role, RoleKey
from modelyard.control.plan.tightening import Tightening

log = logging.getLogger(__name__)
Object = dict[str, Any]
Place = tuple[str, str]
_Bound = tuple[str, RoleKey]
"""A role, and the namespace in which it is bound ("": everywhere)."""
T = TypeVar("T")
NOBODY = Access()
_MOST_CHANGES = 5000
"""So many are taken up one by one; what they leave in memory is forgotten when everything is turned round."""


class Grants:
    """Follows roles, bindings, ServiceAccounts, AccessPolicies and the standing of the platform.

    Nobody may call anything before all of it is known: `renew` was called after everything was read, and `stand`. What
    cannot be read grants nothing. changed: something was written down.
    """

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.standing: Standing | None = None
        self._table: AccessTable | None = None
        self._is_old = True
        self._changes = 0
        self._rebound: set[_Bound] = set()
        self._roles: dict[RoleKey, Reach] = {}
        self._bindings: dict[Place, Binding] = {}
        self._bound: dict[RoleKey, dict[str, dict[Place, Binding]]] = {}
        self._accounts: dict[str, dict[str, str]] = defaultdict(dict)
        self._policies: dict[str, dict[str, Tightening]] = defaultdict(dict)

    @property
    def are_known(self) -> bool:
        """Whether what `access` answers is the truth."""
        return self._table is not None

    @property
    def are_stale(self) -> bool:
        """Whether what `access` answers is no longer what is written down."""
        return self._is_old or bool(self._rebound)

    def follow(self, reflectors: Mapping[str, Reflector]) -> None:
        """Take over what these hear from now on, by kind."""
        takers: dict[str, Callable[[Place, Object | None], None]] = {
            ROLES.kind: self.put_role,
            CLUSTERROLES.kind: self.put_role,
            ROLEBINDINGS.kind: self.put_binding,
            CLUSTERROLEBINDINGS.kind: self.put_binding,
            SERVICEACCOUNTS.kind: self.put_account,
        }
        for kind, taker in takers.items():
            reflectors[kind].add_handler(_handler(taker))

    def stand(self, standing: Standing) -> None:
        """What holds for the platform from now on."""
        if standing != self.standing:
            self.standing = standing
            self._mark()

    def put_policy(self, key: Key, policy: AccessPolicy | None, stored: Object | None) -> None:
        """Take over an AccessPolicy. policy None although it is stored: it cannot be read."""
        here = self._policies[key.namespace]
        before = here.pop(key.name, None)
        if policy is not None:
            here[key.name] = Tightening.of(policy)
        elif stored is not None:
            spec = stored.get("spec")
            here[key.name] = Tightening.unreadable(key.name, spec.get("services") if isinstance(spec, dict) else None)
        if here.get(key.name) != before:
            self._mark()

    def renew(self) -> set[Place] | None:
        """Take up what is written down now. -> the services whose access may have changed, None: any.

        Names are "" for all of a namespace. A few bindings and roles are taken up one by one, else everything at once.
        """
        table, self._table = self._table, None  # what ends in the middle leaves nobody in
        rebound, self._rebound = self._rebound, set()
        self._changes += len(rebound)
        if table is None or self._is_old or self._changes > _MOST_CHANGES:
            self._is_old, self._changes = False, 0
            self._table = self._made()
            return None
        concerned: set[Place] = set()
        for namespace, role in rebound:
            bindings = self._bound.get(role, {}).get(namespace, {}).values()
            for each in table.bind(namespace, role, self._roles.get(role, NOWHERE), bindings):
                concerned.update((namespace, name) for name in each.names)
                if each.everywhere:
                    concerned.add((namespace, ""))
        self._table = table
        return None if any(not namespace for namespace, _ in concerned) else concerned

    def _made(self) -> AccessTable | None:
        if self.standing is None:
            return None
        return AccessTable(
            Written(
                standing=self.standing,
                roles=self._roles,
                bindings=self._bindings.values(),
                accounts=self._accounts,
                policies={namespace: tuple(found.values()) for namespace, found in self._policies.items()},
            )
        )

    @property
    def platform(self) -> Platform | None:
        """What the gateway must know, besides routes."""
        if self.standing is None:
            return None
        uids = tuple(sorted(uid for here in self._accounts.values() for uid in here.values()))
        return msgspec.structs.replace(self.standing.platform, accounts=uids)

    def access(self, key: Key) -> Access:
        """Who may call a service, as of the latest `renew`."""
        return NOBODY if self._table is None else self._table.access(key.namespace, key.name)

    def put_role(self, place: Place, body: Object | None) -> None:
        """Take over a Role, or a ClusterRole where the namespace is ""; None: it is gone."""
        key = RoleKey(*place)
        role = _read(Role.of, body)
        new = reach(role.rules) if role else NOWHERE
        if new == self._roles.get(key, NOWHERE):
            return
        self._roles[key] = new
        if new == NOWHERE:
            del self._roles[key]
        self._rebind((namespace, key) for namespace in self._bound.get(key, {}))

    def put_binding(self, place: Place, body: Object | None) -> None:
        """Take over a RoleBinding or ClusterRoleBinding in the same way."""
        old = self._bindings.pop(place, None)
        new = _read(Binding.of, body)
        if old is not None:
            self._forget(place, old)
        if new is not None:
            self._bindings[place] = new
            self._bound.setdefault(new.role, {}).setdefault(new.namespace, {})[place] = new
        if new != old:
            self._rebind((each.namespace, each.role) for each in (old, new) if each and each.role in self._roles)

    def put_account(self, place: Place, body: Object | None) -> None:
        """Take over a ServiceAccount; one that is being deleted is gone."""
        namespace, name = place
        here = self._accounts[namespace]
        old = here.pop(name, None)
        if body is not None and "deletionTimestamp" not in body["metadata"]:
            here[name] = body["metadata"]["uid"]
        if here.get(name) == old:
            return
        if self._table is None or self._table.callers.looked_at(*place):
            self._mark()
        self.changed.set()

    def _forget(self, place: Place, binding: Binding) -> None:
        bound = self._bound[binding.role]
        del bound[binding.namespace][place]
        if not bound[binding.namespace]:
            del bound[binding.namespace]
        if not bound:
            del self._bound[binding.role]

    def _rebind(self, bound: Iterable[_Bound]) -> None:
        before = len(self._rebound)
        self._rebound.update(bound)
        if len(self._rebound) > before:
            self.changed.set()
        if self._is_old:
            self._rebound.clear()  # everything is turned round anyway; while nobody decides, nobody takes them up

    def _mark(self) -> None:
        self._is_old = True
        self.changed.set()


def _handler(taker: Callable[[Place, Object | None], None]) -> Callable[[Place, Object | None, Object | None], None]:
    return lambda place, _old, new: taker(place, new)


def _read(read: Callable[[Object], T], body: Object | None) -> T | None:
    """Nothing, for what is gone or makes no sense."""
    if body is None:
        return None
    try:
        return read(body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        at = body.get("metadata") or {}
        place = f"{at.get('namespace') or ''}/{at.get('name')}".lstrip("/")
        log.warning("%s %s cannot be read and grants nothing: %r", body.get("kind"), place, error)
        return None

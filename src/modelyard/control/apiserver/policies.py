"""The roles, bindings and ServiceAccounts of a store, in memory and never older than what a writer was told."""

from typing import Any

import msgspec

from modelyard.control.apiserver.database import Event, Key, Range
from modelyard.control.apiserver.kinds import RBAC
from modelyard.control.apiserver.store import Store
from modelyard.control.apiserver.tokens import Account
from modelyard.control.plan.rbac import Binding, Policy, Role, RoleKey

Object = dict[str, Any]
_ROLES = (f"roles.{RBAC}", f"clusterroles.{RBAC}")
_BINDINGS = (f"rolebindings.{RBAC}", f"clusterrolebindings.{RBAC}")
_ACCOUNTS = "serviceaccounts"


class Policies:
    """Follows a store from `follow` on."""

    def __init__(self) -> None:
        self.policy = Policy()
        self._accounts: dict[tuple[str, str], str] = {}
        self._follows = False

    async def follow(self, store: Store) -> None:
        """Read everything; later changes are taken over before their writers are answered. Call it before any write."""
        if not self._follows:  # a server may try several addresses
            store.observe(self._changed)
            self._follows = True
        roles = [Role.of(body) for each in _ROLES for _, body in await _all(store, each)]
        bindings = [Binding.of(body) for each in _BINDINGS for _, body in await _all(store, each)]
        self.policy = Policy.of(roles, bindings)
        for key, body in await _all(store, _ACCOUNTS):
            self._put_account(key, body)

    def uid(self, namespace: str, name: str) -> str | None:
        """Of a ServiceAccount; None when there is none, or when it is being deleted."""
        return self._accounts.get((namespace, name)) or None

    def exists(self, account: Account) -> bool:
        """Whether it is still the same one."""
        return self.uid(account.namespace, account.name) == account.uid

    def _changed(self, event: Event) -> None:
        key, gone = event.key, event.type == "DELETED"
        if key.resource in _ROLES:
            role = None if gone else Role.of(msgspec.json.decode(event.body))
            self.policy = self.policy.with_role(RoleKey(key.namespace, key.name), role)
        elif key.resource in _BINDINGS:
            binding = None if gone else Binding.of(msgspec.json.decode(event.body))
            self.policy = self.policy.with_binding(key.namespace, key.name, binding)
        elif key.resource == _ACCOUNTS and gone:
            self._accounts.pop((key.namespace, key.name), None)
        elif key.resource == _ACCOUNTS:
            self._put_account(key, msgspec.json.decode(event.body))

    def _put_account(self, key: Key, body: Object) -> None:
        gone = "deletionTimestamp" in body["metadata"]
        self._accounts[key.namespace, key.name] = "" if gone else body["metadata"]["uid"]


async def _all(store: Store, resource: str) -> list[tuple[Key, Object]]:
    return [(each.key, msgspec.json.decode(each.body)) for each in (await store.page(Range(resource))).items]

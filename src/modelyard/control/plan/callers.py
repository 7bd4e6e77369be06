"""Subjects of roles -> Callers: which tokens somebody of that name may bear.

The prefix of an issuer decides that a name is its; names of the system are the built-in ones of Kubernetes; all others
are of our own issuer. Nobody is meant by a name that no issuer can have given.
"""

from collections.abc import Callable, Iterable, Mapping

from modelyard.control.ir.access import ANONYMOUS, Caller, Claim, Subject
from modelyard.control.ir.platform import ACCOUNT_UID, ACCOUNTS, OWN, Issuer
from modelyard.control.plan import rbac
from modelyard.control.plan.rbac import SubjectKey

Accounts = Mapping[str, Mapping[str, str]]
NOBODY: tuple[Caller, ...] = ()
_SYSTEM = "system:"
_ALL_ACCOUNTS = "system:serviceaccounts"


def order(caller: Caller) -> tuple[str, tuple[Claim, ...]]:
    """The order of callers in an Access."""
    return caller.issuer, caller.claims


class Callers:
    """For these issuers and ServiceAccounts. accounts: uids by name in each namespace.

    accounts may change later, apart from those that were `looked_at`.
    """

    def __init__(self, issuers: Iterable[Issuer], accounts: Accounts) -> None:
        self._issuers = {each.name: each for each in issuers}
        self._outside = [each for each in self._issuers.values() if each.prefix]
        self._accounts = accounts
        self._found: dict[SubjectKey, tuple[Caller, ...]] = {}

    def of(self, key: SubjectKey) -> tuple[Caller, ...]:
        """Who is meant, sorted; the same object for the same key."""
        found = self._found.get(key)
        if found is None:
            is_group, name = key
            found = self._found[key] = self._group(name) if is_group else self._user(name)
        return found

    def looked_at(self, namespace: str, name: str) -> bool:
        """Whether any answer so far depended on this ServiceAccount."""
        groups = rbac.account_groups(namespace)
        return (False, rbac.account_name(namespace, name)) in self._found or (True, groups[1]) in self._found

    def masters(self) -> tuple[Caller, ...]:
        """Who may do everything, whatever is written down."""
        return self.of((True, rbac.MASTERS))

    def users(self) -> tuple[Subject, ...]:
        """Where the tokens of each issuer say who bears them."""
        return tuple(Subject(issuer=each.name, path=each.username) for _, each in sorted(self._issuers.items()))

    def _user(self, name: str) -> tuple[Caller, ...]:
        if name == rbac.ANONYMOUS:
            return (ANONYMOUS,)
        if name.startswith(_SYSTEM):
            account = rbac.account_of(name)
            return self._account(account) if account else NOBODY
        return self._named(name, lambda issuer, rest: Claim(path=issuer.username, value=rest))

    def _group(self, name: str) -> tuple[Caller, ...]:
        if name == rbac.AUTHENTICATED:
            return tuple(sorted((_caller(each) for each in self._issuers.values()), key=order))
        if name == rbac.UNAUTHENTICATED:
            return (ANONYMOUS,)
        if name == _ALL_ACCOUNTS:
            return (_caller(self._issuers[ACCOUNTS]),) if ACCOUNTS in self._issuers else NOBODY
        if name.startswith(f"{_ALL_ACCOUNTS}:"):
            return self._accounts_in(name.removeprefix(f"{_ALL_ACCOUNTS}:"))
        if name.startswith(_SYSTEM) and name != rbac.MASTERS:
            return NOBODY
        return self._named(name, lambda issuer, rest: Claim(path=issuer.groups, value=rest, listed=True))

    def _named(self, name: str, claim: Callable[[Issuer, str], Claim]) -> tuple[Caller, ...]:
        """By the issuer whose prefix it is, or our own one, which gives no names with a colon."""
        is_system = name.startswith(_SYSTEM)
        issuer = None if is_system else next((each for each in self._outside if name.startswith(each.prefix)), None)
        if issuer is None:
            issuer = self._issuers.get(OWN) if is_system or ":" not in name else None
        rest = name.removeprefix(issuer.prefix) if issuer else ""
        return (_caller(issuer, claim(issuer, rest)),) if issuer and rest else NOBODY

    def _account(self, account: tuple[str, str]) -> tuple[Caller, ...]:
        namespace, name = account
        uid, issuer = self._accounts.get(namespace, {}).get(name), self._issuers.get(ACCOUNTS)
        if not uid or issuer is None:
            return NOBODY
        user = Claim(path=issuer.username, value=rbac.account_name(namespace, name))
        return (_caller(issuer, user, Claim(path=ACCOUNT_UID, value=uid)),)

    def _accounts_in(self, namespace: str) -> tuple[Caller, ...]:
        """Each one there is: a token of one that is gone would still name the namespace."""
        names = self._accounts.get(namespace, {})
        found = (caller for name in names for caller in self._account((namespace, name)))
        return tuple(sorted(found, key=order))


def _caller(issuer: Issuer, *claims: Claim) -> Caller:
    """Where users choose their names, a token counts only if the issuer has verified them."""
    verified = (Claim(path=issuer.verified, value=True),) if issuer.verified else ()
    return Caller(issuer=issuer.name, claims=(*claims, *verified))

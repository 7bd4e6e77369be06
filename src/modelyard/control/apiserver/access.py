"""Who calls, and whether they may: authentication, impersonation, authorization and what may be granted to others.

Source: k8s.io/apiserver pkg/endpoints/request/requestinfo.go and filters/{authorization,impersonation}.go,
k8s.io/kubernetes pkg/registry/rbac/{clusterrole,rolebinding}/policybased.
"""

import hmac
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from multidict import CIMultiDictProxy

from modelyard.base.clock import Clock
from modelyard.control.apiserver import status
from modelyard.control.apiserver.kinds import RBAC
from modelyard.control.apiserver.lifecycle import is_namespace
from modelyard.control.apiserver.policies import Policies
from modelyard.control.apiserver.requests import Target
from modelyard.control.apiserver.status import StatusError
from modelyard.control.apiserver.tokens import Account, Tokens
from modelyard.control.apiserver.values import same
from modelyard.control.plan import rbac
from modelyard.control.plan.rbac import Ask, RoleKey, Rule, User

Object = dict[str, Any]
Headers = CIMultiDictProxy[str]
Guard = Callable[[Object, Object | None], None]
OWNER = User("owner", (rbac.MASTERS, rbac.AUTHENTICATED))
"""Who bears the token of the kubeconfig in the data folder."""
_EXACT_NAME = re.compile(r"metadata\.name==?([-a-z0-9.:_A-Z]+)")
_SHOWN_RULES = 10


@dataclass(frozen=True, slots=True)
class Caller:
    """user: whom the request speaks for. account: whose token it bore, valid until `expires` (seconds since 1970).

    speaker: who impersonates the user, and may do so as long as `needs` are allowed.
    """

    user: User
    account: Account | None = None
    expires: float = 0.0
    speaker: User = OWNER
    needs: tuple[Ask, ...] = ()


class Access:
    """Answers for one server. token: the owner's."""

    def __init__(self, token: str, tokens: Tokens, policies: Policies, clock: Clock) -> None:
        self._token = token.encode()
        self._tokens = tokens
        self._policies = policies
        self._clock = clock

    def caller(self, headers: Headers) -> Caller:
        """Who sent a request with these headers. Raises StatusError 401, or 403 for an impersonation."""
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        given = token.strip().encode(errors="surrogateescape")
        if scheme.lower() != "bearer":
            raise status.unauthorized()
        found = Caller(OWNER) if hmac.compare_digest(given, self._token) else self._account(given)
        return self._impersonated(found, headers)

    def _account(self, token: bytes) -> Caller:
        claims = self._tokens.read(token.decode(errors="replace"))
        if claims is None or not self._policies.exists(claims.account):
            raise status.unauthorized()
        account = claims.account
        groups = (*rbac.account_groups(account.namespace), rbac.AUTHENTICATED)
        extra = (("authentication.kubernetes.io/credential-id", (f"JTI={claims.id}",)),)
        user = User(rbac.account_name(account.namespace, account.name), groups, account.uid, extra)
        return Caller(user, account, claims.expires)

    def still(self, caller: Caller, ask: Ask) -> bool:
        """Whether a request that was allowed, and goes on, would be allowed now."""
        if caller.account is not None and not (
            self._clock.now() < caller.expires and self._policies.exists(caller.account)
        ):
            return False
        return self.decide(caller.user, ask).allowed and all(
            self.decide(caller.speaker, each).allowed for each in caller.needs
        )

    def decide(self, user: User, ask: Ask) -> rbac.Decision:
        """Whether a user may do something."""
        return self._policies.policy.decide(user, ask)

    def rules(self, user: User, namespace: str) -> tuple[Rule, ...]:
        """What a user may do in a namespace."""
        return self._policies.policy.rules_for(user, namespace)

    def require(self, user: User, ask: Ask) -> None:
        """Raises StatusError 403 unless the user may do it."""
        if not self.decide(user, ask).allowed:
            raise status.denied(ask.group, "" if ask.path else ask.resource, ask.name, _refusal(user, ask))

    def guard(self, caller: Caller, target: Target) -> Guard | None:
        """What a write of a role or binding must pass: nobody grants what they do not hold."""
        if target.kind.group != RBAC or rbac.MASTERS in caller.user.groups:
            return None
        check = self._check_binding if target.kind.kind.endswith("Binding") else self._check_role
        return partial(check, caller.user, target)

    def _check_role(self, user: User, target: Target, new: Object, old: Object | None) -> None:
        if old is not None and same(new.get("rules") or [], old.get("rules") or []):
            return
        namespace, kind = target.namespace or "", target.kind
        ask = Ask(verb="escalate", namespace=namespace, group=RBAC, resource=kind.plural, name=target.name or "")
        if not self.decide(user, ask).allowed:
            name = new["metadata"]["name"]
            self._refuse_more(user, namespace, tuple(map(Rule.of, new.get("rules") or ())), (kind.plural, name))

    def _check_binding(self, user: User, target: Target, new: Object, old: Object | None) -> None:
        if old is not None and same(new.get("subjects") or [], old.get("subjects") or []):
            return
        namespace, reference = target.namespace or "", new["roleRef"]
        role = RoleKey(namespace if reference["kind"] == "Role" else "", reference["name"])
        plural = f"{reference['kind'].lower()}s"
        ask = Ask(verb="bind", namespace=namespace, group=RBAC, resource=plural, name=role.name)
        if self.decide(user, ask).allowed:
            return
        rules = self._policies.policy.rules_of(role)
        if rules is None:
            details = {"name": role.name, "group": RBAC, "kind": plural}
            raise StatusError(404, "NotFound", f'{plural}.{RBAC} "{role.name}" not found', details)
        self._refuse_more(user, namespace, rules, (target.kind.plural, new["metadata"]["name"]))

    def _refuse_more(self, user: User, namespace: str, rules: tuple[Rule, ...], written: tuple[str, str]) -> None:
        missing = rbac.not_held(self.rules(user, namespace), rules)
        if missing:
            shown = "\n".join(json.dumps(rule.body()) for rule in missing[:_SHOWN_RULES])
            groups = json.dumps(list(user.groups))
            message = (
                f'user "{user.name}" (groups={groups}) is attempting to grant RBAC permissions not currently held:\n'
                f"{shown}"
            )
            raise status.denied(RBAC, *written, message)

    def _impersonated(self, caller: Caller, headers: Headers) -> Caller:
        wanted = headers.get("Impersonate-User", "")
        groups, uid = headers.getall("Impersonate-Group", []), headers.get("Impersonate-Uid", "")
        if not all(
            each.isprintable() for each in (wanted, uid, *groups)
        ):  # surrogates stand for bytes that are no UTF-8
            raise status.bad_request("Impersonate-...: expected names in UTF-8 without control characters")
        if any(each.lower().startswith("impersonate-extra-") for each in headers):
            raise status.bad_request("Impersonate-Extra-...: not supported; leave --as-user-extra out")
        if not wanted:
            if groups or uid or "Impersonate-User" in headers:
                raise status.bad_request("Impersonate-Group and Impersonate-Uid need Impersonate-User")
            return caller
        needs = tuple(_impersonations(wanted, groups, uid))
        for ask in needs:
            self.require(caller.user, ask)
        self._refuse_system(caller.user, wanted, groups)
        account = rbac.account_of(wanted)
        if account is not None and not groups:
            groups = list(rbac.account_groups(account[0]))
        always = rbac.UNAUTHENTICATED if wanted == rbac.ANONYMOUS else rbac.AUTHENTICATED
        if not {rbac.AUTHENTICATED, rbac.UNAUTHENTICATED} & set(groups):
            groups = [*groups, always]
        user = User(wanted, tuple(dict.fromkeys(groups)), uid)
        return replace(caller, user=user, speaker=caller.user, needs=needs)

    def _refuse_system(self, user: User, wanted: str, groups: list[str]) -> None:
        """Names of the system stand for rights of their own: only the owner may take them."""
        if rbac.MASTERS in user.groups:
            return
        account = rbac.account_of(wanted)
        own = {rbac.AUTHENTICATED, *(rbac.account_groups(account[0]) if account else ())}
        taken = [each for each in groups if each.startswith("system:") and each not in own]
        if wanted.startswith("system:") and account is None:
            taken.append(wanted)
        if taken:
            message = f'User "{user.name}" cannot impersonate {taken[0]!r}: names of the system are for the owner'
            raise status.denied("", "users", wanted, message)


def _impersonations(user: str, groups: list[str], uid: str) -> list[Ask]:
    account = rbac.account_of(user)
    found = (
        Ask(verb="impersonate", resource="users", name=user)
        if account is None
        else Ask(verb="impersonate", resource="serviceaccounts", namespace=account[0], name=account[1])
    )
    return [
        found,
        *(Ask(verb="impersonate", resource="groups", name=each) for each in groups),
        *([Ask(verb="impersonate", group="authentication.k8s.io", resource="uids", name=uid)] if uid else ()),
    ]


def path_ask(method: str, path: str) -> Ask:
    """What a request asks for whose path is no resource."""
    return Ask(verb="get" if method == "HEAD" else method.lower(), path=path)


def resource_ask(verb: str, target: Target, query: Mapping[str, str]) -> Ask:
    """What a request for a resource asks for; verb "watch" for a list that goes on."""
    kind, name = target.kind, target.name or ""
    if not name and verb in ("list", "watch", "deletecollection"):
        name = _selected(query.get("fieldSelector", ""))
    namespace = name if is_namespace(kind) else target.namespace or ""
    return Ask(
        verb=verb,
        namespace=namespace,
        group=kind.group,
        resource=kind.plural,
        subresource=target.subresource,
        name=name,
    )


def _selected(selector: str) -> str:
    """The only name that a selector lets through; empty when there may be others."""
    if "\\" in selector:
        return ""
    found = (_EXACT_NAME.fullmatch(each) for each in selector.split(","))
    return next((each[1] for each in found if each), "")


def _refusal(user: User, ask: Ask) -> str:
    if ask.path:
        return f'User "{user.name}" cannot {ask.verb} path "{ask.path}"'
    resource = f"{ask.resource}/{ask.subresource}" if ask.subresource else ask.resource
    where = f'in the namespace "{ask.namespace}"' if ask.namespace else "at the cluster scope"
    return f'User "{user.name}" cannot {ask.verb} resource "{resource}" in API group "{ask.group}" {where}'

"""Questions about rights and identities, and requests for tokens: answered at once, never stored.

Source: k8s.io/kubernetes pkg/registry/authorization and pkg/registry/core/serviceaccount/storage/token.go.
"""

from typing import Any

from modelyard.base.clock import timestamp
from modelyard.control.apiserver import status
from modelyard.control.apiserver.access import Access
from modelyard.control.apiserver.kinds import TOKEN_REQUEST, Kind
from modelyard.control.apiserver.policies import Policies
from modelyard.control.apiserver.status import Cause
from modelyard.control.apiserver.tokens import AUDIENCE, Account, Tokens
from modelyard.control.plan.rbac import Ask, User

Object = dict[str, Any]
_SECONDS = 3600
_LEAST_SECONDS, _MOST_SECONDS = 600, 365 * 86400
_MOST_AUDIENCES = 20


class Reviews:
    """Answers for one server."""

    def __init__(self, access: Access, policies: Policies, tokens: Tokens) -> None:
        self._access = access
        self._policies = policies
        self._tokens = tokens

    def answer(self, kind: Kind, namespace: str | None, asked: Object, user: User) -> Object:
        """The question with its answer. asked: an admitted body; user: who asks. Raises StatusError 422."""
        spec = asked.get("spec") or {}
        match kind.kind:
            case "SelfSubjectReview":
                return {**asked, "status": {"userInfo": _user_info(user)}}
            case "SelfSubjectRulesReview":
                return {**asked, "spec": spec, "status": self._rules(spec, user)}
            case "SelfSubjectAccessReview":
                about = user
            case _:
                about = _somebody(kind, spec)
        ask = _asked(kind, spec)
        if namespace is not None and ask.namespace != namespace:
            detail = "must be the namespace of the request"
            raise status.invalid(kind, "", [Cause.invalid("spec.resourceAttributes.namespace", ask.namespace, detail)])
        decision = self._access.decide(about, ask)
        return {**asked, "status": {"allowed": decision.allowed, "reason": decision.reason}}

    def token(self, namespace: str, name: str, asked: Object, *, dry_run: bool) -> Object:
        """The request with a token of the ServiceAccount. Raises StatusError 422, and 409 when the account is gone."""
        spec = asked.get("spec") or {}
        audiences, seconds = spec.get("audiences") or [], spec.get("expirationSeconds", _SECONDS)
        causes = list(_token_faults(spec, audiences, seconds))
        if causes:
            raise status.invalid(TOKEN_REQUEST, name, causes)
        uid = self._policies.uid(namespace, name)
        if uid is None:
            raise status.conflict(TOKEN_REQUEST, name, "the ServiceAccount is being deleted")
        token, expires = self._tokens.issue(Account(namespace, name, uid), audiences, seconds)
        return {
            **asked,
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"audiences": audiences or [AUDIENCE], "expirationSeconds": seconds},
            "status": {"token": "" if dry_run else token, "expirationTimestamp": timestamp(expires)},
        }

    def _rules(self, spec: Object, user: User) -> Object:
        namespace = spec.get("namespace", "")
        if not namespace:
            raise status.bad_request("no namespace on request")
        rules = [rule.body() for rule in self._access.rules(user, namespace)]
        return {
            "resourceRules": [rule for rule in rules if "nonResourceURLs" not in rule],
            "nonResourceRules": [rule for rule in rules if "nonResourceURLs" in rule],
            "incomplete": False,
        }


def _user_info(user: User) -> Object:
    found: Object = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        found["uid"] = user.uid
    if user.extra:
        found["extra"] = {key: list(values) for key, values in user.extra}
    return found


def _somebody(kind: Kind, spec: Object) -> User:
    if not spec.get("user") and not spec.get("groups"):
        raise status.invalid(
            kind, "", [Cause.invalid("spec.user", "", "at least one of user or group must be specified")]
        )
    return User(spec.get("user", ""), tuple(spec.get("groups") or ()), spec.get("uid", ""))


def _asked(kind: Kind, spec: Object) -> Ask:
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if path is None and resource is not None:
        keys = ("verb", "namespace", "group", "resource", "subresource", "name")
        return Ask(**{key: resource.get(key, "") for key in keys})
    if path is None or resource is not None:
        detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        raise status.invalid(kind, "", [Cause.invalid("spec.resourceAttributes", "object", detail)])
    if not path.get("path"):
        raise status.invalid(kind, "", [Cause.required("spec.nonResourceAttributes.path")])
    return Ask(verb=path.get("verb", ""), path=path["path"])


def _token_faults(spec: Object, audiences: list[str], seconds: int) -> list[Cause]:
    found = []
    if not _LEAST_SECONDS <= seconds <= _MOST_SECONDS:
        detail = "must be at least 10 minutes" if seconds < _LEAST_SECONDS else "must be at most 365 days"
        found.append(Cause.invalid("spec.expirationSeconds", seconds, detail))
    if "boundObjectRef" in spec:
        found.append(Cause.forbidden("spec.boundObjectRef", "tokens are bound to their ServiceAccount only"))
    if len(audiences) > _MOST_AUDIENCES:
        found.append(Cause.too_many("spec.audiences", len(audiences), _MOST_AUDIENCES))
    elif any(not each or len(each) > 256 for each in audiences):
        found.append(Cause.invalid("spec.audiences", audiences, "each must have 1 to 256 characters"))
    return found

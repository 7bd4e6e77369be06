"""Whose tokens are believed, who is turned away at once, and who may call a model: in Envoy's words.

`recognize` and `authenticate` (jwt_authn) refuse nobody: they verify a token and keep the claims under the name of its
issuer, so that equal claims of another issuer never match. `identify` tells the log who that is. `doorman` (RBAC) turns
away whom no route could admit, before anything is kept of the request. `allow` (RBAC) denies all that a scope does not
allow. All are sent apart from the listener, so that a change of keys or settings keeps all connections.

Two ways that open what should be shut, and are not taken here: an RBACPerRoute without rules lets everybody in, and
so does a policy with `checked_condition`.
Source: Envoy API v3 (jwt_authn/v3/config.proto, rbac/v3/rbac.proto).
"""

from functools import lru_cache
from itertools import groupby
from typing import Any

from modelyard.control.ir.access import Access, Caller, Claim
from modelyard.control.ir.platform import ACCOUNT_UID, ACCOUNTS, OWN, Issuer, Platform
from modelyard.control.render import xds_grpc, xds_log, xds_visibility
from modelyard.control.render.part import Part
from modelyard.wire import jwks

Json = dict[str, Any]

RECOGNIZE, AUTHENTICATE, IDENTIFY, DOORMAN, ALLOW = "recognize", "authenticate", "identify", "doorman", "allow"
EXTENSIONS = (RECOGNIZE, AUTHENTICATE, IDENTIFY, DOORMAN, ALLOW)
"""Names of the filters, in their order."""
REVOKED, GONE, FOREIGN, ANONYMOUS = "revoked", "gone", "foreign", "anonymous"
"""Policies of the doorman; the details of its answers name them."""

METADATA = "envoy.filters.http.jwt_authn"
"""Where jwt_authn keeps what it finds, whatever the filter is called."""
TOKEN, FAILED = "_token", "_failed"
"""Beside the claims: the header of a token that is in order, and why another one is not. No issuer is called so."""
UNKNOWN_KEYS = "http.gateway.rbac.unknown_key.shadow_denied"
"""A counter of Envoy: tokens of an issuer that name a key which it does not have, as far as is known."""
TOKEN_HEADERS = ("authorization", "x-api-key")
KEYS_PATH = "/.well-known/jwks.json"
OPEN_PATHS = ("/v2", "/v2/", "/v2/models", "/v2/health/live", "/v2/health/ready", KEYS_PATH)
"""They tell nothing about a model that not everybody may call."""

_TYPE = "type.googleapis.com/"
JWT_AUTHN = f"{_TYPE}envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
RBAC = f"{_TYPE}envoy.extensions.filters.http.rbac.v3.RBAC"
_RBAC_PER_ROUTE = f"{_TYPE}envoy.extensions.filters.http.rbac.v3.RBACPerRoute"
TYPES = {RECOGNIZE: JWT_AUTHN, AUTHENTICATE: JWT_AUTHN, IDENTIFY: xds_log.SET_FILTER_STATE, DOORMAN: RBAC, ALLOW: RBAC}

_UNKNOWN_KEY = "Jwks doesn't have key to match kid or alg from Jwt"  # in Envoy's words
_CACHED_TOKENS = 1000  # per issuer and thread; at most 4 KB each
# A loopback name or address, with any port: callers may come through a tunnel.
_LOOPBACK = r"(?i:localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?"
_ANY = {"any": True}
_NOBODY = {"permissions": [_ANY], "principals": [{"not_id": _ANY}]}
_EVERYBODY = {"permissions": [_ANY], "principals": [_ANY]}


def extensions(platform: Platform) -> dict[str, Json]:
    """What the filters named in EXTENSIONS do."""
    return {
        RECOGNIZE: _extension(RECOGNIZE, _recognize(platform)),
        AUTHENTICATE: _extension(AUTHENTICATE, _authenticate(platform)),
        IDENTIFY: _extension(IDENTIFY, xds_log.identify(_believed(platform), METADATA)),
        DOORMAN: _extension(DOORMAN, _doorman(platform)),
        ALLOW: _extension(ALLOW, _allow(platform)),
    }


def closed(name: str) -> Json:
    """What one of EXTENSIONS does when Envoy refuses what it should do: it believes nobody, or admits nobody."""
    if name in (RECOGNIZE, AUTHENTICATE, IDENTIFY):
        return _extension(name, {"@type": TYPES[name]})
    action = "DENY" if name == DOORMAN else "ALLOW"
    policies = {"closed": _EVERYBODY if name == DOORMAN else _NOBODY}
    return _extension(name, {"@type": RBAC, "rules": {"action": action, "policies": policies}})


def filter_config(name: str, discovery: Json) -> Json:
    """One of EXTENSIONS in the listener. Without a default, no request is served before it has arrived."""
    # A fetch that took long must not end in a filter that is not there.
    source = {**discovery, "initial_fetch_timeout": "0s"}
    return {"name": name, "config_discovery": {"config_source": source, "type_urls": [TYPES[name]]}}


@lru_cache(maxsize=1024)  # ten thousand services often have the same
def of_route(access: Access) -> Json:
    """What `allow` does in the scopes of a route. Not to be changed by who gets it."""
    if access.authentication == "none":
        return _per_route({"everybody": _EVERYBODY})
    callers = tuple(each for each in access.callers if each.issuer or access.authentication == "optional")
    if not callers:
        return _per_route({"nobody": _NOBODY})
    return _per_route({"callers": {"permissions": [_ANY], "principals": _principals(callers)}})


def everybody() -> Json:
    """What `allow` does for answers that everybody may have."""
    return _per_route({"everybody": _EVERYBODY})


def bears_token() -> Json:
    """A principal: whoever bears a token that is in order."""
    return _claimed((TOKEN, "alg"), {"present_match": True})


def _authenticate(platform: Platform) -> Json:
    providers = {each.name: _provider(each, _keys(each.keys)) for each in _believed(platform)}
    if not providers:
        return {"@type": JWT_AUTHN}
    # Not a list of providers: each would try every token, and say why tokens of the others are not its own.
    return {
        "@type": JWT_AUTHN,
        "providers": providers,
        "rules": [{"match": {"prefix": "/"}, "requires": {"allow_missing_or_failed": {}}}],
    }


def _recognize(platform: Platform) -> Json:
    """Envoy remembers verified tokens only of providers that it asks by name: a third of a request's cost.

    Here each tries every token, so nothing is told about failures; a token in order is taken away from `authenticate`,
    which looks at the others again.
    """
    providers = {each.name: _provider(each, _keys(each.keys)) for each in _believed(platform)}
    if not providers:
        return {"@type": JWT_AUTHN}
    for provider in providers.values():
        provider["forward"] = False
        del provider["failed_status_in_metadata"]
    tried: list[Json] = [{"provider_name": name} for name in providers]
    requirement = {"requires_any": {"requirements": [*tried, {"allow_missing_or_failed": {}}]}}
    return {
        "@type": JWT_AUTHN,
        "providers": providers,
        "rules": [{"match": {"prefix": "/"}, "requires": requirement}],
    }


def _believed(platform: Platform) -> tuple[Issuer, ...]:
    """Without keys an issuer's tokens cannot be verified; without audiences Envoy would believe those for others."""
    return tuple(each for each in platform.issuers if each.name and each.audiences and _keys(each.keys))


@lru_cache(maxsize=256)
def _keys(text: str) -> str:
    """Only keys with which nobody else can sign, whoever got them: Envoy would take symmetric ones. "" for none."""
    try:
        return jwks.read(text.encode()).text
    except (ValueError, UnicodeError):
        return ""


def _provider(issuer: Issuer, keys: str) -> Json:
    return {
        "issuer": issuer.url,
        "audiences": list(issuer.audiences),
        "require_expiration": True,
        "clock_skew_seconds": max(1, issuer.skew_seconds),  # 0 would mean 60
        "local_jwks": {"inline_string": keys},
        # Spelled with a prefix of its own each: Envoy minds the case.
        "from_headers": [
            {"name": "authorization", "value_prefix": "Bearer "},
            {"name": "authorization", "value_prefix": "bearer "},
            {"name": "x-api-key"},
        ],
        "forward": True,  # `limit` and the log come later; the route takes it away
        "payload_in_metadata": issuer.name,
        "header_in_metadata": TOKEN,
        "failed_status_in_metadata": FAILED,
        "jwt_cache_config": {"jwt_cache_size": _CACHED_TOKENS},
    }


def _doorman(platform: Platform) -> Json:
    policies: Json = {}
    if platform.revoked:
        revoked = _claimed((OWN, "jti"), _one_of(platform.revoked))
        policies[REVOKED] = {"permissions": [_ANY], "principals": [revoked]}
    if platform.accounts is not None:
        live = [_claimed((ACCOUNTS, *ACCOUNT_UID), _one_of(platform.accounts))] if platform.accounts else []
        gone = [{"not_id": each} for each in live]
        policies[GONE] = {"permissions": [_ANY], "principals": [{"and_ids": {"ids": [_anyone(ACCOUNTS), *gone]}}]}
    if platform.local_only:
        policies[FOREIGN] = {"permissions": [{"not_rule": _local()}], "principals": [_ANY]}
    elif platform.anonymous and platform.internal_is_local:
        # Where others may call by any name, the listener of this machine's own programs still wants to be called so.
        internal = {"header": xds_visibility.marked()}
        foreign = {"and_rules": {"rules": [internal, {"not_rule": _local()}]}}
        policies[FOREIGN] = {"permissions": [foreign], "principals": [_ANY]}
    if not platform.anonymous:
        paths = (*OPEN_PATHS, *(xds_grpc.path(method) for method in xds_grpc.SERVER_METHODS))
        exempt = [{"url_path": {"path": {"exact": each}}} for each in paths]
        about_models = {"not_rule": {"or_rules": {"rules": exempt}}}
        policies[ANONYMOUS] = {"permissions": [about_models], "principals": [{"not_id": bears_token()}]}
    return {"@type": RBAC, "rules": {"action": "DENY", "policies": policies}, **_counting(platform)}


def counts_unknown_keys(platform: Platform) -> bool:
    """Whether the counter UNKNOWN_KEYS says anything: the keys of built-in issuers are always known."""
    return not {each.name for each in platform.issuers} <= {OWN, ACCOUNTS}


def _counting(platform: Platform) -> Json:
    """Shadow rules turn nobody away, they count: an issuer whose keys are unknown may have new ones."""
    if not counts_unknown_keys(platform):
        return {}
    unknown = _claimed((FAILED, "message"), {"string_match": {"exact": _UNKNOWN_KEY}})
    policies = {"unknown-key": {"permissions": [_ANY], "principals": [unknown]}}
    return {"shadow_rules": {"action": "DENY", "policies": policies}, "shadow_rules_stat_prefix": "unknown_key."}


def _local() -> Json:
    """Without authentication only local programs may call: a web page elsewhere must not, DNS rebinding included."""
    host = _header(":authority", {"string_match": {"safe_regex": {"regex": _LOOPBACK}}})
    no_origin = _header("origin", {"present_match": True, "invert_match": True})
    own_origin = _header("origin", {"string_match": {"safe_regex": {"regex": f"https?://{_LOOPBACK}"}}})
    # What a page elsewhere lets a browser get has no Origin, and browsers say where it comes from.
    elsewhere = _header("sec-fetch-site", {"string_match": {"exact": "cross-site"}})
    by_origin = {"or_rules": {"rules": [no_origin, own_origin]}}
    return {"and_rules": {"rules": [host, by_origin, {"not_rule": elsewhere}]}}


def _allow(platform: Platform) -> Json:
    """For what no route answers: where no token is needed people get told so, elsewhere unknown is like forbidden."""
    policies = {"everybody": _EVERYBODY} if platform.authentication == "none" else {"nobody": _NOBODY}
    return {"@type": RBAC, "rules": {"action": "ALLOW", "policies": policies}}


def _principals(callers: tuple[Caller, ...]) -> list[Json]:
    """Callers of one claim in one place become one matcher with all the values: such lists are long."""
    single = sorted((each for each in callers if _is_simple(each)), key=_place)
    found: list[Json] = []
    for (issuer, path, listed), members in groupby(single, key=_place):
        values = tuple(str(each.claims[0].value) for each in members)
        found.append(_claimed((issuer, *path), _listed(_one_of(values)) if listed else _one_of(values)))
    return found + [_principal(each) for each in callers if not _is_simple(each)]


def _is_simple(caller: Caller) -> bool:
    return bool(caller.issuer) and len(caller.claims) == 1 and isinstance(caller.claims[0].value, str)


def _place(caller: Caller) -> tuple[str, tuple[str, ...], bool]:
    claim = caller.claims[0]
    return caller.issuer, claim.path, claim.listed


def _principal(caller: Caller) -> Json:
    if not caller.issuer:  # who bears no token claims nothing
        return {"not_id": _ANY if caller.claims else bears_token()}
    return {"and_ids": {"ids": [_anyone(caller.issuer), *(_makes(caller.issuer, each) for each in caller.claims)]}}


def _anyone(issuer: str) -> Json:
    return _claimed((issuer, "iss"), {"present_match": True})


def _makes(issuer: str, claim: Claim) -> Json:
    if isinstance(claim.value, bool):
        value: Json = {"bool_match": claim.value}
    else:
        value = _one_of((claim.value,))
    return _claimed((issuer, *claim.path), _listed(value) if claim.listed else value)


def _claimed(path: tuple[str, ...], value: Json) -> Json:
    matcher = {"filter": METADATA, "path": [{"key": each} for each in path], "value": value}
    return {"sourced_metadata": {"metadata_matcher": matcher}}


def _one_of(values: tuple[str, ...]) -> Json:
    each_of = [{"string_match": {"exact": each}} for each in values]
    return each_of[0] if len(each_of) == 1 else {"or_match": {"value_matchers": each_of}}


def _listed(value: Json) -> Json:
    return {"or_match": {"value_matchers": [value, {"list_match": {"one_of": value}}]}}


def _header(name: str, match: Json) -> Json:
    return {"header": {"name": name, **match}}


def _extension(name: str, config: Json) -> Json:
    return {"name": name, "typed_config": config}


def _per_route(policies: Json) -> Json:
    return Part({"@type": _RBAC_PER_ROUTE, "rbac": {"rules": {"action": "ALLOW", "policies": policies}}})

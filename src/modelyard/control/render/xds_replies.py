"""What Envoy says when it answers a request itself: `{"error": "<a sentence>"}` with the right status.

A gRPC call gets the same sentence as its message, and a status of gRPC (Envoy's own choice is 12 for HTTP's 404).
Source: Envoy, "Local reply modification"; response flags as in `%RESPONSE_FLAGS%`; gRPC, statuscodes.md.
"""

import re
from typing import Any, NamedTuple

from modelyard.control.render import xds_access, xds_grpc

Json = dict[str, Any]

_SEEN_PATH = "%REQ(:path):120%"


def mappers() -> list[Json]:
    """In order: what is known by a flag, what is known by its status, and the rest with the text it came with."""
    by_flag = [_Reply(_flags(flags), sentence, status, _retry(retry)) for flags, sentence, status, retry in _BY_FLAG]
    by_status = [_Reply(_status("EQ", status), sentence, status) for status, sentence in _BY_STATUS]
    # Our own answers for routes without backends come this way: their text is the sentence.
    rest = _Reply(_status("GE", 400), "%LOCAL_REPLY_BODY%")
    # Without memory Envoy sets no flag.
    full = _Reply(_by_details("overload"), _FULL, 503, _retry(1))
    replies = (*by_flag, full, *_of_access(), *by_status, rest)
    return [*_only_grpc(), *(_grpc_mapper(each) for each in replies), *(_mapper(each) for each in replies)]


class _Reply(NamedTuple):
    """An answer: when it is given, its sentence, the status if it is another one than Envoy's own, more headers."""

    matches: Json
    sentence: str
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    grpc_status: int = 0

    @property
    def of_grpc(self) -> int:
        return self.grpc_status or _GRPC_STATUS.get(self.status, 0)


def _of_access() -> tuple[_Reply, ...]:
    """Whom the filters of `xds_access` turned away. Source of the header: RFC 6750, section 3."""
    denied, bad = _by_policy(), _challenge("invalid_token")
    failed = "%DYNAMIC_METADATA(" + f"{xds_access.METADATA}:{xds_access.FAILED}:message)%"
    return (
        _Reply(_by_policy(xds_access.FOREIGN), _FOREIGN, 403),
        _Reply(_by_policy(xds_access.REVOKED), _REVOKED, 401, bad),
        _Reply(_by_policy(xds_access.GONE), _GONE, 401, bad),
        _Reply(_both(denied, _has(xds_access.TOKEN, "alg")), _NOT_ALLOWED, 403),
        _Reply(_both(denied, _has(xds_access.FAILED, "message")), _NO_GOOD.format(why=failed), 401, bad),
        _Reply(_both(denied, _brings_something()), _NO_GOOD.format(why=_OF_NOBODY), 401, bad),
        _Reply(denied, _TOKENLESS, 401, _challenge()),
        _Reply(_status("EQ", 429), _TOO_OFTEN, 429),
    )


def _brings_something() -> Json:
    headers = [_header(each, {"present_match": True}) for each in xds_access.TOKEN_HEADERS]
    return {"or_filter": {"filters": headers}}


def _challenge(error: str = "") -> tuple[tuple[str, str], ...]:
    return (("www-authenticate", 'Bearer realm="modelyard"' + (f', error="{error}"' if error else "")),)


def _retry(seconds: int) -> tuple[tuple[str, str], ...]:
    return (("retry-after", str(seconds)),) if seconds else ()


def _by_policy(policy: str = "") -> Json:
    """Matches answers of an RBAC filter; because of one policy, if it is named."""
    return _by_details(
        f"rbac_access_denied_matched_policy[{policy}]" if policy else "rbac_access_denied_matched_policy["
    )


def _by_details(details: str) -> Json:
    """Matches answers whose details, a word of Envoy's for why it answers, begin so."""
    expression = f"response.code_details.startsWith('{details}')"
    config = {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
        "expression": expression,
    }
    return {"extension_filter": {"name": "envoy.access_loggers.extension_filters.cel", "typed_config": config}}


def _has(*path: str) -> Json:
    """Matches where jwt_authn left something there."""
    matcher = {
        "filter": xds_access.METADATA,
        "path": [{"key": each} for each in path],
        "value": {"present_match": True},
    }
    return {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": False}}


def _only_grpc() -> list[Json]:
    """What is said about calls and has no counterpart elsewhere."""
    about_a_model = {"safe_regex": {"regex": f"/{re.escape(xds_grpc.SERVICE)}/[A-Za-z]+/.+"}}
    compressed = {"safe_regex": {"regex": "identity"}}
    return [
        _grpc_mapper(_Reply(each, sentence, grpc_status=status))
        for each, sentence, status in (
            (_both(_flags(("NR",)), _header(":path", {"string_match": about_a_model})), _NO_MODEL, _NOT_FOUND),
            (_flags(("NR",)), _NO_METHOD, _UNIMPLEMENTED),
            (_by_details("max_duration_timeout"), _NOT_IN_TIME, _DEADLINE_EXCEEDED),
            (
                _both(
                    _status("EQ", 400),
                    _header("grpc-encoding", {"string_match": compressed, "invert_match": True}),
                ),
                "compressed messages are not accepted; send them as they are",
                _UNIMPLEMENTED,
            ),
            (_status("EQ", 400), "%LOCAL_REPLY_BODY%", _INVALID_ARGUMENT),
        )
    ]


_INVALID_ARGUMENT, _DEADLINE_EXCEEDED, _NOT_FOUND, _UNIMPLEMENTED = 3, 4, 5, 12
_GRPC_STATUS = {401: 16, 403: 7, 408: 4, 413: 8, 431: 8, 502: 13, 503: 14, 429: 8, 504: 4}
"""By HTTP status: unauthenticated, permission denied, deadline exceeded, resource exhausted, internal, unavailable."""

_GRPC = {"string_match": {"safe_regex": {"regex": r"application/grpc(\+.*)?"}}}
_NO_MODEL = (
    f"no model of this name is served (asked for at {_SEEN_PATH}): 'kubectl get modelservices -A' shows the models; "
    "the name of one is <name>.<namespace>"
)
_NOT_IN_TIME = (
    "the model did not answer in time: spec.timeout of its ModelService says how long it may take, and a caller's "
    "deadline may be shorter"
)
_NO_METHOD = (
    f"there is no method {_SEEN_PATH}; {xds_grpc.SERVICE} has "
    f"{', '.join((*xds_grpc.SERVER_METHODS, *xds_grpc.MODEL_METHODS))} here"
)

_FOREIGN = (
    "this gateway answers programs on its own machine only: the Host must be a loopback name or address, and a web "
    "page's Origin must be one too"
)
_REVOKED = "this token has been revoked: 'modelyard token create' makes another one"
_GONE = "the ServiceAccount of this token is no longer there: 'kubectl create token <name>' makes one for another"
_TOKENLESS = (
    "a token is needed: send the header 'Authorization: Bearer <token>' (or 'x-api-key: <token>'); 'modelyard token "
    "create' makes one"
)
_NO_GOOD = (
    "the token is not accepted ({why}): send one that is in order as 'Authorization: Bearer <token>'; 'modelyard token "
    "create' makes one"
)
_OF_NOBODY = "it is no JSON Web Token, or of no issuer that is known here"
_NOT_ALLOWED = (
    f"whoever bears this token may not call what {_SEEN_PATH} asks for, if it exists: "
    "'kubectl auth can-i predict modelservices/<name> -n <namespace> --as=<user>' tells what roles say"
)
_TOO_OFTEN = (
    "this model is asked more often than an AccessPolicy allows: try again when the header x-ratelimit-reset says (in "
    "seconds); 'kubectl get accesspolicies' shows the limits"
)

_FULL = "the gateway is out of connections or memory; try again"

_BY_FLAG: tuple[tuple[tuple[str, ...], str, int, int], ...] = (
    (
        ("NR",),
        f"nothing is served at {_SEEN_PATH}: 'kubectl get modelservices -A' shows the models, and a model answers "
        "below /v2/models/<name>.<namespace>",
        404,
        0,
    ),
    (("UT",), "the model did not answer in time: spec.timeout of its ModelService says how long it may take", 504, 0),
    (("DT", "SI", "UMSDR"), "the request took too long to arrive or to be answered", 504, 0),
    (("UO",), "too many requests are under way for this model; try again", 503, 1),
    (("OM",), _FULL, 503, 1),
    (("UH", "NC"), "no replica of this model is ready; try again", 503, 2),
    (("UF",), "no replica of this model accepts connections, nor did it on a retry; try again", 503, 1),
    (("UC", "UR", "LR", "URX"), "the replica ended before it answered, also on every retry; try again", 503, 1),
    (("UPE",), "the replica's answer was not valid HTTP", 502, 0),
)

_BY_STATUS: tuple[tuple[int, str], ...] = (
    (403, "the request asks for another protocol ('Upgrade'), and none is offered here"),
    (400, "the request is not well formed: %RESPONSE_CODE_DETAILS%"),
    (408, "the request took too long to arrive"),
    (
        413,
        "the request's body is too large: spec.maxRequestSize of the ModelService bounds it, where it is set, and a "
        "gRPC call has 64 MiB",
    ),
    (426, "HTTP/1.1 is needed"),
    (431, "the request's headers are too large"),
)


def _mapper(reply: _Reply) -> Json:
    mapper: Json = {
        "filter": reply.matches,
        "body_format_override": {"json_format": {"error": reply.sentence}, "content_type": "application/json"},
    }
    if reply.status:
        mapper["status_code"] = reply.status
    if reply.headers:
        mapper["headers_to_add"] = [_added(*each) for each in reply.headers]
    return mapper


def _grpc_mapper(reply: _Reply) -> Json:
    mapper: Json = {
        "filter": _both(_header("content-type", _GRPC), reply.matches),
        "body_format_override": {"text_format_source": {"inline_string": reply.sentence}},
    }
    if reply.of_grpc:
        mapper["headers_to_add"] = [_added("grpc-status", str(reply.of_grpc))]
    return mapper


def _added(key: str, value: str) -> Json:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _both(one: Json, other: Json) -> Json:
    return {"and_filter": {"filters": [one, other]}}


def _header(name: str, match: Json) -> Json:
    return {"header_filter": {"header": {"name": name, **match}}}


def _flags(flags: tuple[str, ...]) -> Json:
    return {"response_flag_filter": {"flags": list(flags)}}


def _status(operator: str, status: int) -> Json:
    value = {"default_value": status, "runtime_key": "modelyard.local_reply"}
    return {"status_code_filter": {"comparison": {"op": operator, "value": value}}}

"""What the gateway says about requests, in Envoy's words: ids of requests, who called, one line for each request.

The log's form is part of the listener and knows no issuers: the filter `identify`, which is sent apart, finds out who
called and leaves it as one text. Claims are private, so nothing else of a token is written.
Source: Envoy, "Access logging" (command operators); set_filter_state/v3, request_id/uuid/v3; CEL, "Strings".
"""

import re
from typing import Any

from modelyard.control.ir.platform import Issuer
from modelyard.control.render import xds_stats

Json = dict[str, Any]

CALLER = "modelyard.caller"
"""Filter state: who called as roles write it, `corp:ana`; absent without a token that is in order."""
LONGEST_ID = 128

_TYPE = "type.googleapis.com/"
SET_FILTER_STATE = f"{_TYPE}envoy.extensions.filters.http.set_filter_state.v3.Config"
_LONGEST_NAME = 253
_MOST_ANSWERS = 200_000  # of some two hundred bytes each
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")

_FIELDS = {
    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "id": "%REQ(X-REQUEST-ID)%",
    "method": "%REQ(:METHOD):16%",
    "path": "%PATH(NQ:ORIG_OR_PATH:300)%",  # a query may hold what is nobody's business
    "protocol": "%PROTOCOL%",
    "model": "%ROUTE_NAME%",
    "revision": "%UPSTREAM_CLUSTER%",
    "user": f"%FILTER_STATE({CALLER}:PLAIN)%",
    "status": "%RESPONSE_CODE%",
    "grpcStatus": "%GRPC_STATUS_NUMBER%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "milliseconds": "%DURATION%",
    "upstreamMilliseconds": "%COMMON_DURATION(US_TX_BEG:US_RX_END:ms)%",
    "bytesReceived": "%BYTES_RECEIVED%",
    "bytesSent": "%BYTES_SENT%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "agent": "%REQ(USER-AGENT):80%",
    "trace": "%TRACE_ID%",
}


def access_log(path: str) -> list[Json]:
    """The log of a listener: one JSON object a line at the end of the file; and a count of all answers.

    path: "" for Envoy's standard output.
    """
    return [{"name": "envoy.access_loggers.stats", "typed_config": _answers()}, _lines(path)]


def _lines(path: str) -> Json:
    form = {"log_format": {"json_format": _FIELDS, "omit_empty_values": True}}
    if path:
        kind = f"{_TYPE}envoy.extensions.access_loggers.file.v3.FileAccessLog"
        return {"name": "envoy.access_loggers.file", "typed_config": {"@type": kind, "path": path, **form}}
    # Not the file /dev/stdout, which only its owner may open.
    stdout = f"{_TYPE}envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
    return {
        "name": "envoy.access_loggers.stdout",
        "typed_config": {"@type": f"{_TYPE}xds.type.v3.TypedStruct", "type_url": stdout, "value": form},
    }


def _answers() -> Json:
    """By model and status, answers of the gateway itself included, which statistics of clusters know nothing about.

    The extension is new ("work in progress"): here it sees names of our routes and numbers, and nothing of callers.
    """
    tags = {"model": "%ROUTE_NAME%", "code": "%RESPONSE_CODE%", "grpc": "%GRPC_STATUS_NUMBER%"}
    stat = {
        "name": xds_stats.ANSWERS,
        "tags": [{"name": name, "value_format": value} for name, value in tags.items()],
    }
    # Without bounds it would remember every model that was ever called.
    scope = {"prefix": xds_stats.GATEWAY, "max_counters": _MOST_ANSWERS, "enable_eviction": True}
    return {
        # Our descriptors are of an older release, which has no such scope.
        "@type": f"{_TYPE}xds.type.v3.TypedStruct",
        "type_url": f"{_TYPE}envoy.extensions.access_loggers.stats.v3.Config",
        "value": {"stats_scope": scope, "counters": [{"stat": stat, "value_fixed": 1}]},
    }


def request_ids() -> Json:
    """Of a listener's connections: a caller's id is kept (see `bounded_id`), others get one; answers tell it."""
    return {
        "generate_request_id": True,
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "request_id_extension": {
            "typed_config": {
                "@type": f"{_TYPE}envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
                # A caller's id comes back as it was sent, and need not be a UUID.
                "pack_trace_reason": False,
                "use_request_id_for_trace_sampling": False,
            }
        },
    }


def bounded_id() -> Json:
    """A mutation of the headers of a request, before anything reads them: an id is cut, since it goes everywhere."""
    header = {"key": "x-request-id", "value": f"%REQ(x-request-id):{LONGEST_ID}%"}
    return {"append": {"header": header, "append_action": "OVERWRITE_IF_EXISTS"}}


def identify(issuers: tuple[Issuer, ...], metadata: str) -> Json:
    """The filter that leaves CALLER. metadata: where the claims of a token are, under the name of its issuer."""
    told = "".join(_told(each, metadata) for each in issuers)
    if not told:
        return {"@type": SET_FILTER_STATE}
    text = {"text_format_source": {"inline_string": told}, "omit_empty_values": True}
    value = {"object_key": CALLER, "factory_key": "envoy.string", "format_string": text, "skip_if_empty": True}
    return {"@type": SET_FILTER_STATE, "on_request_headers": [value]}


def _told(issuer: Issuer, metadata: str) -> str:
    """What is empty unless the token is of this issuer: then its user. A request bears one token that counts."""
    claims = f"metadata.filter_metadata[{_quoted(metadata)}]"
    path = (issuer.name, *issuer.username)
    parts = []
    if issuer.prefix:
        parts.append(f"%CEL({_quoted(issuer.name)} in {claims} ? {_quoted(issuer.prefix)} : '')%")
    if issuer.verified:
        parts.append(f"%CEL({_is_true(claims, (issuer.name, *issuer.verified))} ? '' : '(not verified) ')%")
    if all(map(_PLAIN.fullmatch, path)):
        parts.append(f"%DYNAMIC_METADATA({metadata}:{':'.join(path)}):{_LONGEST_NAME}%")  # cheaper than CEL
    else:
        parts.append(f"%CEL({_at(claims, path)}):{_LONGEST_NAME}%")
    return "".join(parts)


def _is_true(claims: str, path: tuple[str, ...]) -> str:
    """Whether there is such a claim and it is true. An error where the issuer's claims are not there."""
    above = [f"({_quoted(each)} in {_at(claims, path[:index])})" for index, each in enumerate(path) if index]
    found = _at(claims, path)
    return " && ".join((*above, f"type({found}) == bool", found))


def _at(value: str, path: tuple[str, ...]) -> str:
    return value + "".join(f"[{_quoted(each)}]" for each in path)


def _quoted(text: str) -> str:
    """A string of CEL in which nothing can end the string, the expression or the operator of the format around it."""
    return "'" + "".join(each if _PLAIN.fullmatch(each) else f"\\U{ord(each):08x}" for each in text) + "'"

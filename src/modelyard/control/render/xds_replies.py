"""What Envoy says when it answers a request itself: `{"error": "<a sentence>"}` with the right status.

A gRPC call gets the same sentence as its message, and a status of gRPC (Envoy's own choice is 12 for HTTP's 404).
Source: Envoy, "Local reply modification"; response flags as in `%RESPONSE_FLAGS%`; gRPC, statuscodes.md.
"""

import re
from typing import Any

from modelyard.control.render import xds_grpc

Json = dict[str, Any]

_SEEN_PATH = "%REQ(:path):120%"


def mappers() -> list[Json]:
    """In order: what is known by a flag, what is known by its status, and the rest with the text it came with."""
    by_flag = [(_flags(flags), sentence, status, retry) for flags, sentence, status, retry in _BY_FLAG]
    by_status = [(_status("EQ", status), sentence, status, 0) for status, sentence in _BY_STATUS]
    # Our own answers for routes without backends come this way: their text is the sentence.
    rest = (_status("GE", 400), "%LOCAL_REPLY_BODY%", 0, 0)
    of_grpc = [
        _grpc_mapper(matches, sentence, _GRPC_STATUS.get(status, 0))
        for matches, sentence, status, _ in (*by_flag, *by_status, rest)
    ]
    return [*_only_grpc(), *of_grpc, *(_mapper(*each) for each in (*by_flag, *by_status, rest))]


def _only_grpc() -> list[Json]:
    """What is said about calls and has no counterpart elsewhere."""
    about_a_model = {"safe_regex": {"regex": f"/{re.escape(xds_grpc.SERVICE)}/[A-Za-z]+/.+"}}
    compressed = {"safe_regex": {"regex": "identity"}}
    return [
        _grpc_mapper(_both(_flags(("NR",)), _header(":path", {"string_match": about_a_model})), _NO_MODEL, _NOT_FOUND),
        _grpc_mapper(_flags(("NR",)), _NO_METHOD, _UNIMPLEMENTED),
        _grpc_mapper(
            _both(
                _status("EQ", 400),
                _header("grpc-encoding", {"string_match": compressed, "invert_match": True}),
            ),
            "compressed messages are not accepted; send them as they are",
            _UNIMPLEMENTED,
        ),
        _grpc_mapper(_status("EQ", 400), "%LOCAL_REPLY_BODY%", _INVALID_ARGUMENT),
    ]


_INVALID_ARGUMENT, _NOT_FOUND, _UNIMPLEMENTED = 3, 5, 12
_GRPC_STATUS = {403: 7, 408: 4, 413: 8, 431: 8, 502: 13, 503: 14, 504: 4}
"""By HTTP status: permission denied, deadline exceeded, resource exhausted, internal, unavailable."""

_GRPC = {"string_match": {"safe_regex": {"regex": r"application/grpc(\+.*)?"}}}
_NO_MODEL = (
    f"no model of this name is served (asked for at {_SEEN_PATH}): 'kubectl get modelservices -A' shows the models; "
    "the name of one is <name>.<namespace>"
)
_NO_METHOD = (
    f"there is no method {_SEEN_PATH}; {xds_grpc.SERVICE} has "
    f"{', '.join((*xds_grpc.SERVER_METHODS, *xds_grpc.MODEL_METHODS))} here"
)

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
    (("OM",), "the gateway is out of connections; try again", 503, 1),
    (("UH", "NC"), "no replica of this model is ready; try again", 503, 2),
    (("UF",), "no replica of this model accepts connections, nor did it on a retry; try again", 503, 1),
    (("UC", "UR", "LR", "URX"), "the replica ended before it answered, also on every retry; try again", 503, 1),
    (("UPE",), "the replica's answer was not valid HTTP", 502, 0),
)

_BY_STATUS: tuple[tuple[int, str], ...] = (
    (400, "the request is not well formed: %RESPONSE_CODE_DETAILS%"),
    (
        403,
        "this gateway answers programs on its own machine only: the Host must be a loopback name or address, and a web "
        "page's Origin must be one too",
    ),
    (408, "the request took too long to arrive"),
    (413, "the request's body is too large"),
    (426, "HTTP/1.1 is needed"),
    (431, "the request's headers are too large"),
)


def _mapper(matches: Json, sentence: str, status: int = 0, retry_after: int = 0) -> Json:
    mapper: Json = {
        "filter": matches,
        "body_format_override": {"json_format": {"error": sentence}, "content_type": "application/json"},
    }
    if status:
        mapper["status_code"] = status
    if retry_after:
        mapper["headers_to_add"] = [_added("retry-after", retry_after)]
    return mapper


def _grpc_mapper(matches: Json, sentence: str, grpc_status: int) -> Json:
    mapper: Json = {
        "filter": _both(_header("content-type", _GRPC), matches),
        "body_format_override": {"text_format_source": {"inline_string": sentence}},
    }
    if grpc_status:
        mapper["headers_to_add"] = [_added("grpc-status", grpc_status)]
    return mapper


def _added(key: str, value: int) -> Json:
    return {"header": {"key": key, "value": str(value)}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _both(one: Json, other: Json) -> Json:
    return {"and_filter": {"filters": [one, other]}}


def _header(name: str, match: Json) -> Json:
    return {"header_filter": {"header": {"name": name, **match}}}


def _flags(flags: tuple[str, ...]) -> Json:
    return {"response_flag_filter": {"flags": list(flags)}}


def _status(operator: str, status: int) -> Json:
    value = {"default_value": status, "runtime_key": "modelyard.local_reply"}
    return {"status_code_filter": {"comparison": {"op": operator, "value": value}}}

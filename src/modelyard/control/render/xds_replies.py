"""What Envoy says when it answers a request itself: `{"error": "<a sentence>"}` with the right status.

Source: Envoy, "Local reply modification"; response flags as in `%RESPONSE_FLAGS%`.
"""

from typing import Any

Json = dict[str, Any]

_SEEN_PATH = "%REQ(:path):120%"


def mappers() -> list[Json]:
    """In order: what is known by a flag, what is known by its status, and the rest with the text it came with."""
    by_flag = [_mapper(_flags(flags), sentence, status, retry) for flags, sentence, status, retry in _BY_FLAG]
    by_status = [_mapper(_status("EQ", status), sentence) for status, sentence in _BY_STATUS]
    # Our own answers for routes without backends come this way: their text is the sentence.
    return [*by_flag, *by_status, _mapper(_status("GE", 400), "%LOCAL_REPLY_BODY%")]


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
        header = {"key": "retry-after", "value": str(retry_after)}
        mapper["headers_to_add"] = [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]
    return mapper


def _flags(flags: tuple[str, ...]) -> Json:
    return {"response_flag_filter": {"flags": list(flags)}}


def _status(operator: str, status: int) -> Json:
    value = {"default_value": status, "runtime_key": "modelyard.local_reply"}
    return {"status_code_filter": {"comparison": {"op": operator, "value": value}}}

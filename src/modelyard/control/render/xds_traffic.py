"""How requests are shared, copied, tried again and bounded, in Envoy's words.

Source: Envoy API v3 (route_components.proto, cluster.proto, outlier_detection.proto, circuit_breaker.proto), "Composite
filter", "Compressor", "Body size limit".
"""

import re
from functools import cache
from typing import Any, NamedTuple

from modelyard.control.ir.route import Route
from modelyard.control.render import xds_grpc
from modelyard.control.render.part import Part
from modelyard.wire.work import SHADOW_HEADER

Json = dict[str, Any]

SIZE, GZIP, ZSTD = "size", "gzip", "zstd"
"""Names of filters that routes configure."""

RETRY_BODY_BYTES = 2**20
"""Larger requests are streamed and not retried."""
_MOST_DRAWS = 100
"""How often a retry draws a replica until it gets one that it has not tried; then it takes the last one drawn.

A draw takes the less loaded of two random replicas, and one that refuses connections has no load: of two replicas the
dead one is drawn three times in four. Envoy needs 0.2 microseconds for a draw and hundreds for the rest of a retry.
"""
_MOST_REQUESTS = 2048
_MOST_CONNECTIONS = 1024
_LARGEST_LIMIT_BYTES = 2**32 - 1
_TABLE_SIZE = 1021  # of places for replicas, a prime; Envoy's default of 65,537 takes half a megabyte for each unit
_COMPRESSED_BYTES = 1024  # smaller answers gain nothing
_TYPE = "type.googleapis.com/"
_MATCHING = f"{_TYPE}envoy.extensions.common.matching.v3"


class Demands(NamedTuple):
    """What a route asks of the clusters of its units: this cannot be said in a route."""

    sticky: bool = False
    max_concurrency: int = 0


NONE = Demands()


def demands(route: Route) -> Demands:
    """Of a route."""
    return Demands(sticky=bool(route.sticky_header), max_concurrency=route.max_concurrency)


@cache
def of_cluster(wanted: Demands) -> Part:
    """Fields of a cluster: who gets a request, how many are under way, and who gets none for a moment."""
    limits = {
        "max_connections": max(_MOST_CONNECTIONS, wanted.max_concurrency),
        # Requests that wait for their connection to open count here: a burst must fit.
        "max_pending_requests": max(_MOST_CONNECTIONS, wanted.max_concurrency),
        "max_requests": wanted.max_concurrency or _MOST_REQUESTS,
        # Half of the requests in flight may be lost at once, when one of two replicas is killed.
        "retry_budget": {"budget_percent": {"value": 20}, "min_retry_concurrency": 256},
    }
    balancing = (
        # The least loaded replica knows no callers.
        {"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": _TABLE_SIZE}}
        if wanted.sticky
        else {"lb_policy": "LEAST_REQUEST"}
    )
    return Part(balancing | {"circuit_breakers": Part(thresholds=[limits]), "outlier_detection": _ejection()})


@cache
def _ejection() -> Part:
    """A replica that cannot be reached gets nothing for a moment: larger requests cannot be tried again.

    Only failures to reach it count. What a model answers says nothing about its replica, and a bad request sent often
    must not take a replica from others.
    """
    return Part(
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=3,
        enforcing_consecutive_local_origin_failure=100,
        enforcing_consecutive_5xx=0,
        enforcing_consecutive_gateway_failure=0,
        enforcing_success_rate=0,
        enforcing_local_origin_success_rate=0,
        # Looked at so often, so that it is out for up to six seconds; a timer for each unit costs at ten thousand.
        interval="5s",
        base_ejection_time="1s",
        max_ejection_time="1s",
        max_ejection_percent=50,
    )


def of_host(route: Route) -> Json:
    """Fields of the virtual host of a route that forwards."""
    if not route.retries:
        return {}
    return {"retry_policy": _retries(route.retries), "request_body_buffer_limit": RETRY_BODY_BYTES}


@cache
def _retries(count: int) -> Part:
    return Part(
        # Before the first byte of an answer: then no caller saw anything, and an inference has no effects.
        retry_on="connect-failure,refused-stream,reset",
        num_retries=count,
        retry_host_predicate=[
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": f"{_TYPE}envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
        host_selection_retry_max_attempts=_MOST_DRAWS,
        retry_back_off={"base_interval": "0.025s", "max_interval": "0.25s"},
    )


def shared(route: Route) -> Json:
    """The action of a route: who gets a request, and who a copy."""
    action = _to_one(route, route.backends[0].unit)
    if len(route.backends) > 1 or route.backends[0].weight != 100:
        del action["cluster"]
        shares: Json = {"clusters": [{"name": each.unit, "weight": each.weight} for each in route.backends]}
        if route.sticky_header:
            shares["use_hash_policy"] = True
        action["weighted_clusters"] = shares
    if route.mirror is not None:
        action["request_mirror_policies"] = [_mirror(route.mirror.unit, route.mirror.percent, _compared(route))]
    return action


def _compared(route: Route) -> int:
    return route.mirror.compared_percent if route.mirror else 0


def _mirror(unit: str, percent: int, compared_percent: int) -> Json:
    header = {"key": SHADOW_HEADER, "value": str(compared_percent)}
    return {
        "cluster": unit,
        "runtime_fraction": {"default_value": {"numerator": percent}},
        "trace_sampled": False,
        "disable_shadow_host_suffix_append": True,
        "request_headers_mutations": [
            {"append": {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}},
        ],
    }


def _to_one(route: Route, unit: str) -> Json:
    action: Json = {
        "cluster": unit,
        "timeout": seconds(route.timeout_seconds),
        # A caller that stops sending in the middle must not hold a stream for longer than a request may take.
        "idle_timeout": seconds(route.timeout_seconds + 5),
    }
    if route.sticky_header:
        action["hash_policy"] = [{"header": {"header_name": route.sticky_header}}]
    return action


def versions(public_id: str, route: Route) -> list[tuple[Json, Json]]:
    """What is matched, and the action: `/versions/<name>` of HTTP, and the field `model_version` of gRPC.

    The unit's replicas know the number only, so a tag is replaced by it.
    """
    entries: list[tuple[Json, Json]] = []
    for version in route.versions:
        base = f"/v2/models/{public_id}/versions"
        action = _to_one(route, version.unit)
        calls = {
            "safe_regex": {"regex": f"/{re.escape(xds_grpc.SERVICE)}/[A-Za-z]+/{re.escape(public_id)}/{version.name}"},
            "grpc": {},
        }
        by_path, by_call = action, calling(action)
        if version.name != version.number:
            by_path = action | {"prefix_rewrite": f"{base}/{version.number}"}
            by_call = by_call | {
                "regex_rewrite": {"pattern": {"regex": "/[^/]+$"}, "substitution": f"/{version.number}"},
            }
        entries.append(({"path_separated_prefix": f"{base}/{version.name}"}, by_path))
        entries.append((calls, by_call))
    return entries


def calling(action: Json) -> Json:
    """The action for gRPC: a caller may ask for less time than the model may take.

    With these limits Envoy does not look at `timeout`, so the one for callers that ask for none is said again.
    """
    limit = action["timeout"]
    return action | {"max_stream_duration": {"max_stream_duration": limit, "grpc_timeout_header_max": limit}}


def filters(route: Route) -> Json:
    """Configuration by filter, for everything under a route."""
    found: Json = {}
    if route.max_request_bytes:
        found[SIZE] = _size(min(route.max_request_bytes, _LARGEST_LIMIT_BYTES))
    if route.compressed:
        found |= {GZIP: _enabled(), ZSTD: _enabled()}
    return found


@cache
def _size(most_bytes: int) -> Part:
    """Counts what passes and keeps nothing. The filter has no configuration by route, so a matcher adds it."""
    limit = {
        "@type": f"{_TYPE}xds.type.v3.TypedStruct",
        "type_url": f"{_TYPE}envoy.extensions.filters.http.body_size_limit.v3.BodySizeLimit",
        "value": {"max_request_bytes": most_bytes},
    }
    action = {
        "@type": f"{_TYPE}envoy.extensions.filters.http.composite.v3.ExecuteFilterAction",
        "typed_config": {"name": SIZE, "typed_config": limit},
    }
    return Part(
        {
            "@type": f"{_MATCHING}.ExtensionWithMatcherPerRoute",
            "xds_matcher": {"on_no_match": {"action": {"name": SIZE, "typed_config": action}}},
        }
    )


@cache
def _enabled() -> Part:
    as_it_is = {"@type": f"{_TYPE}envoy.extensions.filters.http.compressor.v3.CompressorPerRoute", "overrides": {}}
    return Part({"@type": f"{_TYPE}envoy.config.route.v3.FilterConfig", "config": as_it_is})


def listener_filters() -> list[Json]:
    """The filters that `filters` configures; without that they do nothing."""
    size = {
        "@type": f"{_MATCHING}.ExtensionWithMatcher",
        "extension_config": {
            "name": "composite",
            "typed_config": {"@type": f"{_TYPE}envoy.extensions.filters.http.composite.v3.Composite"},
        },
        "xds_matcher": {},
    }
    gzip = {"@type": f"{_TYPE}envoy.extensions.compression.gzip.compressor.v3.Gzip"}
    zstd = {"@type": f"{_TYPE}envoy.extensions.compression.zstd.compressor.v3.Zstd"}
    return [
        {"name": SIZE, "typed_config": size},
        {"name": ZSTD, "disabled": True, "typed_config": _compressor("zstd", zstd)},
        {"name": GZIP, "disabled": True, "typed_config": _compressor("gzip", gzip)},
    ]


def _compressor(name: str, library: Json) -> Json:
    common = {"min_content_length": _COMPRESSED_BYTES, "content_type": ["application/json"]}
    return {
        "@type": f"{_TYPE}envoy.extensions.filters.http.compressor.v3.Compressor",
        "compressor_library": {"name": name, "typed_config": library},
        "response_direction_config": {"common_config": common},
    }


def seconds(duration: float) -> str:
    """proto3 JSON of a Duration: at most nine decimals."""
    return f"{duration:.9f}".rstrip("0").rstrip(".") + "s"

"""Routes and endpoints in Envoy's words, as proto3 JSON.

The shape: one listener that never changes; one scope for each public id, found by element 3 of the path
(`/v2/models/<id>/...`; `xds_grpc` gives gRPC one), so that a thousand models cost a request no more than one; one
cluster for each unit.
Source: Envoy API v3 (scoped_route.proto, cluster.proto, http_connection_manager.proto), Open Inference Protocol V2.
"""

import json
from typing import Any

from modelyard.control.ir.route import Endpoints, Route
from modelyard.control.render import xds_grpc

Json = dict[str, Any]

CLUSTER = "envoy.config.cluster.v3.Cluster"
EXTENSION = "envoy.config.core.v3.TypedExtensionConfig"
SECRET = "envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105  the name of a type
ASSIGNMENT = "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = "envoy.config.listener.v3.Listener"
SCOPE = "envoy.config.route.v3.ScopedRouteConfiguration"

LISTENER_NAME = "gateway"
CONTROL = "control"
"""The cluster of the process that tells Envoy all this."""
INDEX = "~"
"""The scope of what has no element 3: `/v2` and `/v2/models`. Not a possible id."""
SERVER_SCOPES = ("live", "ready", INDEX)
"""Scopes that exist without any route. A model may well be named `live`; it shares the scope."""

RETRY_BODY_BYTES = 2**20
"""Larger requests are streamed and not retried."""
_RETRIES = 3
_MOST_DRAWS = 100
"""How often a retry draws a replica until it gets one that it has not tried; then it takes the last one drawn.

A draw takes the less loaded of two random replicas, and one that refuses connections has no load: of two replicas the
dead one is drawn three times in four. Envoy needs 0.2 microseconds for a draw and hundreds for the rest of a retry.
"""
_LARGEST_INDEX_BYTES = 2**20
_LONGEST_SENTENCE = 1000

_TYPE = "type.googleapis.com/"
ADS = {"ads": {}, "resource_api_version": "V3"}


def cluster(unit: str) -> Json:
    """Where a unit's endpoints come from, and how many connections, requests and retries it gets at most."""
    limits = {
        "max_connections": 1024,
        # Requests that wait for their connection to open count here: a burst must fit.
        "max_pending_requests": 1024,
        "max_requests": 2048,
        # Half of the requests in flight may be lost at once, when one of two replicas is killed.
        "retry_budget": {"budget_percent": {"value": 20}, "min_retry_concurrency": 256},
    }
    options = {
        "@type": f"{_TYPE}envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options": {"idle_timeout": "30s"},
        # The status of a gRPC call comes after its answer.
        "explicit_http_config": {"http_protocol_options": {"enable_trailers": True}},
    }
    return {
        "name": unit,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": ADS},
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [limits]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }


def assignment(endpoints: Endpoints) -> Json:
    """The endpoints of a unit; none is a valid answer, and means 503."""
    members = [{"endpoint": {"address": _address(each)}} for each in endpoints.addresses]
    return {"cluster_name": endpoints.unit, "endpoints": [{"lb_endpoints": members}] if members else []}


def scope(public_id: str, route: Route | None, canonical_ids: tuple[str, ...] = (), version: str = "") -> Json:
    """Everything whose path has this element 3. Route: who has the id, or None for a scope of SERVER_SCOPES.

    canonical_ids and version: what the scope INDEX tells; no other one reads them.
    """
    entries = _server_entries(public_id, canonical_ids, version)
    if route is not None:
        entries += [
            _model_entry({"path_separated_prefix": f"/v2/models/{public_id}"}, route),
            _model_entry(xds_grpc.model_match(), route),
        ]
    host: Json = {"name": public_id, "domains": ["*"], "routes": entries}
    if route is not None and route.backends:
        host |= {"retry_policy": _retries(), "request_body_buffer_limit": RETRY_BODY_BYTES}
    routes = {
        "name": public_id,
        "virtual_hosts": [host],
        # Clusters are sent and acknowledged before; checking them again would tie scopes to clusters that go away.
        "validate_clusters": False,
    }
    if public_id == INDEX:
        routes["max_direct_response_body_size_bytes"] = _LARGEST_INDEX_BYTES
    return {"name": public_id, "key": {"fragments": [{"string_key": public_id}]}, "route_configuration": routes}


def _server_entries(public_id: str, canonical_ids: tuple[str, ...], version: str) -> list[Json]:
    if public_id in ("live", "ready"):
        return [_answer({"path": f"/v2/health/{public_id}"}, {public_id: True})]
    if public_id == INDEX:
        server = {"name": "modelyard", "version": version, "extensions": []}
        return [
            _answer({"path": f"/v2/server/{INDEX}"}, server),
            _answer({"path": f"/v2/models/{INDEX}"}, {"models": list(canonical_ids)}),
            *xds_grpc.server_entries(INDEX, CONTROL),
        ]
    return []


def _answer(match: Json, body: Json) -> Json:
    return {
        "match": match,
        "direct_response": {"status": 200, "body": {"inline_string": json.dumps(body)}},
        "response_headers_to_add": [_replaced("content-type", "application/json")],
    }


def _model_entry(match: Json, route: Route) -> Json:
    if not route.backends:
        sentence = route.unavailable or "no replica of this model is ready"
        return {
            "match": match,
            "direct_response": {"status": 503, "body": {"inline_string": _shortened(sentence)}},
            "response_headers_to_add": [_replaced("retry-after", "2")],
        }
    return {"match": match, "route": _forward(route)}


def _forward(route: Route) -> Json:
    first = route.backends[0]
    if len(route.backends) == 1 and first.weight == 100:
        target: Json = {"cluster": first.unit}
    else:
        shares = [{"name": each.unit, "weight": each.weight} for each in route.backends]
        target = {"weighted_clusters": {"clusters": shares}}
    return {
        **target,
        "timeout": _seconds(route.timeout_seconds),
        # A caller that stops sending in the middle must not hold a stream for longer than a request may take.
        "idle_timeout": _seconds(route.timeout_seconds + 5),
    }


def _retries() -> Json:
    return {
        # Before the first byte of an answer: then no caller saw anything, and an inference has no effects.
        "retry_on": "connect-failure,refused-stream,reset",
        "num_retries": _RETRIES,
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": f"{_TYPE}envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
        "host_selection_retry_max_attempts": _MOST_DRAWS,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
    }


def _replaced(key: str, value: str) -> Json:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _address(address: str) -> Json:
    scheme, _, path = address.partition(":")
    if scheme == "unix":
        return {"pipe": {"path": path}}
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": port}}


def _seconds(seconds: float) -> str:
    """proto3 JSON of a Duration: at most nine decimals."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def _shortened(sentence: str) -> str:
    return sentence if len(sentence) <= _LONGEST_SENTENCE else sentence[: _LONGEST_SENTENCE - 3] + "..."

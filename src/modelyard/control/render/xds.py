"""Routes and endpoints in Envoy's words, as proto3 JSON.

The shape: one listener that never changes; one scope for each public id, found by element 3 of the path
(`/v2/models/<id>/...`; `xds_grpc` gives gRPC one), so that a thousand models cost a request no more than one; one
cluster for each unit.
Source: Envoy API v3 (scoped_route.proto, cluster.proto, http_connection_manager.proto), Open Inference Protocol V2.
"""

import json
from functools import lru_cache
from typing import Any

from modelyard.control.ir.platform import ACCOUNTS, OWN, Platform
from modelyard.control.ir.route import Endpoints, Route
from modelyard.control.render import xds_access, xds_grpc, xds_limits, xds_secret, xds_traffic, xds_visibility
from modelyard.control.render.part import Part
from modelyard.control.render.xds_traffic import Demands

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
KEYS = "~keys"
"""The scope of the public keys of the built-in issuers, in the same way."""
SERVER_SCOPES = ("live", "ready", INDEX)
"""Scopes that exist without any route. A model may well be named `live`; it shares the scope."""

_LARGEST_INDEX_BYTES = 2**20
_LONGEST_SENTENCE = 1000

_TYPE = "type.googleapis.com/"
ADS = {"ads": {}, "resource_api_version": "V3"}
_FROM_ADS = Part(eds_config=ADS)
_IDLE = Part(idle_timeout="30s")
# The status of a gRPC call comes after its answer.
_SPOKEN = Part(http_protocol_options={"enable_trailers": True})
# Whether a server lives, and the list of what is open, is told without a token: probes have none.
_TO_EVERYBODY: Json = {
    "typed_per_filter_config": {
        xds_access.ALLOW: xds_access.everybody(),
        xds_limits.LIMIT: xds_limits.unlimited(),
    }
}


def cluster(unit: str, secret: str = "", demands: Demands = xds_traffic.NONE) -> Json:
    """Where a unit's endpoints come from, and how many connections, requests and retries it gets at most.

    secret: what its replicas demand of requests, whichever route they come by; "": nothing. demands: of its route.
    """
    options: Json = {
        "@type": f"{_TYPE}envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options": _IDLE,
        "explicit_http_config": _SPOKEN,
    }
    if secret:
        options["http_filters"] = xds_secret.filters(secret)
    return {
        "name": unit,
        "type": "EDS",
        "eds_cluster_config": _FROM_ADS,
        "connect_timeout": "1s",
        **xds_traffic.of_cluster(demands),
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }


def assignment(endpoints: Endpoints, renewal: int = 0) -> Json:
    """The endpoints of a unit; none is a valid answer, and means 503.

    renewal: other numbers make other messages of the same meaning.
    """
    localities = _localities(endpoints)
    if renewal:
        localities = localities or [{}]
        localities[0]["metadata"] = {"filter_metadata": {"modelyard": {"renewal": renewal}}}
    return {"cluster_name": endpoints.unit, "endpoints": localities}


def _localities(endpoints: Endpoints) -> list[Json]:
    """One for each zone; the order of the endpoints is kept."""
    found: dict[str, list[Json]] = {}
    zones = endpoints.zones or ("",) * len(endpoints.addresses)
    for address, zone in zip(endpoints.addresses, zones, strict=True):
        found.setdefault(zone, []).append({"endpoint": {"address": _address(address)}})
    return [({"locality": {"zone": zone}} if zone else {}) | {"lb_endpoints": found[zone]} for zone in sorted(found)]


def scope(public_id: str, route: Route | None, canonical_ids: tuple[str, ...] = (), version: str = "") -> Json:
    """Everything whose path has this element 3. Route: who has the id, or None for a scope of SERVER_SCOPES.

    canonical_ids and version: what the scope INDEX tells; no other one reads them.
    """
    entries = _server_entries(public_id, canonical_ids, version)
    if route is not None:
        entries += [
            *(_entry(match, route, {"route": action}) for match, action in xds_traffic.versions(public_id, route)),
            _model_entry({"path_separated_prefix": f"/v2/models/{public_id}"}, route),
            _model_entry(xds_grpc.model_match(public_id), route, is_call=True),
        ]
    host: Json = {
        "name": public_id,
        "domains": ["*"],
        "routes": entries,
        # Who calls has been found out; nobody behind needs the means to call in that name, nor what only routes read.
        "request_headers_to_remove": [*xds_access.TOKEN_HEADERS, xds_visibility.HEADER],
    }
    if route is not None:
        host["typed_per_filter_config"] = _of_access(route) | xds_traffic.filters(route)
    if route is not None and (route.backends or route.versions):
        host |= xds_traffic.of_host(route)
    routes = {
        "name": public_id,
        "virtual_hosts": [host],
        # Clusters are sent and acknowledged before; checking them again would tie scopes to clusters that go away.
        "validate_clusters": False,
    }
    if public_id == INDEX:
        routes["max_direct_response_body_size_bytes"] = _LARGEST_INDEX_BYTES
    return {"name": public_id, "key": {"fragments": [{"string_key": public_id}]}, "route_configuration": routes}


def published(platform: Platform) -> Json:
    """The scope KEYS: whoever wants to verify our tokens by themselves may have what it takes."""
    sets = (json.loads(each.keys) for each in platform.issuers if each.name in (OWN, ACCOUNTS) and each.keys)
    answer = _answer(
        {"path": f"{xds_access.KEYS_PATH}/{KEYS}"}, {"keys": [key for each in sets for key in each["keys"]]}
    )
    answer["response_headers_to_add"] += [_replaced("cache-control", "max-age=300")]
    host = {"name": KEYS, "domains": ["*"], "routes": [answer]}
    routes = {"name": KEYS, "virtual_hosts": [host], "max_direct_response_body_size_bytes": _LARGEST_INDEX_BYTES}
    return {"name": KEYS, "key": {"fragments": [{"string_key": KEYS}]}, "route_configuration": routes}


def _of_access(route: Route) -> Json:
    """For the whole scope, so that no entry of it can be forgotten."""
    filters: Json = {xds_access.ALLOW: xds_access.of_route(route.access)}
    if route.access.limits:
        filters[xds_limits.LIMIT] = xds_limits.of_route(route.access.limits)
    return filters


def _server_entries(public_id: str, canonical_ids: tuple[str, ...], version: str) -> list[Json]:
    if public_id in ("live", "ready"):
        return [_answer({"path": f"/v2/health/{public_id}"}, {public_id: True})]
    if public_id == INDEX:
        server = {"name": "modelyard", "version": version, "extensions": []}
        return [
            _answer({"path": f"/v2/server/{INDEX}"}, server),
            _answer({"path": f"/v2/models/{INDEX}"}, {"models": list(canonical_ids)}),
            *({**each, **_TO_EVERYBODY} for each in xds_grpc.server_entries(INDEX, CONTROL)),
        ]
    return []


def _answer(match: Json, body: Json) -> Json:
    return {
        "match": match,
        "direct_response": {"status": 200, "body": {"inline_string": json.dumps(body)}},
        "response_headers_to_add": [_replaced("content-type", "application/json")],
        **_TO_EVERYBODY,
    }


def _model_entry(match: Json, route: Route, *, is_call: bool = False) -> Json:
    if not route.backends:
        sentence = route.unavailable or "no replica of this model is ready"
        answer = {
            "direct_response": {"status": 503, "body": {"inline_string": _shortened(sentence)}},
            "response_headers_to_add": [_replaced("retry-after", "2")],
        }
        return _entry(match, route, answer)
    action, calling = _actions(route)
    return _entry(match, route, {"route": calling if is_call else action})


@lru_cache(maxsize=16)  # the scopes of a route are rendered one after the other
def _actions(route: Route) -> tuple[Part, Part]:
    """Of its backends: for HTTP and for gRPC. Not to be changed by who gets them."""
    action = xds_traffic.shared(route)
    return Part(action), Part(xds_traffic.calling(action))


def _entry(match: Json, route: Route, what: Json) -> Json:
    if route.internal:
        match = {**match, "headers": [xds_visibility.marked()]}
    # The name tells the log and traces which model was called.
    return {"name": route.ids[0], "match": match, **what}


def _replaced(key: str, value: str) -> Json:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _address(address: str) -> Json:
    scheme, _, path = address.partition(":")
    if scheme == "unix":
        return {"pipe": {"path": path}}
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": port}}


def _shortened(sentence: str) -> str:
    return sentence if len(sentence) <= _LONGEST_SENTENCE else sentence[: _LONGEST_SENTENCE - 3] + "..."

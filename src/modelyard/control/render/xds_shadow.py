"""The way by which a unit that gets copies of requests asks the unit whose answers callers get.

A listener of its own: a Unix socket, or in a pod a port. There the secret of the unit that asks is what chooses the
scope, so that others find nothing; the scope knows one unit, and of that only the inferences of one model. Envoy finds
scopes by a hash of their keys, which can be computed; so a scope lets in only who bears the secret itself, and scopes
of public ids, which know nothing of that, let nobody in. The cluster is one of its own, whose limits and statistics are
not those that callers' requests count for.
Source: Envoy API v3 (listener.proto, http_connection_manager.proto, scoped_route.proto, cluster.proto).
"""

from typing import Any, NamedTuple

from modelyard.control.ir.route import Endpoints
from modelyard.control.ir.values import Key
from modelyard.control.render import xds
from modelyard.control.render.xds_traffic import seconds
from modelyard.wire.work import GATEWAY_HEADER, SHADOW_HEADER

Json = dict[str, Any]

LISTENER_NAME = "shadow"

_MOST_REQUESTS = 16  # under way at one time, by all replicas that compare; as many wait
_LARGEST_HEADERS_KB = 4
_TYPE = "type.googleapis.com/envoy.extensions"
_RBAC = f"{_TYPE}.filters.http.rbac.v3"
_BEARERS = "bearers"
"""The filter that lets in who bears a secret. The public listener has none of that name."""
_DENIED = {"default_value": 403, "runtime_key": "modelyard.shadow_denied"}
_REFUSAL = '{"error": "only a revision that gets copies of requests is answered here, and only about those"}'


class Asking(NamedTuple):
    """Who may ask whom. name: of its scope and cluster; no public id and no unit has such a one.

    asks: the unit that does; secret: of that, and no other one's. unit, unit_secret, addresses: of the one that is
    asked. ids: of the model.
    """

    name: str
    asks: str
    secret: str
    unit: str
    unit_secret: str
    addresses: tuple[str, ...]
    ids: tuple[str, ...]
    timeout_seconds: float


def name(owner: Key) -> str:
    """Of a service. The statistics that Envoy keeps are those of names with one dot."""
    return f"~shadow.{owner.namespace}.{owner.name}"


def listener(where: str) -> Json:
    """where: the path of a socket, or `host:port`. Nothing in it depends on who may ask."""
    connections = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": LISTENER_NAME,
        "codec_type": "HTTP1",
        "max_request_headers_kb": _LARGEST_HEADERS_KB,
        "request_headers_timeout": "5s",
        # Who may not ask any more is not left with an old connection.
        "common_http_protocol_options": {"idle_timeout": "5s", "max_requests_per_connection": 1},
        "normalize_path": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "generate_request_id": False,
        "early_header_mutation_extensions": [_without_orders()],
        "http_filters": [
            {"name": _BEARERS, "typed_config": {"@type": f"{_RBAC}.RBAC", "rules": {"action": "ALLOW"}}},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router", "suppress_envoy_headers": True},
            },
        ],
        "local_reply_config": {
            "mappers": [
                {
                    "filter": {"status_code_filter": {"comparison": {"op": "EQ", "value": _DENIED}}},
                    "body": {"inline_string": _REFUSAL},
                }
            ]
        },
        "scoped_routes": {
            "name": "shadows",
            # Scopes of public ids have keys of one part: neither listener finds what the other one shows.
            "scope_key_builder": {"fragments": [_part(GATEWAY_HEADER), _part(":path", 1)]},
            "rds_config_source": xds.ADS,
            "scoped_rds": {"scoped_rds_config_source": {**xds.ADS, "initial_fetch_timeout": "0s"}},
        },
    }
    manager = {"name": "envoy.filters.network.http_connection_manager", "typed_config": connections}
    return {
        "name": LISTENER_NAME,
        "address": _address(where),
        "enable_reuse_port": False,
        "filter_chains": [{"filters": [manager]}],
    }


def _address(where: str) -> Json:
    if where.startswith("/"):
        return {"pipe": {"path": where, "mode": 0o600}}
    host, _, port = where.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def _part(header: str, index: int | None = None) -> Json:
    """A part of the key: a header, or one element of a path."""
    whole: Json = {"name": header, "index": 0}
    return {"header_value_extractor": whole if index is None else whole | {"element_separator": "/", "index": index}}


def _without_orders() -> Json:
    """Headers by which Envoy would be told to try again, for instance."""
    return {
        "name": "strip",
        "typed_config": {
            "@type": f"{_TYPE}.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": [{"remove_on_match": {"key_matcher": {"prefix": "x-envoy-", "ignore_case": True}}}],
        },
    }


def cluster(asking: Asking) -> Json:
    """The unit that is asked, with its secret."""
    made = {
        **xds.cluster(asking.unit, asking.unit_secret),
        "name": asking.name,
        "type": "STATIC",
        "load_assignment": xds.assignment(Endpoints(unit=asking.name, addresses=asking.addresses)),
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": _MOST_REQUESTS,
                    "max_pending_requests": _MOST_REQUESTS,
                    "max_requests": _MOST_REQUESTS,
                    "max_retries": 0,
                }
            ]
        },
    }
    del made["eds_cluster_config"], made["outlier_detection"]
    return made


def scope(asking: Asking) -> Json:
    """What the unit that asks may ask: an inference, as a caller does. Nothing is tried again or copied."""
    action = {
        "cluster": asking.name,
        "timeout": seconds(asking.timeout_seconds),
        "idle_timeout": seconds(asking.timeout_seconds),
    }
    posted = [{"name": ":method", "string_match": {"exact": "POST"}}]
    host = {
        "name": asking.name,
        "domains": ["*"],
        "routes": [
            {"match": {"path": f"/v2/models/{each}/infer", "headers": posted}, "route": action} for each in asking.ids
        ],
        "request_headers_to_remove": [SHADOW_HEADER],
        "typed_per_filter_config": {_BEARERS: _bearing(asking.secret)},
    }
    return {
        "name": asking.name,
        "key": {"fragments": [{"string_key": asking.secret}, {"string_key": "v2"}]},
        "route_configuration": {"name": asking.name, "virtual_hosts": [host], "validate_clusters": False},
    }


def _bearing(secret: str) -> Json:
    shown = {"header": {"name": GATEWAY_HEADER, "string_match": {"exact": secret}}}
    policy = {"permissions": [{"any": True}], "principals": [shown]}
    return {
        "@type": f"{_RBAC}.RBACPerRoute",
        "rbac": {"rules": {"action": "ALLOW", "policies": {"bearer": policy}}},
    }

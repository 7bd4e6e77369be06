"""The listener in Envoy's words: how callers are met, and what every request passes.

It never changes while callers are connected, since that would drain their connections: what depends on settings are
filters that are sent apart (extension configuration discovery) and the certificates (secret discovery).
Source: Envoy API v3 (listener.proto, http_connection_manager.proto).
"""

from typing import Any

from modelyard.control.ir.platform import Tracing
from modelyard.control.render import (
    xds_access,
    xds_door,
    xds_grpc,
    xds_limits,
    xds_log,
    xds_replies,
    xds_tracing,
    xds_traffic,
    xds_visibility,
)
from modelyard.control.render.xds import ADS, INDEX, KEYS
from modelyard.control.render.xds_door import Door

Json = dict[str, Any]

_LARGEST_HEADERS_KB = 12
_TOKEN_HEADERS = ("x-envoy-", "x-modelyard-", "x-auth-")
_TYPE = "type.googleapis.com/"


def listener(door: Door, log: str, tracing: Tracing | None = None) -> Json:
    """A way in. Changing it would drain connections, so nothing in it depends on routes.

    log: path of the access log. tracing: whoever turns it on or off drains connections.
    """
    connections = _connections(door) | {"access_log": xds_log.access_log(log), **xds_log.request_ids()}
    if tracing is not None:
        connections["tracing"] = xds_tracing.tracing(tracing)
    manager = {"name": "envoy.filters.network.http_connection_manager", "typed_config": connections}
    return {
        "name": door.name,
        "address": xds_door.address(door),
        # With SO_REUSEPORT two servers of one user would share a port in silence.
        "enable_reuse_port": False,
        "filter_chains": [{"filters": [manager], **xds_door.chain(door)}],
    }


def _connections(door: Door) -> Json:
    return {
        "@type": f"{_TYPE}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "codec_type": "AUTO",  # HTTP/1.1 and, known by its first bytes, HTTP/2
        "server_name": "modelyard",
        "use_remote_address": True,
        "internal_address_config": {},
        "max_request_headers_kb": _LARGEST_HEADERS_KB,
        "request_headers_timeout": "10s",
        "common_http_protocol_options": xds_door.lifetime(door),
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "early_header_mutation_extensions": [_headers(door)],
        **xds_door.limits(door),
        "http_filters": [
            xds_access.filter_config(xds_access.RECOGNIZE, ADS),
            xds_access.filter_config(xds_access.AUTHENTICATE, ADS),
            xds_access.filter_config(xds_access.IDENTIFY, ADS),
            xds_access.filter_config(xds_access.DOORMAN, ADS),
            *xds_grpc.patience(),
            {"name": "index", "typed_config": _index()},
            xds_access.filter_config(xds_access.ALLOW, ADS),
            {"name": xds_limits.LIMIT, "typed_config": xds_limits.unlimited()},
            *xds_traffic.listener_filters(),
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": f"{_TYPE}envoy.extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": True,
                },
            },
        ],
        "local_reply_config": {"mappers": xds_replies.mappers()},
        "scoped_routes": {
            "name": "public-ids",
            "scope_key_builder": {
                "fragments": [{"header_value_extractor": {"name": ":path", "element_separator": "/", "index": 3}}]
            },
            "rds_config_source": ADS,
            # Never serve with an empty table because the first answer took long.
            "scoped_rds": {"scoped_rds_config_source": {**ADS, "initial_fetch_timeout": "0s"}},
        },
    }


def _headers(door: Door) -> Json:
    """Headers that steer Envoy or tell the front who calls are never taken from a caller."""
    removed = [{"remove_on_match": {"key_matcher": {"prefix": each, "ignore_case": True}}} for each in _TOKEN_HEADERS]
    return {
        "name": "strip",
        "typed_config": {
            "@type": f"{_TYPE}envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": [*removed, *([xds_visibility.mark()] if door.internal else []), xds_log.bounded_id()],
        },
    }


def _index() -> Json:
    """`/v2` and the like have no element 3, and gRPC has none: give them one, and choose the scope again."""
    elsewhere = {
        "/v2": f"/v2/server/{INDEX}",
        "/v2/": f"/v2/server/{INDEX}",
        "/v2/models": f"/v2/models/{INDEX}",
        xds_access.KEYS_PATH: f"{xds_access.KEYS_PATH}/{KEYS}",
    }
    return xds_grpc.composite({path: _go(to) for path, to in elsewhere.items()} | xds_grpc.choices(INDEX))


def _go(path: str) -> Json:
    return xds_grpc.lua(
        f"function envoy_on_request(handle) handle:headers():replace(':path', '{path}') handle:clearRouteCache() end"
    )

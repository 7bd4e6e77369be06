"""The listener in Envoy's words: how callers are met, and what every request passes.

It never changes while callers are connected, since that would drain their connections: what depends on settings are
filters that are sent apart (extension configuration discovery) and the certificates (secret discovery).
Source: Envoy API v3 (listener.proto, http_connection_manager.proto).
"""

from typing import Any

from modelyard.control.render import xds_grpc, xds_replies
from modelyard.control.render.xds import ADS, INDEX, LISTENER_NAME

Json = dict[str, Any]

_LARGEST_HEADERS_KB = 12
_TOKEN_HEADERS = ("x-envoy-", "x-modelyard-", "x-auth-")
_TYPE = "type.googleapis.com/"
# A loopback name or address, with any port: callers may come through a tunnel.
_LOOPBACK = r"(?i:localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?"


def listener(host: str, port: int) -> Json:
    """The one listener. Changing it would drain connections, so nothing in it depends on routes."""
    return {
        "name": LISTENER_NAME,
        "address": {"socket_address": {"address": host, "port_value": port}},
        # With SO_REUSEPORT two servers of one user would share a port in silence.
        "enable_reuse_port": False,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": _connections()}]}
        ],
    }


def _connections() -> Json:
    return {
        "@type": f"{_TYPE}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "codec_type": "AUTO",  # HTTP/1.1 and, known by its first bytes, HTTP/2
        "server_name": "modelyard",
        "use_remote_address": True,
        "internal_address_config": {},
        "generate_request_id": False,
        "max_request_headers_kb": _LARGEST_HEADERS_KB,
        "request_headers_timeout": "10s",
        "common_http_protocol_options": {"idle_timeout": "300s"},
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "early_header_mutation_extensions": [_stripping()],
        "http_filters": [
            {"name": "local-callers", "typed_config": _local_callers()},
            *xds_grpc.patience(),
            {"name": "index", "typed_config": _index()},
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


def _stripping() -> Json:
    """Headers that steer Envoy or tell the front who calls are never taken from a caller."""
    removed = [{"remove_on_match": {"key_matcher": {"prefix": each, "ignore_case": True}}} for each in _TOKEN_HEADERS]
    return {
        "name": "strip",
        "typed_config": {
            "@type": f"{_TYPE}envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": removed,
        },
    }


def _local_callers() -> Json:
    """Without authentication only local programs may call: a web page elsewhere must not, DNS rebinding included."""
    host = _header(":authority", {"string_match": {"safe_regex": {"regex": _LOOPBACK}}})
    no_origin = _header("origin", {"present_match": True, "invert_match": True})
    own_origin = _header("origin", {"string_match": {"safe_regex": {"regex": f"https?://{_LOOPBACK}"}}})
    allowed = {"and_rules": {"rules": [host, {"or_rules": {"rules": [no_origin, own_origin]}}]}}
    return {
        "@type": f"{_TYPE}envoy.extensions.filters.http.rbac.v3.RBAC",
        "rules": {
            "action": "ALLOW",
            "policies": {"local": {"permissions": [allowed], "principals": [{"any": True}]}},
        },
    }


def _header(name: str, match: Json) -> Json:
    return {"header": {"name": name, **match}}


def _index() -> Json:
    """`/v2` and `/v2/models` have no element 3, and gRPC has none: give them one, and choose the scope again."""
    elsewhere = {"/v2": f"/v2/server/{INDEX}", "/v2/": f"/v2/server/{INDEX}", "/v2/models": f"/v2/models/{INDEX}"}
    return xds_grpc.composite({path: _go(to) for path, to in elsewhere.items()} | xds_grpc.choices(INDEX))


def _go(path: str) -> Json:
    return xds_grpc.lua(
        f"function envoy_on_request(handle) handle:headers():replace(':path', '{path}') handle:clearRouteCache() end"
    )

"""How Envoy starts: where it asks for everything else, what it may use, and who may ask it what.

On a laptop it is a child of the server that tells it, and all it has besides its listener are two private sockets. In a
pod it finds whoever decides by name, over TLS with certificates on both sides; there the kubelet may ask whether it is
ready, in plain text and nothing else, and the operator what it counts, with its certificate.
Source: Envoy API v3 (bootstrap.proto, listener.proto, tls.proto, common.proto, cluster.proto).
"""

import json
from typing import Any, NamedTuple

from modelyard.control.render import xds, xds_access, xds_shadow, xds_stats

Json = dict[str, Any]

GATEWAY_SAN, OPERATOR_SAN = "gateway.modelyard", "operator.modelyard"
"""DNS names in the certificates by which they know each other; no host has them."""
XDS_HOST, XDS_PORT = "modelyard-xds.modelyard-system.svc", 18000
"""Service of the operator that decides; its certificate is for this name as well."""
PUBLIC_PORT, INTERNAL_PORT, HEALTH_PORT, STATS_PORT = 8080, 8090, 9901, 9902
GATEWAYS = "modelyard.own.gateways"
"""The cluster of all gateways, which nobody calls: it tells Envoy what share of the callers comes by each zone."""
ARGUMENTS = (
    *("--concurrency", "2"),
    *("-l", "warning", "--component-log-level", "misc:error"),
    "--disable-hot-restart",
    *("--log-format", "%Y-%m-%dT%T.%e %l %n %_"),
    # Callers of a listener that is taken away leave with their next answer, and not at some time.
    *("--drain-strategy", "immediate"),
)
"""Of Envoy in a pod, besides `-c` and `--service-node`."""

_CERTIFICATE, _AUTHORITY = "certificate", "authority"
_HEAP_SHARE = 0.8
_CONNECTION_BYTES = 128 * 2**10
_MOST_PROBES = 256
# Thousands of routes come in large messages: what these needed is given back within some seconds, and so slowly that
# memory which requests need again costs little.
_GIVEN_BACK = {"bytes_to_release": 8 * 2**20, "memory_release_interval": "1s"}
_MOST_QUESTIONS = 64  # models are behind those who ask: they must not take the connections of callers
_LISTENER_LIMITS = "envoy.resource_limits.listener"
_HEAP = "envoy.resource_monitors.fixed_heap"
_TYPE = "type.googleapis.com/"
_TLS = f"{_TYPE}envoy.extensions.transport_sockets.tls.v3"
# Statistics that are kept are those of names with one dot.
_ADMIN = "modelyard.own.admin"
_GATEWAYS_SECONDS = 5.0
_LEAST_REPLICAS = 2  # before it matters where they are
_HEALTH, _STATS = "health", "stats"


class Limits(NamedTuple):
    """What callers may take.

    connections: at one time, further ones are closed; public_connections: of those, by the public listener. heap_bytes:
    of Envoy's memory; with nearly all of it taken, requests are refused.
    """

    connections: int
    public_connections: int
    heap_bytes: int


class Pod(NamedTuple):
    """Where an Envoy in a pod finds and leaves things.

    control_host, control_port: where the operator listens, whose certificate is for server_name. folder: of the files
    of `files`; its part `tls` has those of the Secret. run: where sockets may be made. host: what it binds for health
    and statistics.
    """

    control_host: str = XDS_HOST
    control_port: int = XDS_PORT
    server_name: str = XDS_HOST
    folder: str = "/etc/modelyard"
    run: str = "/run/modelyard"
    host: str = "0.0.0.0"  # noqa: S104  the pod's network decides who gets there
    health_port: int = HEALTH_PORT
    stats_port: int = STATS_PORT


def limits(memory_bytes: int) -> Limits:
    """memory_bytes: what its container may use."""
    heap = int(memory_bytes * _HEAP_SHARE)
    connections = max(_MOST_PROBES, heap // _CONNECTION_BYTES)
    return Limits(connections=connections, public_connections=connections * 3 // 4, heap_bytes=heap)


def files(memory_bytes: int, pod: Pod | None = None) -> dict[str, str]:
    """What a pod needs in its folder, by name. memory_bytes: what the container may use."""
    pod = pod or Pod()
    secrets = {_CERTIFICATE: _certificate(pod), _AUTHORITY: _authority(pod)}
    found = {"bootstrap": in_pod(limits(memory_bytes), pod)} | {
        name: {"resources": [{"@type": f"{_TLS}.Secret", "name": name, **secret}]} for name, secret in secrets.items()
    }
    return {f"{name}.yaml": json.dumps(body, indent=2) + "\n" for name, body in found.items()}


def on_sockets(ads_socket: str, admin_socket: str, limits: Limits) -> Json:
    """Of a child process: no TCP port, not even for its admin."""
    control = {
        "name": xds.CONTROL,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": _http2({}),
        "load_assignment": _at(xds.CONTROL, {"pipe": {"path": ads_socket}}),
    }
    return {
        "node": {"id": "gateway", "cluster": "modelyard"},
        "admin": {"address": {"pipe": {"path": admin_socket, "mode": 0o600}}},
        "dynamic_resources": _discovery({}, {}),
        "static_resources": {"clusters": [control]},
        **_common(limits, {}),
    }


def in_pod(limits: Limits, pod: Pod) -> Json:
    """Of a container. Its node id comes with the command line."""
    admin = {
        "name": _ADMIN,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": _at(_ADMIN, _admin_socket(pod)),
    }
    return {
        "node": {"cluster": "modelyard", "metadata": {"stats_port": pod.stats_port}},
        "admin": {"address": {"pipe": {**_admin_socket(pod)["pipe"], "mode": 0o600}}},
        # Ready is who has his routes, however long that takes; and an operator that comes back is found soon.
        "dynamic_resources": _discovery({"initial_fetch_timeout": "0s"}, _soon()),
        "static_resources": {
            "clusters": [_control(pod), admin, _gateways()],
            "listeners": [_health(pod), _stats(pod)],
        },
        **_common(
            limits,
            {_HEALTH: _MOST_PROBES, _STATS: _MOST_PROBES, xds_shadow.LISTENER_NAME: _MOST_QUESTIONS},
            GATEWAYS,
        ),
    }


def _gateways() -> Json:
    """An operator that does not know of it is not waited for."""
    source = {**xds.ADS, "initial_fetch_timeout": f"{_GATEWAYS_SECONDS:g}s"}
    return {"name": GATEWAYS, "type": "EDS", "connect_timeout": "1s", "eds_cluster_config": {"eds_config": source}}


def _discovery(source: Json, service: Json) -> Json:
    ads = {"ads": {}, "resource_api_version": "V3", **source}
    return {
        "ads_config": {
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": True,
            "grpc_services": [{"envoy_grpc": {"cluster_name": xds.CONTROL, **service}}],
        },
        "lds_config": ads,
        "cds_config": ads,
    }


def _soon() -> Json:
    return {"retry_policy": {"retry_back_off": {"base_interval": "0.25s", "max_interval": "2s"}}}


def _common(limits: Limits, listeners: dict[str, int], gateways: str = "") -> Json:
    """listeners: how many connections they take, besides the public one. gateways: the cluster of this Envoy and its
    siblings, for balancing by zones; "": it has none.
    """
    most = {xds.LISTENER_NAME: limits.public_connections, **listeners}
    layer = {f"{_LISTENER_LIMITS}.{name}.connection_limit": count for name, count in most.items()}
    # A thousand clusters that nobody calls must cost little, and nobody reads most statistics.
    clusters: Json = {"enable_deferred_cluster_creation": True}
    if gateways:
        clusters["local_cluster_name"] = gateways
        # Here, and not in each cluster, where it would cost memory. Envoy's own is six.
        layer["upstream.zone_routing.min_cluster_size"] = _LEAST_REPLICAS
    return {
        "cluster_manager": clusters,
        "stats_config": xds_stats.stats_config(xds_access.UNKNOWN_KEYS),
        "stats_flush_interval": "5s",
        "stats_eviction_interval": xds_stats.EVICTION,
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        "memory_allocator_manager": _GIVEN_BACK,
        "overload_manager": _overload(limits),
        "layered_runtime": {"layers": [{"name": "limits", "static_layer": layer}]},
    }


def _overload(limits: Limits) -> Json:
    """Too many connections are closed. When memory runs out, it is first given back, then nobody new is answered."""
    monitor = f"{_TYPE}envoy.extensions.resource_monitors"
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": f"{monitor}.downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": limits.connections,
                },
            },
            {
                "name": _HEAP,
                "typed_config": {
                    "@type": f"{monitor}.fixed_heap.v3.FixedHeapConfig",
                    "max_heap_size_bytes": limits.heap_bytes,
                },
            },
        ],
        "actions": [
            {"name": f"envoy.overload_actions.{name}", "triggers": [{"name": _HEAP, "threshold": {"value": share}}]}
            for name, share in (("shrink_heap", 0.9), ("stop_accepting_requests", 0.95))
        ],
    }


def _http2(options: Json) -> Json:
    return {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{_TYPE}envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": options},
        }
    }


def _at(cluster: str, address: Json) -> Json:
    return {"cluster_name": cluster, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}


def _admin_socket(pod: Pod) -> Json:
    return {"pipe": {"path": f"{pod.run}/admin.sock"}}


def _control(pod: Pod) -> Json:
    """Whoever decides: one that was stopped without closing its connections is left after 15 s."""
    context = _tls(pod, pod.server_name) | {"@type": f"{_TLS}.UpstreamTlsContext", "sni": pod.server_name}
    names = {
        "@type": f"{_TYPE}envoy.extensions.clusters.dns.v3.DnsCluster",
        "dns_lookup_family": "ALL",
        "dns_refresh_rate": "5s",
        "dns_failure_refresh_rate": {"base_interval": "0.5s", "max_interval": "2s"},
    }
    return {
        "name": xds.CONTROL,
        "cluster_type": {"name": "envoy.cluster.dns", "typed_config": names},
        "connect_timeout": "2s",
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context},
        "typed_extension_protocol_options": _http2({"connection_keepalive": {"interval": "10s", "timeout": "5s"}}),
        "load_assignment": _at(
            xds.CONTROL, {"socket_address": {"address": pod.control_host, "port_value": pod.control_port}}
        ),
    }


def _tls(pod: Pod, peer: str) -> Json:
    """peer: the DNS name that the other side's certificate must be for."""
    names = [{"san_type": "DNS", "matcher": {"exact": peer}}]
    return {
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "alpn_protocols": ["h2"],
            "tls_certificate_sds_secret_configs": [_file(pod, _CERTIFICATE)],
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": names},
                "validation_context_sds_secret_config": _file(pod, _AUTHORITY),
            },
        }
    }


def _file(pod: Pod, name: str) -> Json:
    source = {"path_config_source": {"path": f"{pod.folder}/{name}.yaml"}, "resource_api_version": "V3"}
    return {"name": name, "sds_config": source}


def _certificate(pod: Pod) -> Json:
    """Read again whenever the folder of the Secret changes; by itself Envoy would read a static one only once."""
    return {
        "tls_certificate": {
            "certificate_chain": {"filename": f"{pod.folder}/tls/tls.crt"},
            "private_key": {"filename": f"{pod.folder}/tls/tls.key"},
            "watched_directory": {"path": f"{pod.folder}/tls"},
        }
    }


def _authority(pod: Pod) -> Json:
    return {
        "validation_context": {
            "trusted_ca": {"filename": f"{pod.folder}/tls/ca.crt"},
            "watched_directory": {"path": f"{pod.folder}/tls"},
        }
    }


def _health(pod: Pod) -> Json:
    """Like all listeners it is there once Envoy has everything that it was told at first."""
    return _listener(_HEALTH, pod, pod.health_port, ("/ready",), {})


def _stats(pod: Pod) -> Json:
    context = _tls(pod, OPERATOR_SAN) | {"@type": f"{_TLS}.DownstreamTlsContext", "require_client_certificate": True}
    context["common_tls_context"]["alpn_protocols"] = ["http/1.1"]
    socket = {"name": "envoy.transport_sockets.tls", "typed_config": context}
    return _listener(_STATS, pod, pod.stats_port, ("/stats", "/stats/prometheus"), {"transport_socket": socket})


def _listener(name: str, pod: Pod, port: int, paths: tuple[str, ...], chain: Json) -> Json:
    """A way to a few pages of the admin interface, open as well when callers have taken all that there is."""
    getting = [{"name": ":method", "string_match": {"exact": "GET"}}]
    routes: list[Json] = [
        {"match": {"path": path, "headers": getting}, "route": {"cluster": _ADMIN, "timeout": "10s"}} for path in paths
    ]
    connections = {
        "@type": f"{_TYPE}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "HTTP1",
        "server_name": "modelyard",
        "max_request_headers_kb": 4,
        "request_headers_timeout": "5s",
        "common_http_protocol_options": {"idle_timeout": "30s"},
        "generate_request_id": False,
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
        "route_config": {"name": name, "virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes}]},
    }
    manager = {"name": "envoy.filters.network.http_connection_manager", "typed_config": connections}
    return {
        "name": name,
        "address": {"socket_address": {"address": pod.host, "port_value": port}},
        "enable_reuse_port": False,
        "ignore_global_conn_limit": True,
        "bypass_overload_manager": True,
        "filter_chains": [{"filters": [manager], **chain}],
    }

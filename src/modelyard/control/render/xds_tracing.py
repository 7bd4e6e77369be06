"""Spans of requests in Envoy's words: OpenTelemetry over gRPC, W3C trace context from callers and to replicas.

Source: Envoy, "Tracing"; OpenTelemetryConfig; W3C Trace Context.
"""

from typing import Any

from modelyard.control.ir.platform import Tracing

Json = dict[str, Any]

COLLECTOR = "collector"
"""The cluster of what takes the spans. Units have a dot in their names."""
_SERVICE = "modelyard-gateway"
_TYPE = "type.googleapis.com/"
_SAMPLERS = f"{_TYPE}envoy.extensions.tracers.opentelemetry.samplers.v3"


def tracing(wanted: Tracing) -> Json:
    """Of a listener's connections. A caller's trace is gone on with, whatever the share of requests that begin one."""
    config = {
        "@type": f"{_TYPE}envoy.config.trace.v3.OpenTelemetryConfig",
        "grpc_service": {"envoy_grpc": {"cluster_name": COLLECTOR}, "timeout": "2s"},
        "service_name": _SERVICE,
        "sampler": _sampler(wanted.sample_percent),
    }
    return {
        "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": config},
        "max_path_tag_length": 256,
        "custom_tags": [
            {"tag": "modelyard.model", "value": "%ROUTE_NAME%"},
            {"tag": "modelyard.revision", "value": "%UPSTREAM_CLUSTER%"},
        ],
    }


def _sampler(percent: int) -> Json:
    """What a caller's trace context says counts; else a share of the traces, told by their ids."""
    share = {
        "@type": f"{_SAMPLERS}.TraceIdRatioBasedSamplerConfig",
        "sampling_percentage": {"numerator": percent, "denominator": "HUNDRED"},
    }
    by_share = {"name": "envoy.tracers.opentelemetry.samplers.trace_id_ratio_based", "typed_config": share}
    by_caller = {"@type": f"{_SAMPLERS}.ParentBasedSamplerConfig", "wrapped_sampler": by_share}
    return {"name": "envoy.tracers.opentelemetry.samplers.parent_based", "typed_config": by_caller}


def collector(wanted: Tracing) -> Json:
    """The cluster COLLECTOR."""
    host, _, port = wanted.address.rpartition(":")
    http2 = {
        "@type": f"{_TYPE}envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    address = {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}
    return {
        "name": COLLECTOR,
        "type": "STRICT_DNS",
        "connect_timeout": "2s",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
        "load_assignment": {
            "cluster_name": COLLECTOR,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }

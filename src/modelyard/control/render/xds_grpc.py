"""gRPC in Envoy's words: a call is for the model that its message names, so that name becomes element 3 of its path.

Then one scope serves an id, however it was asked for. `grpc_field_extraction` finds the name, Lua puts it into the
path, with the version behind it if there is one, and calls about the server itself get an element 3 that is not a
possible id. To a replica a call goes as HTTP/1.1 with the message as gRPC frames it and, in the answer, trailers: the
filter `grpc_http1_reverse_bridge` would hide compressed messages and every status but a few, and spoil what Envoy
answers by itself.

Source: Envoy, "gRPC field extraction", "Composite filter"; gRPC over HTTP2 (PROTOCOL-HTTP2.md).
"""

import base64
from typing import Any

from google.protobuf import descriptor_pb2

from modelyard.wire import oip_grpc

Json = dict[str, Any]

SERVICE = oip_grpc.SERVICE
LARGEST_MESSAGE_BYTES = 64 * 2**20
"""Of a call: it is kept until its model is known."""

MODEL_METHODS = {"ModelInfer": "model_name", "ModelMetadata": "name", "ModelReady": "name"}
"""Methods about a model, and the field of their request that names it; always field 1."""
_VERSIONS = {"ModelInfer": "model_version", "ModelMetadata": "version", "ModelReady": "version"}
"""The field that names a revision or a tag, which may be absent; always field 2."""
SERVER_METHODS = ("ServerLive", "ServerReady", "ServerMetadata")

_TYPE = "type.googleapis.com/"
_EXTRACTION = "envoy.filters.http.grpc_field_extraction"
_TYPE_STRING = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
_ONE = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL

# Only a name that may stand in a path: then it is the same name for Envoy and for whoever reads the path later.
_SCRIPT = """
function envoy_on_request(handle)
  local headers = handle:headers()
  local kind = headers:get('content-type') or ''
  if kind ~= 'application/grpc' and string.sub(kind, 1, 17) ~= 'application/grpc+' then return end
  local name = INDEX
  local field = FIELD
  if field ~= '' then
    local found = handle:streamInfo():dynamicMetadata():get('EXTRACTION')
    name = found and found[field] or ''
    if type(name) == 'table' then name = name[#name] or '' end
    if name == '' then
      local why = ': is missing or not readable; expected the name of a model'
      handle:respond({[':status'] = '400'}, field .. why)
      return
    end
    if #name > 400 or not string.match(name, '^[%w][%w._-]*$') then name = '-' end
    local version = found and found[VERSION] or ''
    if type(version) == 'table' then version = version[#version] or '' end
    if #version <= 64 and string.match(version, '^[%w][%w-]*$') then name = name .. '/' .. version end
  end
  headers:replace(':path', headers:get(':path') .. '/' .. name)
  handle:clearRouteCache()
end
"""


def path(method: str, public_id: str = "") -> str:
    """The path of a method, with an id as element 3 if there is one."""
    return f"/{SERVICE}/{method}/{public_id}" if public_id else f"/{SERVICE}/{method}"


def patience() -> tuple[Json, Json]:
    """Two filters: keep a whole message about a model, which may be large; and find the model's name in it."""
    buffer = {
        "@type": f"{_TYPE}envoy.extensions.filters.http.buffer.v3.Buffer",
        "max_request_bytes": LARGEST_MESSAGE_BYTES,
    }
    keep = composite({path(method): buffer for method in MODEL_METHODS})
    find = {
        "@type": f"{_TYPE}envoy.extensions.filters.http.grpc_field_extraction.v3.GrpcFieldExtractionConfig",
        "descriptor_set": {"inline_bytes": base64.b64encode(_descriptors()).decode()},
        "extractions_by_method": {
            f"{SERVICE}.{method}": {"request_field_extractions": {field: {}, _VERSIONS[method]: {}}}
            for method, field in MODEL_METHODS.items()
        },
    }
    return {"name": "grpc-keep", "typed_config": keep}, {"name": _EXTRACTION, "typed_config": find}


def choices(index: str) -> dict[str, Json]:
    """By path: the filter that chooses a scope for a call; calls about the server get the one called `index`."""
    fields = {**MODEL_METHODS, **dict.fromkeys(SERVER_METHODS, "")}
    return {path(method): lua(_script(field, _VERSIONS.get(method, ""), index)) for method, field in fields.items()}


def server_entries(index: str, cluster: str) -> list[Json]:
    """Routes of the calls about the server: a cluster that speaks gRPC answers them."""
    return [
        {
            "match": {"path": path(method, index), "grpc": {}},
            "route": {"cluster": cluster, "prefix_rewrite": path(method), "timeout": "5s"},
        }
        for method in SERVER_METHODS
    ]


def model_match(public_id: str) -> Json:
    """Matches every call about a model, in its scope.

    Envoy finds a scope by a hash of the id, and names that collide can be computed: so the path is looked at again.
    """
    named = {"name": ":path", "string_match": {"contains": f"/{public_id}"}}
    return {"prefix": f"/{SERVICE}/", "grpc": {}, "headers": [named]}


def composite(by_path: dict[str, Json]) -> Json:
    """A filter that runs, for exactly these paths, these filters."""
    actions = {
        each: {
            "action": {
                "name": "run",
                "typed_config": {
                    "@type": f"{_TYPE}envoy.extensions.filters.http.composite.v3.ExecuteFilterAction",
                    "typed_config": {"name": "run", "typed_config": config},
                },
            }
        }
        for each, config in by_path.items()
    }
    seen = {"@type": f"{_TYPE}envoy.type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": ":path"}
    return {
        "@type": f"{_TYPE}envoy.extensions.common.matching.v3.ExtensionWithMatcher",
        "extension_config": {
            "name": "composite",
            "typed_config": {"@type": f"{_TYPE}envoy.extensions.filters.http.composite.v3.Composite"},
        },
        "xds_matcher": {
            "matcher_tree": {"input": {"name": "path", "typed_config": seen}, "exact_match_map": {"map": actions}}
        },
    }


def lua(code: str) -> Json:
    """A filter written in Lua."""
    return {
        "@type": f"{_TYPE}envoy.extensions.filters.http.lua.v3.Lua",
        "default_source_code": {"inline_string": code},
    }


def _script(field: str, version: str, index: str) -> str:
    names = {"INDEX": f"'{index}'", "FIELD": f"'{field}'", "VERSION": f"'{version}'", "EXTRACTION": _EXTRACTION}
    code = _SCRIPT
    for name, value in names.items():
        code = code.replace(name, value)
    return code


def _descriptors() -> bytes:
    """As much of the protocol as finding a name needs: everything else of a message is skipped unread."""
    file = descriptor_pb2.FileDescriptorProto(name="inference.proto", package="inference", syntax="proto3")
    service = file.service.add(name=SERVICE.partition(".")[2])
    for method, field in MODEL_METHODS.items():
        request, response = f"{method}Request", f"{method}Response"
        message = file.message_type.add(name=request)
        message.field.add(name=field, number=1, type=_TYPE_STRING, label=_ONE)
        message.field.add(name=_VERSIONS[method], number=2, type=_TYPE_STRING, label=_ONE)
        file.message_type.add(name=response)
        service.method.add(name=method, input_type=f".inference.{request}", output_type=f".inference.{response}")
    return descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString(deterministic=True)

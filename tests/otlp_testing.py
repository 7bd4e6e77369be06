"""A collector of spans: as much of OpenTelemetry's protocol (OTLP over gRPC) as tests look at."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
_TYPES = {"bytes": 12, "string": 9, "enum": 5}
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Request": {"resource_spans": (1, "ResourceSpans*")},
    "ResourceSpans": {"resource": (1, "Resource"), "scope_spans": (2, "ScopeSpans*")},
    "Resource": {"attributes": (1, "KeyValue*")},
    "ScopeSpans": {"spans": (2, "Span*")},
    "Span": {
        "trace_id": (1, "bytes"),
        "span_id": (2, "bytes"),
        "parent_span_id": (4, "bytes"),
        "name": (5, "string"),
        "attributes": (9, "KeyValue*"),
    },
    "KeyValue": {"key": (1, "string"), "value": (2, "AnyValue")},
    "AnyValue": {"string_value": (1, "string")},
}


@dataclass(frozen=True)
class Span:
    """Ids in hexadecimal digits."""

    trace: str
    id: str
    parent: str
    name: str
    service: str
    tags: dict[str, str]


@dataclass
class Collector:
    """address: `host:port`. spans: all that have come."""

    address: str = ""
    spans: list[Span] = field(default_factory=list)

    async def export(self, request: Any, context: Any) -> bytes:
        for resource in request.resource_spans:
            service = _tags(resource.resource.attributes).get("service.name", "")
            for scope in resource.scope_spans:
                self.spans += [
                    Span(
                        each.trace_id.hex(),
                        each.span_id.hex(),
                        each.parent_span_id.hex(),
                        each.name,
                        service,
                        _tags(each.attributes),
                    )
                    for each in scope.spans
                ]
        return b""


@contextlib.asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    """One that runs while the block does."""
    found = Collector()
    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(found.export, request_deserializer=_request().FromString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Export": method}),))
    found.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield found
    finally:
        await server.stop(0)


@cache
def _request() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="otlp.proto", package="otlp", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for key, (number, kind) in fields.items():
            plain = kind.rstrip("*")
            one: Any = message.field.add(name=key, number=number, label=3 if kind.endswith("*") else 1)
            if plain in _TYPES:
                one.type = _TYPES[plain]
            else:
                one.type, one.type_name = 11, f".otlp.{plain}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("otlp.Request"))


def _tags(attributes: Any) -> dict[str, str]:
    return {each.key: each.value.string_value for each in attributes}

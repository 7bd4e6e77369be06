"""What gRPC callers may ask about the server itself. Envoy cannot make a gRPC answer with a message, so we do."""

import os
from typing import Any

# As in `ads`, whichever of the two is imported first.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc

from modelyard.control.render import xds_grpc
from modelyard.wire import oip_grpc


def answering(version: str) -> "grpc.GenericRpcHandler[Any, Any]":
    """ServerLive, ServerReady and ServerMetadata, for a server of `modelyard.control.gateway.ads`."""
    bodies = {
        "ServerLive": oip_grpc.encode_live(True),
        "ServerReady": oip_grpc.encode_live(True),
        "ServerMetadata": oip_grpc.encode_server_metadata("modelyard", version),
    }
    assert bodies.keys() == set(xds_grpc.SERVER_METHODS)
    handlers = {name: grpc.unary_unary_rpc_method_handler(_giving(body)) for name, body in bodies.items()}
    return grpc.method_handlers_generic_handler(xds_grpc.SERVICE, handlers)


def _giving(body: bytes) -> Any:
    async def give(request: bytes, context: Any) -> bytes:  # noqa: ARG001  gRPC's signature
        return body

    return give

"""The aggregated discovery service (delta) on a Unix socket: the table goes to one Envoy, its answers come back."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import Any

# Children are executed at once, so gRPC need not survive a fork; it would stop its threads at each, and complain.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc

from modelyard.control.gateway import descriptors
from modelyard.control.gateway.exchange import Exchange, Table
from modelyard.control.render import xds

TYPES = (xds.SECRET, xds.EXTENSION, xds.CLUSTER, xds.ASSIGNMENT, xds.LISTENER, xds.SCOPE)
_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
_LARGEST_MESSAGE_BYTES = 64 * 2**20


class Ads:
    """Serves a table. answered: called with a type and names when something became known about them (None: about all).

    One client is served: a newer stream ends the older one, whose Envoy is gone or has given the stream up.
    """

    def __init__(self, socket: Path, answered: Callable[[str, Collection[str] | None], None]) -> None:
        self._socket = socket
        self._answered = answered
        # Envoy 1.40 acknowledges a filter that it has just refused, when it comes again, and does not use it.
        self._table = Table(TYPES, _renewed, apart=(xds.EXTENSION,))
        self._table.is_whole = False
        self._exchange: Exchange | None = None
        self._wake = asyncio.Event()

    def put(self, kind: str, name: str, body: dict[str, Any]) -> None:
        """Add or replace a resource. Raises UserError where it is not a message of that type."""
        if self._table.put(kind, name, descriptors.encode(kind, body)):
            self._touched(kind, name)

    def remove(self, kind: str, name: str) -> None:
        """Forget a resource."""
        if self._table.remove(kind, name):
            self._touched(kind, name)

    def complete(self) -> None:
        """Everything that is wanted was put: what Envoy has beyond it, from an earlier control plane, is to go."""
        self._table.is_whole = True
        if self._exchange is not None:
            self._exchange.touch_surplus()
            self._wake.set()

    def holds(self, kind: str, name: str) -> bool:
        """Whether Envoy acknowledged what the table holds under that name, be it nothing."""
        return self._exchange is not None and self._exchange.holds(kind, name)

    def refusal(self, kind: str, name: str) -> str:
        """Envoy's words on what the table holds under that name, or ""."""
        return self._exchange.refusal(kind, name) if self._exchange else ""

    @contextlib.asynccontextmanager
    async def serving(self, *others: "grpc.GenericRpcHandler[Any, Any]") -> AsyncIterator[None]:
        """Listen while the block runs. others: what the same socket answers besides."""
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", _LARGEST_MESSAGE_BYTES),
                ("grpc.max_send_message_length", _LARGEST_MESSAGE_BYTES),
            ]
        )
        method = grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=_message("DeltaDiscoveryRequest").FromString,
            response_serializer=_message("DeltaDiscoveryResponse").SerializeToString,
        )
        handler = grpc.method_handlers_generic_handler(_SERVICE, {"DeltaAggregatedResources": method})
        server.add_generic_rpc_handlers((handler, *others))
        server.add_insecure_port(f"unix:{self._socket}")
        await server.start()
        try:
            yield
        finally:
            await server.stop(0)

    async def _stream(self, requests: AsyncIterator[Any], context: Any) -> None:
        exchange = Exchange(self._table)
        self._exchange = exchange
        self._wake.set()  # a writer of an older stream finds itself replaced
        writer = asyncio.create_task(self._write(exchange, context))
        reader = asyncio.create_task(self._read(exchange, requests))
        try:
            done, _ = await asyncio.wait((writer, reader), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writer, reader):
                task.cancel()
            await asyncio.gather(writer, reader, return_exceptions=True)
            if self._exchange is exchange:
                self._exchange = None
        for task in done:
            task.result()

    async def _read(self, exchange: Exchange, requests: AsyncIterator[Any]) -> None:
        async for request in requests:
            kind, names = exchange.receive(request)
            self._wake.set()
            self._answered(kind, names)

    async def _write(self, exchange: Exchange, context: Any) -> None:
        while True:
            await self._wake.wait()
            if self._exchange is not exchange:
                return  # and leave the event set for the newer one
            self._wake.clear()
            for response in exchange.responses():
                await context.write(response)

    def _touched(self, kind: str, name: str) -> None:
        if self._exchange is not None:
            self._exchange.touch(kind, name)
            self._wake.set()


def _renewed(kind: str, body: bytes, count: int) -> bytes:
    """Envoy 1.40 remembers the good scopes of a refused response without using them: sent again as they were, they
    would be acknowledged and still not be in force. So they come again changed, in metadata that nobody reads.
    """
    if kind != xds.SCOPE:
        return body
    scope: Any = descriptors.message_class(kind).FromString(body)
    scope.route_configuration.metadata.filter_metadata["modelyard"].fields["renewal"].number_value = count
    return bytes(scope.SerializeToString(deterministic=True))


def _message(name: str) -> Any:
    return descriptors.message_class(f"envoy.service.discovery.v3.{name}")

"""The aggregated discovery service (delta): the table goes to every Envoy that asks, their answers come back."""

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

# Children are executed at once, so gRPC need not survive a fork; it would stop its threads at each, and complain.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc

from modelyard.control.gateway import descriptors
from modelyard.control.gateway.exchange import Exchange
from modelyard.control.gateway.listening import Listening, peer_host
from modelyard.control.gateway.scope_key import hashed
from modelyard.control.gateway.table import Order, Table
from modelyard.control.render import xds

_log = logging.getLogger(__name__)

TYPES = (xds.SECRET, xds.EXTENSION, xds.CLUSTER, xds.ASSIGNMENT, xds.LISTENER, xds.SCOPE)
_ORDER = Order(
    doors=xds.LISTENER,
    ground=(xds.CLUSTER, xds.ASSIGNMENT),
    above=xds.SCOPE,
    within=(xds.SECRET, xds.EXTENSION, xds.SCOPE),
)
_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
_LARGEST_MESSAGE_BYTES = 64 * 2**20
_MOST_STREAMS = 1024
_MOST_SECONDS_TO_SETTLE = 60.0
# An Envoy leaves a control plane that hangs after 15 s, and finds the next one within two more.
_MOST_SECONDS_AWAY = 20.0
_NODE = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


class Node:
    """An Envoy that is connected. name: unique; that of its pod. host: its address, "" on a Unix socket. zone: of the
    cluster, "" if not known."""

    def __init__(self, exchange: Exchange, host: str) -> None:
        self.name = ""
        self.host = host
        self.zone = ""
        self.stats_port = 0
        self.exchange = exchange
        self.wake = asyncio.Event()
        self.is_over = False

    def end(self) -> None:
        """Its stream is not gone on with."""
        self.is_over = True
        self.wake.set()


class Ads:
    """Serves a table. answered: called with a type and names when something became known about them (None: about all).

    Of each Envoy one stream is served: a newer one of the same name ends the older one. is_open: Envoys that connect
    before wait, and are told nothing.
    """

    def __init__(
        self,
        listening: Listening,
        answered: Callable[[str, Collection[str] | None], None],
        *,
        is_open: bool = True,
        has_doors: bool = True,
    ) -> None:
        self.port = 0
        self.met = asyncio.Event()
        self._listening = listening
        self._answered = answered
        # Envoy 1.40 acknowledges a filter that it has just refused, when it comes again, and does not use it.
        self._table = Table(TYPES, _renewed, (xds.EXTENSION,), _ORDER, _place)
        self._table.is_whole = False
        self._table.has_doors = has_doors
        self._nodes: dict[str, Node] = {}
        self._streams: set[Node] = set()
        self._leaving: Collection[str] = ()
        self._expected: Collection[str] = ()
        self._awaited: dict[str, asyncio.TimerHandle] = {}
        self._is_open = is_open
        self._is_stopped = False

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Those that are connected."""
        return tuple(self._nodes.values())

    def put(self, kind: str, name: str, body: dict[str, Any]) -> None:
        """Add or replace a resource. Raises UserError where it is not a message of that type."""
        if self._table.put(kind, name, descriptors.encode(kind, body)):
            self._touched(kind, name)

    def remove(self, kind: str, name: str) -> None:
        """Forget a resource."""
        if self._table.remove(kind, name):
            self._touched(kind, name)

    def open(self) -> None:
        """From here on Envoys are told what there is."""
        self._is_open = True
        self._wake()

    def open_doors(self) -> None:
        """All that is wanted was told: Envoys that have served nobody yet may begin."""
        self._table.has_doors = True
        self._wake()

    def complete(self) -> None:
        """Everything that is wanted was put: what Envoys have beyond it, from an earlier control plane, is to go."""
        self._table.is_whole = True
        for each in self._nodes.values():
            each.exchange.touch_surplus()
        self._wake()

    def want(self, is_wanted: Callable[[str], bool]) -> None:
        """Whether a scope is wanted is known from here on, though it may not be told yet."""
        self._table.is_wanted = is_wanted

    def expect(self, names: Collection[str]) -> None:
        """Exactly these serve callers. One that is not connected is waited for, some seconds: it may miss something."""
        self._expected = names
        for name in self._awaited.keys() - set(names):
            self._awaited.pop(name).cancel()
            self._changed()
        for name in set(names) - self._nodes.keys():
            self._await(name)

    def leaving(self, names: Collection[str]) -> None:
        """Exactly these are about to end, and are to turn their callers away."""
        self._leaving = names
        for name, node in self._nodes.items():
            if name in names and not node.exchange.is_leaving:
                node.exchange.leave()
                node.wake.set()

    def stop(self) -> None:
        """End all streams, and take no new ones."""
        self._is_stopped = True
        self.expect(())
        for each in self._streams:
            each.end()

    def holds(self, kind: str, name: str) -> bool:
        """Whether all connected Envoys, and at least one, acknowledged what the table holds under that name.

        Of nothing: that they have nothing. An Envoy that serves nobody yet is left out where that makes no difference.
        """
        if self._awaited:
            return False
        asked = [each.exchange for each in self._nodes.values() if each.exchange.counts(kind)]
        return bool(asked) and all(each.holds(kind, name) for each in asked)

    def refusal(self, kind: str, name: str) -> str:
        """The words of one Envoy on what the table holds under that name, or ""."""
        return next((why for each in self._nodes.values() if (why := each.exchange.refusal(kind, name))), "")

    @contextlib.asynccontextmanager
    async def serving(self, *others: "grpc.GenericRpcHandler[Any, Any]") -> AsyncIterator[None]:
        """Listen while the block runs. others: what the same server answers besides. Raises UserError."""
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", _LARGEST_MESSAGE_BYTES),
                ("grpc.max_send_message_length", _LARGEST_MESSAGE_BYTES),
                *self._listening.options,
            ],
            maximum_concurrent_rpcs=_MOST_STREAMS,
        )
        method = grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=_message("DeltaDiscoveryRequest").FromString,
            response_serializer=_message("DeltaDiscoveryResponse").SerializeToString,
        )
        handler = grpc.method_handlers_generic_handler(_SERVICE, {"DeltaAggregatedResources": method})
        server.add_generic_rpc_handlers((handler, *others))
        self.port = self._listening.bind(server)
        await server.start()
        try:
            yield
        finally:
            await server.stop(0)

    async def _stream(self, requests: AsyncIterator[Any], context: Any) -> None:
        if not self._listening.admits(context):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "this certificate is not that of a gateway")
        if self._is_stopped:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "somebody else decides by now")
        node = Node(Exchange(self._table), peer_host(context.peer()))
        self._streams.add(node)
        writer = asyncio.create_task(self._write(node, context))
        reader = asyncio.create_task(self._read(node, requests))
        patience = asyncio.get_running_loop().call_later(_MOST_SECONDS_TO_SETTLE, self._settle, node)
        try:
            done, _ = await asyncio.wait((writer, reader), return_when=asyncio.FIRST_COMPLETED)
        finally:
            # At once: gRPC cancels this task, and may do so again while it waits below.
            patience.cancel()
            self._streams.discard(node)
            self._forget(node)
            for task in (writer, reader):
                task.cancel()
            await asyncio.gather(writer, reader, return_exceptions=True)
        for task in done:
            task.result()

    async def _read(self, node: Node, requests: AsyncIterator[Any]) -> None:
        async for request in requests:
            if not node.name and not self._meet(node, request.node):
                return
            kind, names = node.exchange.receive(request)
            if not node.exchange.is_settled and node.exchange.is_even():
                node.exchange.settle()
            node.wake.set()
            self._answered(kind, names)

    async def _write(self, node: Node, context: Any) -> None:
        while True:
            await node.wake.wait()
            node.wake.clear()
            if node.is_over:
                return
            for response in node.exchange.responses() if self._is_open else ():
                await context.write(response)

    def _meet(self, node: Node, said: Any) -> bool:
        """It says who it is; whether it is to be told anything."""
        if node not in self._streams:
            return False  # it has ended meanwhile
        if not _NODE.fullmatch(said.id):
            _log.warning("an Envoy at %s gives no name by which it could be known; it is told nothing", node.host)
            return False
        node.name = said.id
        node.zone = said.locality.zone
        port = said.metadata.fields["stats_port"].number_value if "stats_port" in said.metadata.fields else 0
        node.stats_port = int(port) if 0 < port < 65536 else 0
        older = self._nodes.pop(node.name, None)
        if older is not None:
            older.end()
        self._nodes[node.name] = node
        if node.name in self._awaited:
            self._awaited.pop(node.name).cancel()
        if node.name in self._leaving:
            node.exchange.leave()
        self.met.set()
        if node.host:
            _log.info("gateway %s at %s is connected", node.name, node.host)
        return True

    def _forget(self, node: Node) -> None:
        """Its stream has ended: what the others hold counts from now on."""
        if self._nodes.get(node.name) is not node:
            return
        del self._nodes[node.name]
        if node.host:
            _log.info("gateway %s at %s is connected no more", node.name, node.host)
        if node.name in self._expected:
            self._await(node.name)
        self._changed()

    def _await(self, name: str) -> None:
        if name not in self._awaited:
            self._awaited[name] = asyncio.get_running_loop().call_later(_MOST_SECONDS_AWAY, self._give_up, name)

    def _give_up(self, name: str) -> None:
        _log.error("gateway %s serves callers and is not connected: what it does not know of goes on without it", name)
        del self._awaited[name]
        self._changed()

    def _changed(self) -> None:
        """What all of them hold may be something else by now."""
        for kind in TYPES:
            self._answered(kind, None)

    def _settle(self, node: Node) -> None:
        if not node.exchange.is_settled:
            node.exchange.settle()
            node.wake.set()

    def _touched(self, kind: str, name: str) -> None:
        for each in self._nodes.values():
            each.exchange.touch(kind, name)
            each.wake.set()

    def _wake(self) -> None:
        for each in self._nodes.values():
            each.wake.set()


def _renewed(kind: str, body: bytes, count: int) -> bytes:
    """Envoy 1.40 remembers the good scopes of a refused response without using them: sent again as they were, they
    would be acknowledged and still not be in force. So they come again changed, in metadata that nobody reads.
    """
    if kind != xds.SCOPE:
        return body
    scope: Any = descriptors.message_class(kind).FromString(body)
    scope.route_configuration.metadata.filter_metadata["modelyard"].fields["renewal"].number_value = count
    return bytes(scope.SerializeToString(deterministic=True))


def _place(kind: str, name: str) -> object:
    return hashed(name) if kind == xds.SCOPE else name


def _message(name: str) -> Any:
    return descriptors.message_class(f"envoy.service.discovery.v3.{name}")

"""One client of the delta discovery service, as a state machine without IO: requests in, responses out.

Source: Envoy, "xDS REST and gRPC protocol", incremental variant; `discovery.proto`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from modelyard.base import ids
from modelyard.control.gateway import descriptors

_TYPE = "type.googleapis.com/"
_LARGEST_RESPONSE = 500  # resources; a slow client gets the next ones when it has taken these


class Resource(NamedTuple):
    """A message on the wire. version: of its content, so that a client that comes back gets only what differs."""

    version: str
    body: bytes


class Table:
    """Resources by type and name. Types are sent in their order: what is named goes before who names it."""

    def __init__(self, types: tuple[str, ...]) -> None:
        self.by_type: dict[str, dict[str, Resource]] = {each: {} for each in types}

    def put(self, kind: str, name: str, body: bytes) -> bool:
        """Whether that changed anything."""
        resource = Resource(ids.short_hash(body, 16), body)
        if self.by_type[kind].get(name) == resource:
            return False
        self.by_type[kind][name] = resource
        return True

    def remove(self, kind: str, name: str) -> bool:
        """Whether that changed anything."""
        return self.by_type[kind].pop(name, None) is not None


class Refusal(NamedTuple):
    """What the client said about a version of a resource."""

    version: str
    message: str


class _Subscription:
    """everything: the client wants all of the type. has: the versions that it acknowledged, or came with.

    dirty: to be looked at (an ordered set). groups: halves of a refused response, each sent on its own.
    sent: what waits for an answer: name -> version, None for a removal. greeted: whether there was a response; a client
    that asks for everything waits for one, be it empty.
    """

    def __init__(self) -> None:
        self.everything = False
        self.names: set[str] = set()
        self.has: dict[str, str] = {}
        self.dirty: dict[str, None] = {}
        self.groups: list[list[str]] = []
        self.nonce = ""
        self.greeted = False
        self.sent: dict[str, str | None] = {}

    def wants(self, name: str) -> bool:
        return self.everything or name in self.names


class Exchange:
    """What one client asked for, was sent, acknowledged and refused. At most one response per type is on its way."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._subscriptions: dict[str, _Subscription] = {}
        self._count = 0
        self.refused: dict[tuple[str, str], Refusal] = {}

    def touch(self, kind: str, name: str) -> None:
        """The table changed there."""
        subscription = self._subscriptions.get(kind)
        if subscription is not None:
            subscription.dirty[name] = None

    def holds(self, kind: str, name: str) -> bool:
        """Whether the client acknowledged what the table has under that name; of nothing: that it has nothing."""
        subscription = self._subscriptions.get(kind)
        if subscription is None:
            return False
        resource = self._table.by_type[kind].get(name)
        if resource is None:
            return name not in subscription.has and name not in subscription.sent
        return subscription.has.get(name) == resource.version

    def refusal(self, kind: str, name: str) -> str:
        """Why the client does not take the table's version, or ""."""
        refusal = self.refused.get((kind, name))
        resource = self._table.by_type[kind].get(name)
        return refusal.message if refusal and resource and refusal.version == resource.version else ""

    def receive(self, request: Any) -> None:
        """Take in a DeltaDiscoveryRequest: an answer, a subscription, or both. Unknown types are ignored."""
        kind = request.type_url.removeprefix(_TYPE)
        if kind not in self._table.by_type:
            return
        first = kind not in self._subscriptions
        subscription = self._subscriptions.setdefault(kind, _Subscription())
        if request.response_nonce and request.response_nonce == subscription.nonce:
            refused = request.error_detail.message if request.HasField("error_detail") else None
            self._answered(kind, subscription, refused)
        if first:
            subscription.has.update(request.initial_resource_versions)
        self._subscribe(kind, subscription, request, first)

    def responses(self) -> Iterator[Any]:
        """The DeltaDiscoveryResponses to send now."""
        for kind in self._table.by_type:
            subscription = self._subscriptions.get(kind)
            if subscription is not None and not subscription.nonce:
                response = self._next(kind, subscription)
                if response is not None:
                    yield response

    def _subscribe(self, kind: str, subscription: _Subscription, request: Any, first: bool) -> None:
        asked = set(request.resource_names_subscribe)
        if "*" in asked or (first and not asked):
            asked.discard("*")
            subscription.everything = True
            subscription.dirty.update(dict.fromkeys((*self._table.by_type[kind], *subscription.has)))
        for name in request.resource_names_unsubscribe:
            subscription.names.discard(name)
            subscription.has.pop(name, None)
            if name == "*":
                subscription.everything = False
        for name in sorted(asked):
            # Asking again for what it has means that it needs it again, except where it just told its versions.
            if not first:
                subscription.has.pop(name, None)
            subscription.names.add(name)
            subscription.dirty[name] = None

    def _answered(self, kind: str, subscription: _Subscription, refused: str | None) -> None:
        sent, subscription.sent, subscription.nonce = subscription.sent, {}, ""
        if refused is None:
            for name, version in sent.items():
                self.refused.pop((kind, name), None)
                self._now_has(subscription, name, version)
        elif len(sent) == 1:
            name, version = next(iter(sent.items()))
            if version is None:
                self._now_has(subscription, name, None)
            else:
                self.refused[kind, name] = Refusal(version, refused)
        else:
            # A refused response is refused whole. Halve it until the one to blame stands alone.
            names = list(sent)
            subscription.groups += [names[: len(names) // 2], names[len(names) // 2 :]]

    @staticmethod
    def _now_has(subscription: _Subscription, name: str, version: str | None) -> None:
        if version is None:
            subscription.has.pop(name, None)
        elif subscription.wants(name):
            subscription.has[name] = version

    def _next(self, kind: str, subscription: _Subscription) -> Any | None:
        sent: dict[str, str | None] = {}
        while not sent and (subscription.groups or subscription.dirty):
            if subscription.groups:
                names = subscription.groups.pop(0)
            else:
                names = list(subscription.dirty)[:_LARGEST_RESPONSE]
                for name in names:
                    del subscription.dirty[name]
            sent = self._differences(kind, subscription, names)
        if not sent and (subscription.greeted or not subscription.everything):
            return None
        self._count += 1
        subscription.greeted = True
        subscription.nonce, subscription.sent = str(self._count), sent
        return _response(kind, subscription.nonce, sent, self._table.by_type[kind])

    def _differences(self, kind: str, subscription: _Subscription, names: list[str]) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for name in names:
            resource = self._table.by_type[kind].get(name)
            if resource is None:
                if name in subscription.has:
                    found[name] = None
            elif (
                subscription.wants(name)
                and subscription.has.get(name) != resource.version
                and not self.refusal(kind, name)
            ):
                found[name] = resource.version
        return found


def _response(kind: str, nonce: str, sent: Mapping[str, str | None], table: Mapping[str, Resource]) -> Any:
    response: Any = descriptors.message_class("envoy.service.discovery.v3.DeltaDiscoveryResponse")()
    response.type_url = f"{_TYPE}{kind}"
    response.nonce = nonce
    for name, version in sent.items():
        if version is None:
            response.removed_resources.append(name)
        else:
            resource = response.resources.add(name=name, version=version)
            resource.resource.type_url = response.type_url
            resource.resource.value = table[name].body
    return response

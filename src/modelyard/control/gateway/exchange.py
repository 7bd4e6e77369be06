"""One client of the delta discovery service, as a state machine without IO: requests in, responses out.

Source: Envoy, "xDS REST and gRPC protocol", incremental variant; `discovery.proto`.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from modelyard.base import ids
from modelyard.control.gateway import descriptors
from modelyard.control.gateway.utterances import without_dumps

_TYPE = "type.googleapis.com/"
_MOST_UNANSWERED = 32  # responses; what changes meanwhile waits, once, in `dirty`

_UNKNOWN = ""


class Resource(NamedTuple):
    """A message on the wire. version: of its content, so that a client that comes back gets only what differs."""

    version: str
    body: bytes


class Table:
    """Resources by type and name. Types are sent in their order: what is named goes before who names it.

    alone: what must be sent alone, by type and name: a client refuses a response whole, so one of several refused ones
    is to blame. renewed: gives a body of a type other bytes of the same meaning, where a client needs that. apart:
    types of which each resource is always sent alone. is_whole: what is not here is not wanted; before, a client that
    comes with more keeps it: an earlier control plane told it that, and this one is still finding out what is wanted.
    """

    def __init__(
        self, types: tuple[str, ...], renewed: Callable[[str, bytes, int], bytes], apart: Collection[str] = ()
    ) -> None:
        self.by_type: dict[str, dict[str, Resource]] = {each: {} for each in types}
        self.alone: set[tuple[str, str]] = set()
        self.is_whole = True
        self._removed: set[tuple[str, str]] = set()
        self._apart = apart
        self._renewed = renewed
        self._renewals = 0
        self._bodies: dict[tuple[str, str], bytes] = {}

    def put(self, kind: str, name: str, body: bytes) -> bool:
        """Whether that changed anything."""
        if self._bodies.get((kind, name)) == body:
            return False
        self._bodies[kind, name] = body
        self._removed.discard((kind, name))
        self.by_type[kind][name] = Resource(ids.short_hash(body, 16), body)
        return True

    def remove(self, kind: str, name: str) -> bool:
        """Whether that changed anything."""
        self.alone.discard((kind, name))
        if not self.is_whole:
            self._removed.add((kind, name))
        self._bodies.pop((kind, name), None)
        return self.by_type[kind].pop(name, None) is not None

    def lacks(self, kind: str, name: str) -> bool:
        """Whether it is known that there is to be nothing under a name."""
        return name not in self.by_type[kind] and (self.is_whole or (kind, name) in self._removed)

    def goes_alone(self, kind: str, name: str) -> bool:
        """Whether nothing else may be in its response."""
        return kind in self._apart or (kind, name) in self.alone

    def suspect(self, kind: str, name: str) -> None:
        """It was refused together with others: from now on it is sent alone, until it is acknowledged."""
        resource = self.by_type[kind].get(name)
        if resource is not None:
            self.alone.add((kind, name))
            self._renewals += 1
            body = self._renewed(kind, resource.body, self._renewals)
            self.by_type[kind][name] = Resource(ids.short_hash(body, 16), body)


class Refusal(NamedTuple):
    """What the client said about a version of a resource."""

    version: str
    message: str


class _Subscription:
    """everything: the client wants all of the type. has: the versions that it acknowledged, or came with.

    dirty: to be looked at; single: to be sent alone (both are ordered sets). unanswered: by nonce, the names of a
    response. flying: their versions, None for a removal. greeted: whether there was a response; who asks for everything
    waits for one, be it empty.
    """

    def __init__(self) -> None:
        self.everything = False
        self.greeted = False
        self.names: set[str] = set()
        self.has: dict[str, str] = {}
        self.dirty: dict[str, None] = {}
        self.single: dict[str, None] = {}
        self.unanswered: dict[str, list[str]] = {}
        self.flying: dict[str, str | None] = {}

    def wants(self, name: str) -> bool:
        return self.everything or name in self.names


class Exchange:
    """What one client asked for, was sent, acknowledged and refused."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._subscriptions: dict[str, _Subscription] = {}
        self._refused: dict[tuple[str, str], Refusal] = {}
        self._count = 0

    def touch(self, kind: str, name: str) -> None:
        """The table changed there."""
        subscription = self._subscriptions.get(kind)
        if subscription is not None:
            subscription.dirty[name] = None

    def touch_surplus(self) -> None:
        """The table became whole: what a client has beyond it is to go."""
        for kind, subscription in self._subscriptions.items():
            known = self._table.by_type[kind]
            subscription.dirty.update(dict.fromkeys(each for each in subscription.has if each not in known))

    def holds(self, kind: str, name: str) -> bool:
        """Whether the client acknowledged what the table has under that name; of nothing: that it has nothing."""
        subscription = self._subscriptions.get(kind)
        if subscription is None or name in subscription.flying:
            return False  # what is on its way to the client may be something else, such as a removal
        resource = self._table.by_type[kind].get(name)
        return subscription.has.get(name) == (resource.version if resource else None)

    def refusal(self, kind: str, name: str) -> str:
        """Why the client does not take the table's version, or ""."""
        refusal = self._refused.get((kind, name))
        resource = self._table.by_type[kind].get(name)
        return refusal.message if refusal and resource and refusal.version == resource.version else ""

    def receive(self, request: Any) -> tuple[str, Collection[str] | None]:
        """Take in a DeltaDiscoveryRequest: an answer, a subscription, or both. Unknown types are ignored.

        Returns the type, and the names about which something became known: None for all, after the first request.
        """
        kind = request.type_url.removeprefix(_TYPE)
        if kind not in self._table.by_type:
            return kind, ()
        first = kind not in self._subscriptions
        subscription = self._subscriptions.setdefault(kind, _Subscription())
        names = subscription.unanswered.pop(request.response_nonce, None)
        if names is not None:
            refused = without_dumps(request.error_detail.message) if request.HasField("error_detail") else None
            self._answered(kind, subscription, names, refused)
        if first:
            subscription.has.update(request.initial_resource_versions)
        self._subscribe(kind, subscription, request, first)
        return kind, None if first else names or ()

    def responses(self) -> Iterator[Any]:
        """The DeltaDiscoveryResponses to send now."""
        for kind in self._table.by_type:
            subscription = self._subscriptions.get(kind)
            if subscription is None or len(subscription.unanswered) >= _MOST_UNANSWERED:
                continue
            together, gone = self._sort(kind, subscription)
            if together or (subscription.everything and not subscription.greeted):
                yield self._response(kind, subscription, together)
            if gone:
                yield self._response(kind, subscription, gone)
            while subscription.single and len(subscription.unanswered) < _MOST_UNANSWERED:
                name = next(iter(subscription.single))
                del subscription.single[name]
                differs, version = self._difference(kind, subscription, name)
                if differs:
                    yield self._response(kind, subscription, {name: version})

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

    def _answered(self, kind: str, subscription: _Subscription, names: list[str], refused: str | None) -> None:
        for name in names:
            version = subscription.flying.pop(name)
            if version is None:
                subscription.has.pop(name, None)
            elif refused is None:
                self._refused.pop((kind, name), None)
                if subscription.wants(name):
                    subscription.has[name] = version
                resource = self._table.by_type[kind].get(name)
                if resource is not None and resource.version == version:
                    self._table.alone.discard((kind, name))
            elif len(names) == 1:
                self._refused[kind, name] = Refusal(version, refused)
            else:
                self._table.suspect(kind, name)
                subscription.has[name] = _UNKNOWN
                subscription.dirty[name] = None

    def _sort(self, kind: str, subscription: _Subscription) -> tuple[dict[str, str | None], dict[str, str | None]]:
        """Look through `dirty`: what may travel together, and what is gone; what travels alone goes to `single`.

        Removals have a response of their own, so that they are never refused with something else.
        """
        together: dict[str, str | None] = {}
        gone: dict[str, str | None] = {}
        for name in [each for each in subscription.dirty if each not in subscription.flying]:
            del subscription.dirty[name]
            differs, version = self._difference(kind, subscription, name)
            if not differs:
                continue
            if version is not None and self._table.goes_alone(kind, name):
                subscription.single[name] = None
                continue
            subscription.single.pop(name, None)
            (gone if version is None else together)[name] = version
        return together, gone

    def _difference(self, kind: str, subscription: _Subscription, name: str) -> tuple[bool, str | None]:
        """Whether the client must be told, and which version (None: it is gone)."""
        resource = self._table.by_type[kind].get(name)
        if resource is None:
            return self._table.lacks(kind, name) and name in subscription.has, None
        wanted = subscription.wants(name) and subscription.has.get(name) != resource.version
        return wanted and not self.refusal(kind, name), resource.version

    def _response(self, kind: str, subscription: _Subscription, sent: dict[str, str | None]) -> Any:
        self._count += 1
        subscription.greeted = True
        subscription.unanswered[str(self._count)] = list(sent)
        subscription.flying.update(sent)
        response: Any = descriptors.message_class("envoy.service.discovery.v3.DeltaDiscoveryResponse")()
        response.type_url = f"{_TYPE}{kind}"
        response.nonce = str(self._count)
        for name, version in sent.items():
            if version is None:
                response.removed_resources.append(name)
            else:
                resource = response.resources.add(name=name, version=version)
                resource.resource.type_url = response.type_url
                resource.resource.value = self._table.by_type[kind][name].body
        return response

"""One client of the delta discovery service, as a state machine without IO: requests in, responses out.

Source: Envoy, "xDS REST and gRPC protocol", incremental variant; `discovery.proto`.
"""

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from modelyard.base import ids
from modelyard.control.gateway import descriptors
from modelyard.control.gateway.table import Resource, Table
from modelyard.control.gateway.utterances import without_dumps

_TYPE = "type.googleapis.com/"
_MOST_UNANSWERED = 32  # responses; what changes meanwhile waits, once, in `dirty`

_UNKNOWN = ""


class Refusal(NamedTuple):
    """What the client said about a version of a resource."""

    version: str
    message: str


class _Subscription:
    """everything: the client wants all of the type. has: the versions that it acknowledged, or came with.

    dirty: to be looked at; single: to be sent alone (both are ordered sets). unanswered: by nonce, the names of a
    response. flying: their versions, None for a removal. waiting: what comes again when another one, by whose name it
    is found, is gone. greeted: whether there was a response; who asks for everything waits for one, be it empty.
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
        self.waiting: dict[str, str] = {}

    def wants(self, name: str) -> bool:
        return self.everything or name in self.names


class Exchange:
    """What one client asked for, was sent, acknowledged and refused.

    A client that was told by others, or has missed something, serves callers all the time: it gets what is new from the
    ground up, and loses what is gone only when it has all of that, or `settle` was called.
    """

    def __init__(self, table: Table) -> None:
        self.is_settled = True
        self.is_leaving = False
        self._table = table
        self._subscriptions: dict[str, _Subscription] = {}
        self._refused: dict[tuple[str, str], Refusal] = {}
        self._alone: set[tuple[str, str]] = set()
        self._again: dict[tuple[str, str], tuple[str, Resource]] = {}
        self._renewals = 0
        self._count = 0

    def touch(self, kind: str, name: str) -> None:
        """The table changed there."""
        if name not in self._table.by_type[kind]:
            self._alone.discard((kind, name))
            self._again.pop((kind, name), None)
        subscription = self._subscriptions.get(kind)
        if subscription is not None:
            subscription.dirty[name] = None

    def touch_surplus(self) -> None:
        """The table became whole: what a client has beyond it is to go."""
        for kind, subscription in self._subscriptions.items():
            known = self._table.by_type[kind]
            subscription.dirty.update(dict.fromkeys(each for each in subscription.has if each not in known))

    def settle(self) -> None:
        """It has everything, or was waited for long enough."""
        self.is_settled = True
        self.touch_surplus()

    def leave(self) -> None:
        """The client is about to end: it is to turn its callers away."""
        self.is_leaving = True
        order = self._table.order
        doors = self._subscriptions.get(order.doors) if order else None
        if doors is not None:
            doors.dirty.update(dict.fromkeys(doors.has))

    def is_even(self) -> bool:
        """Whether the client has everything that there is and that it can take."""
        order = self._table.order
        if order is None:
            return True
        if order.doors not in self._subscriptions or (self.has_doors() and order.above not in self._subscriptions):
            return False  # it has not said yet what it has
        return self._has_ground() and all(self._has_all(kind) for kind in self._subscriptions)

    def has_doors(self) -> bool:
        """Whether the client may serve anybody, as far as that is known."""
        doors = self._subscriptions.get(self._table.order.doors) if self._table.order else None
        return doors is not None and (any(doors.has.values()) or any(doors.flying.values()))

    def counts(self, kind: str) -> bool:
        """Whether it matters what the client has of a type."""
        order = self._table.order
        if order is not None and kind == order.doors:
            return not self.is_leaving and not self._waits(kind)
        return order is None or kind not in order.within or self.has_doors()

    def holds(self, kind: str, name: str) -> bool:
        """Whether the client acknowledged what the table has under that name; of nothing: that it has nothing."""
        subscription = self._subscriptions.get(kind)
        if subscription is None or name in subscription.flying:
            return False  # what is on its way to the client may be something else, such as a removal
        resource = self._resource(kind, name)
        return subscription.has.get(name) == (resource.version if resource else None)

    def refusal(self, kind: str, name: str) -> str:
        """Why the client does not take the table's version, or ""."""
        refusal = self._refused.get((kind, name))
        if refusal is None:
            return ""
        resource = self._resource(kind, name)
        return refusal.message if resource and refusal.version == resource.version else ""

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
        if first and request.initial_resource_versions:
            subscription.has.update(request.initial_resource_versions)
            self.is_settled = self._table.order is None
        self._subscribe(kind, subscription, request, first)
        return kind, None if first else names or ()

    def responses(self) -> Iterator[Any]:
        """The DeltaDiscoveryResponses to send now."""
        for kind in self._table.by_type:
            subscription = self._subscriptions.get(kind)
            if subscription is None or len(subscription.unanswered) >= _MOST_UNANSWERED:
                continue
            if self._waits(kind):
                if gone := self._going(kind, subscription):
                    yield self._response(kind, subscription, gone)
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

    def _waits(self, kind: str) -> bool:
        """Whether nothing of a type is to be sent yet, but what goes."""
        order = self._table.order
        if order is None:
            return False
        if kind == order.doors:
            return not self._table.has_doors and not self.has_doors()
        return kind == order.above and not self.is_settled and not self._has_ground()

    def _going(self, kind: str, subscription: _Subscription) -> dict[str, str | None]:
        """What of `dirty` is gone."""
        known = self._table.by_type[kind]
        names = [each for each in subscription.dirty if each not in subscription.flying and each not in known]
        for each in names:
            del subscription.dirty[each]
        return {each: None for each in names if self._difference(kind, subscription, each)[0]}

    def _has_ground(self) -> bool:
        order = self._table.order
        assert order is not None
        roots, leaves = order.ground
        asked = (
            each
            for each in self._table.by_type[leaves]
            if each in self._table.by_type[roots] and not self.refusal(roots, each)
        )
        return all(self._has(roots, each) for each in self._table.by_type[roots]) and all(
            self._has(leaves, each) for each in asked
        )

    def _has_all(self, kind: str) -> bool:
        subscription = self._subscriptions[kind]
        return all(self._has(kind, each) for each in self._table.by_type[kind] if subscription.wants(each))

    def _has(self, kind: str, name: str) -> bool:
        return self.holds(kind, name) or bool(self.refusal(kind, name))

    def _resource(self, kind: str, name: str) -> Resource | None:
        """What there is for this client."""
        resource = self._table.by_type[kind].get(name)
        base, again = self._again.get((kind, name), (None, None))
        return again if resource is not None and resource.version == base else resource

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
                if (waited := subscription.waiting.pop(name, None)) is not None:
                    subscription.dirty[waited] = None
            elif refused is None:
                self._refused.pop((kind, name), None)
                if subscription.wants(name):
                    subscription.has[name] = version
                resource = self._resource(kind, name)
                if resource is not None and resource.version == version:
                    self._alone.discard((kind, name))
            elif len(names) == 1:
                former = self._former(kind, subscription, name)
                if former is None:
                    self._refused[kind, name] = Refusal(version, refused)
                else:
                    self._suspect(kind, name)
                    subscription.waiting[former] = name
            else:
                self._suspect(kind, name)
                subscription.has[name] = _UNKNOWN
                subscription.dirty[name] = None

    def _former(self, kind: str, subscription: _Subscription, name: str) -> str | None:
        """What the client has, for as long as its removal takes, at the place of something new."""
        known, place = self._table.by_type[kind], self._table.place(kind, name)
        leftovers = (each for each in (*subscription.has, *subscription.flying) if each not in known)
        return next((each for each in leftovers if self._table.place(kind, each) == place and each != name), None)

    def _suspect(self, kind: str, name: str) -> None:
        """It was refused together with others: from now on it is sent alone, until it is acknowledged."""
        resource = self._table.by_type[kind].get(name)
        if resource is not None:
            self._alone.add((kind, name))
            self._renewals += 1
            body = self._table.renewed(kind, resource.body, self._renewals)
            self._again[kind, name] = resource.version, Resource(ids.short_hash(body, 16), body)

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
            # A client refuses a response whole, so one of several refused ones is to blame.
            if version is not None and (kind in self._table.apart or (kind, name) in self._alone):
                subscription.single[name] = None
                continue
            subscription.single.pop(name, None)
            (gone if version is None else together)[name] = version
        return together, gone

    def _difference(self, kind: str, subscription: _Subscription, name: str) -> tuple[bool, str | None]:
        """Whether the client must be told, and which version (None: it is gone)."""
        if self.is_leaving and self._table.order and kind == self._table.order.doors:
            return name in subscription.has, None
        resource = self._resource(kind, name)
        if resource is None:
            # What names others can go at any time.
            may_go = self.is_settled or (self._table.order is not None and kind == self._table.order.above)
            return may_go and self._table.lacks(kind, name) and name in subscription.has, None
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
                found = self._resource(kind, name)
                assert found is not None
                resource = response.resources.add(name=name, version=version)
                resource.resource.type_url = response.type_url
                resource.resource.value = found.body
        return response

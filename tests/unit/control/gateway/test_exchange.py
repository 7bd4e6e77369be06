"""The delta discovery protocol: whatever a client does, in the end it has what it can take of what there is."""

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from modelyard.control.gateway import descriptors
from modelyard.control.gateway.exchange import Exchange
from modelyard.control.gateway.table import Order, Table

KIND = "a.Kind"
NAMES = st.sampled_from(["x", "y", "z"])
BODIES = st.sampled_from([b"one", b"two", b"bad"])


def request(**fields: Any) -> Any:
    """A DeltaDiscoveryRequest for KIND."""
    made: Any = descriptors.message_class("envoy.service.discovery.v3.DeltaDiscoveryRequest")()
    made.type_url = f"type.googleapis.com/{fields.pop('kind', KIND)}"
    message = fields.pop("error", None)
    if message is not None:
        made.error_detail.message = message
    for name, value in fields.items():
        if name == "initial_resource_versions":
            made.initial_resource_versions.update(value)
        elif isinstance(value, list):
            getattr(made, name).extend(value)
        else:
            setattr(made, name, value)
    return made


def table(*kinds: str, place: Callable[[str, str], object] | None = None) -> Table:
    return Table(kinds or (KIND,), lambda _kind, body, count: body.split(b"|")[0] + b"|%d" % count, place=place)


def sent(exchange: Exchange) -> list[tuple[list[str], list[str]]]:
    """What each response brings and takes."""
    return [([each.name for each in one.resources], list(one.removed_resources)) for one in list(exchange.responses())]


def test_a_client_that_asks_for_everything_is_answered_even_when_there_is_nothing() -> None:
    exchange = Exchange(table())
    exchange.receive(request())
    assert sent(exchange) == [([], [])]
    assert sent(exchange) == []


def test_a_client_that_comes_back_gets_only_what_differs() -> None:
    things = table()
    for name in ("kept", "changed", "new"):
        things.put(KIND, name, name.encode())
    exchange = Exchange(things)
    has = {"kept": things.by_type[KIND]["kept"].version, "changed": "old", "gone": "old"}
    exchange.receive(request(initial_resource_versions=has))
    assert sent(exchange) == [(["changed", "new"], []), ([], ["gone"])]


def test_what_is_refused_for_something_that_is_going_comes_again_when_that_is_gone() -> None:
    things = table(place=lambda _, name: name[0])
    exchange = Exchange(things)
    things.put(KIND, "x-old", b"one")
    exchange.receive(request())
    assert sent(exchange) == [(["x-old"], [])]
    exchange.receive(request(response_nonce="1"))
    things.remove(KIND, "x-old")
    things.put(KIND, "x-new", b"one")
    for name in ("x-new", "x-old"):
        exchange.touch(KIND, name)
    assert sent(exchange) == [(["x-new"], []), ([], ["x-old"])]
    exchange.receive(request(response_nonce="2", error="there is one at that place"))
    assert (sent(exchange), exchange.refusal(KIND, "x-new")) == ([], "")
    exchange.receive(request(response_nonce="3"))
    assert sent(exchange) == [(["x-new"], [])]
    exchange.receive(request(response_nonce="4", error="now it is bad by itself"))
    assert (sent(exchange), exchange.refusal(KIND, "x-new")) == ([], "now it is bad by itself")


def test_what_is_put_again_while_its_removal_is_on_its_way_is_not_held() -> None:
    things = table()
    exchange = Exchange(things)
    things.put(KIND, "x", b"one")
    exchange.receive(request())
    assert sent(exchange) == [(["x"], [])]
    assert not exchange.holds(KIND, "x")
    exchange.receive(request(response_nonce="1"))
    assert exchange.holds(KIND, "x")
    things.remove(KIND, "x")
    exchange.touch(KIND, "x")
    assert sent(exchange) == [([], ["x"])]
    things.put(KIND, "x", b"one")
    exchange.touch(KIND, "x")
    assert not exchange.holds(KIND, "x")
    exchange.receive(request(response_nonce="2"))
    assert not exchange.holds(KIND, "x")
    assert sent(exchange) == [(["x"], [])]
    exchange.receive(request(response_nonce="3"))
    assert exchange.holds(KIND, "x")


def test_what_an_earlier_control_plane_told_stays_until_the_table_is_whole() -> None:
    things = table()
    things.is_whole = False
    for name in ("kept", "removed"):
        things.put(KIND, name, b"one")
    exchange = Exchange(things)
    exchange.receive(request(initial_resource_versions={"kept": "old", "removed": "old", "inherited": "old"}))
    assert sent(exchange) == [(["kept", "removed"], [])]
    exchange.receive(request(response_nonce="1"))
    things.remove(KIND, "removed")
    exchange.touch(KIND, "removed")
    assert sent(exchange) == [([], ["removed"])]
    things.is_whole = True
    exchange.touch_surplus()
    assert sent(exchange) == [([], ["inherited"])]


def test_a_client_that_asks_again_for_a_name_gets_it_again() -> None:
    things = table()
    things.put(KIND, "x", b"one")
    exchange = Exchange(things)
    exchange.receive(request(resource_names_subscribe=["x"]))
    assert sent(exchange) == [(["x"], [])]
    exchange.receive(request(response_nonce="1"))
    assert exchange.holds(KIND, "x")
    exchange.receive(request(resource_names_unsubscribe=["x"]))
    exchange.receive(request(resource_names_subscribe=["x"]))
    assert sent(exchange) == [(["x"], [])]


def test_a_refused_response_is_narrowed_to_the_one_to_blame() -> None:
    things = table()
    for name, body in (("x", b"one"), ("y", b"bad"), ("z", b"two")):
        things.put(KIND, name, body)
    exchange = Exchange(things)
    exchange.receive(request())
    assert sent(exchange) == [(["x", "y", "z"], [])]
    exchange.receive(request(response_nonce="1", error="no"))
    assert [names for names, _ in sent(exchange)] == [["x"], ["y"], ["z"]]
    exchange.receive(request(response_nonce="2"))
    exchange.receive(request(response_nonce="3", error="y is bad"))
    exchange.receive(request(response_nonce="4"))
    assert exchange.holds(KIND, "x")
    assert exchange.refusal(KIND, "y") == "y is bad"
    assert sent(exchange) == []


def test_types_are_sent_in_their_order() -> None:
    things = table("first", "second")
    things.put("second", "x", b"")
    things.put("first", "x", b"")
    exchange = Exchange(things)
    exchange.receive(request(kind="second"))
    exchange.receive(request(kind="first"))
    assert [one.type_url.split("/")[1] for one in exchange.responses()] == ["first", "second"]


ORDER = Order(doors="door", ground=("cluster", "endpoints"), above="scope", within=("scope",))


def ordered(**things: dict[str, bytes]) -> Table:
    """A table of types whose order counts."""
    made = Table(("cluster", "endpoints", "door", "scope"), lambda _kind, body, _count: body, order=ORDER)
    for kind, found in things.items():
        for name, body in found.items():
            made.put(kind, name, body)
    return made


def coming_back(exchange: Exchange, kind: str, *, asks: tuple[str, ...] = (), has: tuple[str, ...] = ()) -> None:
    """A client's first request of a type, with what it was told before."""
    versions = dict.fromkeys(has, "old")
    exchange.receive(request(kind=kind, resource_names_subscribe=list(asks), initial_resource_versions=versions))


def step(exchange: Exchange) -> list[str]:
    """What is sent, all of which is acknowledged: `+` what there is, `-` what goes."""
    found = []
    for response in list(exchange.responses()):
        kind = response.type_url.rpartition("/")[2]
        found += [f"+{kind} {each.name}" for each in response.resources]
        found += [f"-{kind} {name}" for name in response.removed_resources]
        exchange.receive(request(kind=kind, response_nonce=response.nonce))
    return found


def test_a_client_that_missed_a_switch_is_brought_up_from_the_ground_and_loses_the_old_last() -> None:
    things = ordered(cluster={"b": b""}, endpoints={"b": b""}, door={"d": b""}, scope={"iris": b"to b"})
    exchange = Exchange(things)
    coming_back(exchange, "cluster", has=("a",))
    coming_back(exchange, "endpoints", asks=("a",), has=("a",))
    coming_back(exchange, "door", has=("d",))
    coming_back(exchange, "scope", has=("iris",))
    assert step(exchange) == ["+cluster b", "+door d"]
    assert step(exchange) == []
    exchange.receive(request(kind="endpoints", resource_names_subscribe=["b"]))
    assert step(exchange) == ["+endpoints b"]
    assert not exchange.is_even()
    assert step(exchange) == ["+scope iris"]
    assert exchange.is_even()
    exchange.settle()
    assert step(exchange) == ["-cluster a", "-endpoints a"]


def test_what_names_others_goes_at_once() -> None:
    things = ordered(cluster={"b": b""}, endpoints={"b": b""}, door={"d": b""})
    exchange = Exchange(things)
    coming_back(exchange, "cluster", has=("a",))
    coming_back(exchange, "scope", has=("iris",))
    assert step(exchange) == ["+cluster b", "-scope iris"]


def test_before_the_table_is_whole_scopes_go_that_are_known_not_to_be_wanted() -> None:
    things = ordered()
    things.is_whole = False
    exchange = Exchange(things)
    coming_back(exchange, "cluster", has=("a",))
    coming_back(exchange, "scope", has=("iris", "fraud"))
    assert step(exchange) == []
    things.is_wanted = lambda name: name == "iris"
    exchange.touch_surplus()
    assert step(exchange) == ["-scope fraud"]


def test_a_client_without_doors_gets_none_until_it_may_and_counts_where_it_matters() -> None:
    things = ordered(cluster={"a": b""}, door={"d": b""}, scope={"iris": b""})
    things.has_doors = False
    fresh, old = Exchange(things), Exchange(things)
    for each, has in ((fresh, ()), (old, ("d",))):
        coming_back(each, "cluster")
        coming_back(each, "door", has=has)
    assert step(fresh) == ["+cluster a"]
    assert step(old) == ["+cluster a", "+door d"]
    assert [fresh.counts(kind) for kind in ("cluster", "door", "scope")] == [True, False, False]
    assert [old.counts(kind) for kind in ("cluster", "door", "scope")] == [True, True, True]
    things.has_doors = True
    assert step(fresh) == ["+door d"]
    assert fresh.counts("scope")


def test_a_client_that_is_about_to_end_loses_its_doors_and_nothing_else() -> None:
    things = ordered(cluster={"a": b""}, door={"d": b""}, scope={"iris": b""})
    exchange = Exchange(things)
    for kind in ("cluster", "door", "scope"):
        coming_back(exchange, kind)
    assert step(exchange) == ["+cluster a", "+door d", "+scope iris"]
    exchange.leave()
    assert step(exchange) == ["-door d"]
    assert step(exchange) == []
    assert not exchange.counts("door")
    assert exchange.holds("cluster", "a")


def test_what_one_client_refuses_together_is_sent_to_others_as_before() -> None:
    things = table()
    for name in ("x", "y"):
        things.put(KIND, name, name.encode())
    one, other = Exchange(things), Exchange(things)
    for each in (one, other):
        each.receive(request())
        assert sent(each) == [(["x", "y"], [])]
    one.receive(request(response_nonce="1", error="no"))
    other.receive(request(response_nonce="1"))
    assert [names for names, _ in sent(one)] == [["x"], ["y"]]
    assert sent(other) == []
    assert other.holds(KIND, "x")
    assert not one.holds(KIND, "x")


@given(
    st.lists(
        st.builds(
            request,
            kind=st.sampled_from([KIND, "unknown", ""]),
            response_nonce=st.sampled_from(["", "1", "2", "x"]),
            resource_names_subscribe=st.lists(st.sampled_from(["*", "x", "", "é"]), max_size=3),
            resource_names_unsubscribe=st.lists(st.sampled_from(["*", "x", "", "é"]), max_size=3),
            initial_resource_versions=st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3),
            error=st.none() | st.text(max_size=3),
        ),
        max_size=12,
    )
)
@settings(max_examples=60, deadline=None)
def test_no_request_breaks_the_exchange(requests: list[Any]) -> None:
    things = table()
    things.put(KIND, "x", b"one")
    exchange = Exchange(things)
    for each in requests:
        exchange.receive(each)
        assert len(sent(exchange)) <= 34


class Conversation(RuleBasedStateMachine):
    """A table that changes; an Envoy that takes its time, refuses bad bodies, and comes back with or without memory."""

    @initialize()
    def begin(self) -> None:
        self.table = table()
        self.wanted: dict[str, bytes] = {}
        self.has: dict[str, tuple[str, bytes]] = {}
        self.connect()

    def connect(self) -> None:
        self.exchange = Exchange(self.table)
        self.waiting: list[Any] = []
        versions = {name: version for name, (version, _) in self.has.items()}
        self.exchange.receive(request(initial_resource_versions=versions))

    @rule(name=NAMES, body=BODIES)
    def put(self, name: str, body: bytes) -> None:
        self.wanted[name] = body
        if self.table.put(KIND, name, body):
            self.exchange.touch(KIND, name)

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        self.wanted.pop(name, None)
        if self.table.remove(KIND, name):
            self.exchange.touch(KIND, name)

    @rule()
    def send(self) -> None:
        self.waiting += self.exchange.responses()

    @rule()
    def answer(self) -> None:
        """As Envoy does: all of a response or nothing."""
        if not self.waiting:
            return
        response = self.waiting.pop(0)
        if any(each.resource.value.startswith(b"bad") for each in response.resources):
            self.exchange.receive(request(response_nonce=response.nonce, error="bad"))
            return
        for each in response.resources:
            self.has[each.name] = (each.version, each.resource.value)
        for name in response.removed_resources:
            self.has.pop(name, None)
        self.exchange.receive(request(response_nonce=response.nonce))

    @rule(forgets=st.booleans())
    def reconnect(self, forgets: bool) -> None:
        if forgets:
            self.has.clear()
        self.connect()

    @invariant()
    def what_is_believed_to_be_held_is_held(self) -> None:
        for name in self.wanted:
            if self.exchange.holds(KIND, name):
                assert self.has[name][1].split(b"|")[0] == self.wanted[name]

    def teardown(self) -> None:
        for _ in range(20):
            self.send()
            while self.waiting:
                self.answer()
        assert list(self.exchange.responses()) == []
        assert self.has.keys() <= self.wanted.keys()
        for name, body in self.wanted.items():
            if body == b"bad":
                assert self.exchange.refusal(KIND, name) == "bad"
            else:
                assert self.exchange.holds(KIND, name)
                assert self.has[name][1].split(b"|")[0] == body


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)

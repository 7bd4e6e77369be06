"""Decisions of the garbage collector, and where they lead."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.control.apiserver.database import Key
from modelyard.control.apiserver.garbage import Delete, DropFinalizer, DropOwners, EndNamespace, Graph, Node, Owner
from modelyard.control.apiserver.lifecycle import FOREGROUND, ORPHAN


def key(name: str, namespace: str = "n", resource: str = "things") -> Key:
    return Key(resource, namespace, name)


def node(name: str, *owners: str, finalizers: tuple[str, ...] = (), deleting: bool = False, block: bool = True) -> Node:
    return Node(
        key=key(name),
        revision=1,
        uid=f"uid-{name}",
        owners=tuple(Owner(f"uid-{each}", key(each), block) for each in owners),
        finalizers=finalizers,
        deleting=deleting,
    )


def graph(*nodes: Node) -> Graph:
    made = Graph()
    for each in nodes:
        made.put(each)
    return made


def test_an_object_without_owners_stays() -> None:
    assert graph(node("a")).decide(key("a")) is None


def test_an_object_goes_when_its_owner_went() -> None:
    made = graph(node("a"), node("b", "a"))
    assert made.decide(key("b")) is None
    assert key("b") in made.remove(key("a"))
    assert made.decide(key("b")) == Delete("Background")


def test_an_owner_of_the_same_name_and_another_uid_does_not_count() -> None:
    made = graph(replace(node("a"), uid="newer"), node("b", "a"))
    assert made.decide(key("b")) == Delete("Background")


def test_an_owner_in_another_namespace_does_not_count() -> None:
    away = replace(node("a"), key=key("a", "elsewhere"))
    child = replace(node("b"), owners=(Owner("uid-a", key("a"), True),))
    assert graph(away, child).decide(key("b")) == Delete("Background")


def test_one_living_owner_is_enough_and_the_dead_one_is_forgotten() -> None:
    made = graph(node("a"), node("c", "a", "b"))
    assert made.decide(key("c")) == DropOwners(frozenset({"uid-b"}))


def test_an_owner_of_an_unknown_kind_is_left_to_others() -> None:
    child = replace(node("b"), owners=(Owner("uid-x", None),))
    assert graph(child).decide(key("b")) is None


def test_in_the_foreground_children_go_before_their_owner() -> None:
    owner = node("a", finalizers=(FOREGROUND,), deleting=True)
    made = graph(owner, node("b", "a"))
    assert made.decide(key("a")) is None
    assert made.decide(key("b")) == Delete("Background")
    assert key("a") in made.remove(key("b"))
    assert made.decide(key("a")) == DropFinalizer(FOREGROUND)


def test_a_child_with_children_goes_in_the_foreground_as_well() -> None:
    owner = node("a", finalizers=(FOREGROUND,), deleting=True)
    assert graph(owner, node("b", "a"), node("c", "b")).decide(key("b")) == Delete("Foreground")


def test_a_child_that_does_not_block_is_not_waited_for() -> None:
    owner = node("a", finalizers=(FOREGROUND,), deleting=True)
    assert graph(owner, node("b", "a", block=False)).decide(key("a")) == DropFinalizer(FOREGROUND)


def test_orphans_lose_the_reference_and_stay() -> None:
    owner = node("a", finalizers=(ORPHAN,), deleting=True)
    made = graph(owner, node("b", "a"))
    assert made.decide(key("a")) is None
    assert made.decide(key("b")) == DropOwners(frozenset({"uid-a"}))
    made.put(node("b"))
    assert made.decide(key("a")) == DropFinalizer(ORPHAN)


def test_a_namespace_takes_its_content_along_and_goes_last() -> None:
    home = Node(key=Key("namespaces", "", "n"), revision=1, uid="home", deleting=True)
    made = graph(home, node("a"))
    assert made.decide(home.key) is None
    assert made.decide(key("a")) == Delete("Background")
    assert home.key in made.remove(key("a"))
    assert made.decide(home.key) == EndNamespace()


def settle(made: Graph, nodes: dict[Key, Node]) -> None:
    """Do what is decided, as the server would, until nothing is decided any more."""
    for _ in range(200):
        steps = {each: step for each in list(nodes) if (step := made.decide(each)) is not None}
        if not steps:
            return
        for each, step in steps.items():
            old = nodes[each]
            match step:
                case Delete(propagation=propagation):
                    added = (FOREGROUND,) if propagation == "Foreground" else ()
                    new = replace(old, deleting=True, finalizers=added)
                case DropOwners(uids=uids):
                    new = replace(old, owners=tuple(owner for owner in old.owners if owner.uid not in uids))
                case DropFinalizer(name=name):
                    new = replace(old, finalizers=tuple(one for one in old.finalizers if one != name))
                case _:
                    raise AssertionError(step)
            if new.deleting and not new.finalizers:
                del nodes[each]
                made.remove(each)
            else:
                nodes[each] = new
                made.put(new)
    raise AssertionError("it never settles")


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 7), max_size=3, unique=True), min_size=2, max_size=8),
    st.lists(st.tuples(st.integers(0, 7), st.sampled_from([(), (FOREGROUND,), (ORPHAN,)])), max_size=3),
)
def test_in_the_end_nothing_refers_to_what_is_gone(
    owners: list[list[int]], deleted: list[tuple[int, tuple[str, ...]]]
) -> None:
    # Owners exist before what they own, so there are no cycles.
    nodes = {
        key(str(number)): node(str(number), *(str(each) for each in mine if each < number))
        for number, mine in enumerate(owners)
    }
    made = graph(*nodes.values())
    roots = {each for each, found in nodes.items() if not found.owners}
    orphaned = any(finalizers == (ORPHAN,) for _, finalizers in deleted)
    for number, finalizers in deleted:
        target = key(str(number))
        if target not in nodes:
            continue
        if finalizers:
            nodes[target] = replace(nodes[target], deleting=True, finalizers=finalizers)
            made.put(nodes[target])
        else:
            del nodes[target]
            made.remove(target)
    settle(made, nodes)
    uids = {each.uid for each in nodes.values()}
    assert all(owner.uid in uids for each in nodes.values() for owner in each.owners)
    assert not any(each.deleting for each in nodes.values())
    assert roots <= set(nodes) | {key(str(number)) for number, _ in deleted}
    if not orphaned:
        assert all(each in roots or found.owners for each, found in nodes.items())

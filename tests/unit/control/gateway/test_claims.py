"""Who may have a public id."""

from hypothesis import given
from hypothesis import strategies as st

from collisions_testing import IRIS_TWIN, READY_TWIN
from modelyard.control.gateway.claims import Claims, contested
from modelyard.control.ir.route import Route
from modelyard.control.ir.values import Key

OWNERS = [Key(kind="ModelService", namespace="default", name=name) for name in "abcd"]
IDS = st.lists(
    st.sampled_from(["one", "iris", IRIS_TWIN, "ready", READY_TWIN]), min_size=1, max_size=2, unique=True
).map(tuple)


@given(st.lists(st.tuples(st.sampled_from(OWNERS), st.none() | IDS)), st.sets(st.sampled_from(OWNERS)))
def test_looking_at_shared_ids_only_finds_the_same(
    changes: list[tuple[Key, tuple[str, ...] | None]], incumbents: set[Key]
) -> None:
    routes: dict[Key, Route] = {}
    claims = Claims()
    for owner, ids in changes:
        claims.replace(owner, routes[owner].ids if owner in routes else (), ids or ())
        routes.pop(owner, None)
        if ids:
            routes[owner] = Route(owner=owner, ids=ids)
        assert claims.contested(routes, incumbents) == contested(routes.values(), incumbents)


def test_of_two_newcomers_the_first_by_name_has_it_in_whatever_order_they_come() -> None:
    first, second = (Route(owner=owner, ids=("one",)) for owner in OWNERS[:2])
    assert list(contested((second, first), ())) == [OWNERS[1]]
    assert list(contested((second, first), {OWNERS[1]})) == [OWNERS[0]]


def test_ids_of_equal_hash_are_as_good_as_the_same_and_who_has_it_keeps_it() -> None:
    victim, twin = (Route(owner=owner, ids=ids) for owner, ids in zip(OWNERS, (("iris",), (IRIS_TWIN,)), strict=False))
    assert contested((victim, twin), {OWNERS[0]}) == {
        OWNERS[1]: f"the public id '{IRIS_TWIN}' has the same hash as 'iris', which belongs to ModelService default/a, "
        "and Envoy would take one for the other: give this one another name"
    }
    assert list(contested((victim, twin), {OWNERS[1]})) == [OWNERS[0]]
    assert contested((victim,), {OWNERS[1]}) == {}


def test_an_id_may_be_that_of_an_answer_of_the_gateway_and_not_collide_with_it() -> None:
    assert contested([Route(owner=OWNERS[0], ids=("ready",))], ()) == {}
    assert "belongs to the gateway itself" in contested([Route(owner=OWNERS[0], ids=(READY_TWIN,))], ())[OWNERS[0]]


def test_ids_of_one_route_may_not_collide_either() -> None:
    assert list(contested([Route(owner=OWNERS[0], ids=("iris", IRIS_TWIN))], ())) == [OWNERS[0]]


def test_an_id_is_asked_for_only_under_its_own_name() -> None:
    claims = Claims()
    claims.replace(OWNERS[0], (), ("iris",))
    assert (claims.has("iris"), claims.has(IRIS_TWIN)) == (True, False)

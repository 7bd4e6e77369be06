"""Who may have a public id."""

from hypothesis import given
from hypothesis import strategies as st

from modelyard.control.gateway.claims import Claims, contested
from modelyard.control.ir.route import Route
from modelyard.control.ir.values import Key

OWNERS = [Key(kind="ModelService", namespace="default", name=name) for name in "abcd"]
IDS = st.lists(st.sampled_from(["one", "two", "three"]), min_size=1, max_size=2, unique=True).map(tuple)


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

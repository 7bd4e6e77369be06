"""Runners come to an agreement without talking: everybody at most their share, nothing left over, little moved."""

from hypothesis import given
from hypothesis import strategies as st

from modelyard.runtime.streams import assignment

PARTITIONS = st.integers(1, 32)


def settle(held: list[set[int]], partitions: int) -> int:
    """Let everybody act in turn until nobody does; how many claims changed hands."""
    moved = 0
    for _ in range(100):
        before = [set(each) for each in held]
        for number, mine in enumerate(held):
            for each in assignment.surplus(mine, partitions, len(held)):
                mine.remove(each)
                moved += 1
            claimed = set().union(*held)
            mine.update(assignment.wanted(mine, claimed, partitions, len(held), number * 7))
        if before == held:
            return moved
    raise AssertionError("they never settled")


@given(partitions=PARTITIONS, runners=st.integers(1, 40))
def test_all_partitions_are_held_once_and_nobody_has_more_than_a_share(partitions: int, runners: int) -> None:
    held: list[set[int]] = [set() for _ in range(runners)]
    settle(held, partitions)
    assert sorted(each for mine in held for each in mine) == list(range(partitions))
    assert max(map(len, held)) <= assignment.share(partitions, runners)


@given(partitions=PARTITIONS, before=st.integers(1, 12), after=st.integers(1, 12))
def test_a_change_of_the_number_of_runners_moves_only_what_it_must(partitions: int, before: int, after: int) -> None:
    held: list[set[int]] = [set() for _ in range(before)]
    settle(held, partitions)
    kept = held[:after]
    over = sum(max(0, len(mine) - assignment.share(partitions, after)) for mine in kept)
    held = [*kept, *(set() for _ in range(after - before))]
    assert settle(held, partitions) == over
    assert sorted(each for mine in held for each in mine) == list(range(partitions))


def test_runners_begin_at_different_partitions() -> None:
    first = {assignment.wanted(set(), set(), 8, 4, start)[0] for start in range(4)}
    assert len(first) == 4

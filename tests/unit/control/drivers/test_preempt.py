from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from modelyard.control.drivers.machine import Machine, together
from modelyard.control.drivers.preempt import Claim, kept_free, victims

shares = st.builds(Machine, memory_bytes=st.integers(0, 8), cpu_millis=st.integers(0, 8), gpus=st.integers(0, 2))
holders = st.lists(st.tuples(shares, st.integers(0, 3)), max_size=6).map(
    lambda rows: [
        Claim(name=str(number), share=share, priority=priority, since=number)
        for number, (share, priority) in enumerate(rows)
    ]
)


def fits(asked: Machine, free: Machine, leaving: tuple[Claim, ...]) -> bool:
    gained = together([free, *(each.share for each in leaving)])
    return gained.holds(asked)


def claim(name: str, memory: int, priority: int = 0, since: int = 0) -> Claim:
    return Claim(name=name, share=Machine(memory_bytes=memory), priority=priority, since=since)


def names(chosen: tuple[Claim, ...]) -> list[str]:
    return [each.name for each in chosen]


@given(asked=shares, priority=st.integers(0, 4), free=shares, among=holders)
def test_victims_are_enough_lower_and_none_of_them_in_vain(
    asked: Machine, priority: int, free: Machine, among: list[Claim]
) -> None:
    chosen = victims(asked, priority, free, among)
    lower = tuple(each for each in among if each.priority < priority)
    assert set(chosen) <= set(lower)
    if fits(asked, free, ()) or not fits(asked, free, lower):
        assert chosen == ()
        return
    assert fits(asked, free, chosen)
    for some in combinations(chosen, len(chosen) - 1):
        assert not fits(asked, free, some)
    highest = max(each.priority for each in chosen)
    assert not fits(asked, free, tuple(each for each in lower if each.priority < highest))


def test_the_lowest_priority_leaves_first_and_of_those_the_latest() -> None:
    among = [claim("old", 4, 0, 1), claim("new", 4, 0, 2), claim("better", 4, 5, 3)]
    assert names(victims(Machine(memory_bytes=4), 9, Machine(), among)) == ["new"]
    assert names(victims(Machine(memory_bytes=8), 9, Machine(), among)) == ["new", "old"]
    assert names(victims(Machine(memory_bytes=12), 9, Machine(), among)) == ["new", "old", "better"]


def test_who_is_too_small_to_matter_stays() -> None:
    among = [claim("large", 6, since=1), claim("small", 1, since=2)]
    assert names(victims(Machine(memory_bytes=6), 9, Machine(), among)) == ["large"]


@given(free=shares, priority=st.integers(0, 4), waiting=holders)
def test_room_is_kept_for_higher_priorities_that_fit_and_only_for_them(
    free: Machine, priority: int, waiting: list[Claim]
) -> None:
    left = kept_free(free, priority, waiting)
    higher = [each for each in waiting if each.priority > priority]
    assert free.holds(left)
    assert left.holds(Machine())
    if not any(free.holds(each.share) for each in higher):
        assert left == free
    elif fits(together(each.share for each in higher), free, ()):
        assert left == free.without(together(each.share for each in higher))


def test_the_highest_priority_is_kept_room_first() -> None:
    waiting = [claim("first", 5, 1, 1), claim("better", 5, 2, 2)]
    assert kept_free(Machine(memory_bytes=8), 0, waiting) == Machine(memory_bytes=3)
    assert kept_free(Machine(memory_bytes=8), 1, waiting) == Machine(memory_bytes=3)
    assert kept_free(Machine(memory_bytes=8), 2, waiting) == Machine(memory_bytes=8)

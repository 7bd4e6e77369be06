"""Certificates are replaced in time, and nobody ever shows one that the other side does not trust."""

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.control.plan import certificates as plan
from modelyard.control.plan.certificates import (
    AUTHORITY_SECONDS,
    DAY,
    LEAF_SECONDS,
    OVERLAP_SECONDS,
    Authorities,
    Change,
    Life,
)

NOW = 1_800_000_000.0
NAMES = ("gateway.modelyard",)


def authority(name: str, begins: float = NOW) -> Life:
    return Life(id=name, begins=begins, ends=begins + AUTHORITY_SECONDS)


def leaf(issuer: str, begins: float = NOW) -> Life:
    return Life(id="leaf", begins=begins, ends=begins + LEAF_SECONDS, issuer=issuer, names=NAMES)


def test_an_authority_is_made_when_there_is_none_that_counts() -> None:
    assert plan.change(Authorities(), NOW) is Change.BEGIN
    known = Authorities(current=authority("a"))
    assert plan.change(known, NOW) is None
    assert plan.change(known, NOW - 1) is Change.BEGIN  # made by a clock that went wrong
    assert plan.change(known, NOW + AUTHORITY_SECONDS) is Change.BEGIN


def test_an_authority_is_changed_in_steps_that_are_a_day_apart() -> None:
    due = NOW + AUTHORITY_SECONDS * 2 / 3
    known = Authorities(current=authority("a"))
    assert plan.change(known, due - 1) is None
    assert plan.change(known, due) is Change.PREPARE
    known = replace(known, next=authority("b", due))
    assert plan.change(known, due + OVERLAP_SECONDS - 1) is None
    assert plan.change(known, due + OVERLAP_SECONDS) is Change.SWITCH
    switched = due + OVERLAP_SECONDS
    known = Authorities(current=known.next, former=known.current, switched=switched)
    assert plan.change(known, switched + OVERLAP_SECONDS - 1) is None
    assert plan.change(known, switched + OVERLAP_SECONDS) is Change.FORGET


def test_a_leaf_is_renewed_after_two_thirds_of_its_life_or_when_it_fits_no_more() -> None:
    mine = authority("a")
    good = leaf("a")
    assert not plan.must_renew(good, mine, NAMES, NOW + 59 * DAY)
    assert plan.must_renew(good, mine, NAMES, NOW + 60 * DAY)
    assert plan.must_renew(None, mine, NAMES, NOW)
    assert plan.must_renew(leaf("b"), mine, NAMES, NOW)
    assert plan.must_renew(good, mine, ("other",), NOW)
    assert plan.must_renew(good, mine, NAMES, NOW - 1)


def test_the_next_look_is_when_something_is_due_and_within_the_hour() -> None:
    known = Authorities(current=authority("a"))
    assert plan.next_look(known, (leaf("a"),), NOW) == 3600.0
    assert plan.next_look(known, (leaf("a"), None), NOW + 60 * DAY - 100) == 100.0
    assert plan.next_look(replace(known, next=authority("b", NOW - DAY + 50)), (), NOW) == 50.0
    assert plan.next_look(replace(known, former=authority("b"), switched=NOW - DAY + 60), (), NOW) == 60.0
    assert plan.next_look(Authorities(), (), NOW) == 1.0


@dataclass
class Side:
    """Operator or gateway: what it shows and trusts. It takes up what the operator decided with a delay."""

    shows: str = ""
    trusts: frozenset[str] = frozenset()
    pending: list[tuple[float, str, frozenset[str]]] = field(default_factory=list)

    def follow(self, now: float) -> None:
        while self.pending and self.pending[0][0] <= now:
            _, self.shows, self.trusts = self.pending.pop(0)


@settings(max_examples=30, deadline=None)
@given(delays=st.lists(st.floats(0, OVERLAP_SECONDS * 0.9), min_size=1), pauses=st.lists(st.floats(DAY / 2, 20 * DAY)))
def test_both_sides_trust_each_other_throughout(delays: list[float], pauses: list[float]) -> None:
    """Over eight years, in which the operator looks now and then, and the gateway takes things up within a day."""
    now, made = NOW, 0
    known = Authorities()
    operator, gateway = Side(), Side()
    looks = 0
    while now < NOW + 8 * 365 * DAY:
        while (step := plan.change(known, now)) is not None:
            made += 1
            match step:
                case Change.BEGIN:
                    assert known.current is None, "nothing ever ends before it is replaced"
                    known = Authorities(current=authority(f"{made}", now))
                case Change.PREPARE:
                    known = replace(known, next=authority(f"{made}", now))
                case Change.SWITCH:
                    known = Authorities(current=known.next, former=known.current, switched=now)
                case Change.FORGET:
                    known = replace(known, former=None)
        assert known.current is not None
        trusted = frozenset(each.id for each in (known.current, known.next, known.former) if each)
        operator.shows, operator.trusts = known.current.id, trusted
        if not gateway.shows:
            gateway.shows, gateway.trusts = known.current.id, trusted
        state = (known.current.id, trusted)
        if not gateway.pending or gateway.pending[-1][1:] != state:
            delay = delays[looks % len(delays)]
            due = max(now + delay, gateway.pending[-1][0] if gateway.pending else 0.0)
            gateway.pending.append((due, *state))
        gateway.follow(now)
        assert operator.shows in gateway.trusts
        assert gateway.shows in operator.trusts
        looks += 1
        now += pauses[looks % len(pauses)] if pauses else 5 * DAY
        gateway.follow(now)
        assert operator.shows in gateway.trusts
        assert gateway.shows in operator.trusts

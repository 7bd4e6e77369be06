from hypothesis import given
from hypothesis import strategies as st

from modelyard.control.plan import keys
from modelyard.control.plan.keys import Known

KNOWN = Known(keys="old", ends=1e6, due=100.0, tried=90.0)


def test_keys_are_fetched_again_when_the_issuer_says_within_bounds() -> None:
    assert keys.fetched(Known(), "new", None, 10.0).due == 310.0
    assert keys.fetched(Known(), "new", 120.0, 10.0).due == 130.0
    assert keys.fetched(Known(), "new", 0.0, 10.0).due == 70.0
    assert keys.fetched(Known(), "new", 1e9, 10.0).due == 910.0


def test_an_issuer_that_is_down_is_asked_with_growing_pauses_and_its_keys_count_on() -> None:
    known, now, pauses = KNOWN, 100.0, []
    for _ in range(9):
        known = keys.failed(keys.begun(known, now), "down", now, 1.0)
        pauses.append(known.due - now)
        now = known.due
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert (known.keys, known.problem) == ("old", "down")
    assert keys.fetched(known, "new", None, now).problem == ""
    assert keys.failed(keys.fetched(known, "new", None, now), "down", now, 1.0).due == now + 1


def test_a_token_with_an_unknown_key_makes_it_fetch_at_once_but_not_for_each() -> None:
    assert keys.hinted(KNOWN, 94.0).due == 95.0
    assert keys.hinted(KNOWN, 99.0).due == 99.0
    assert keys.hinted(KNOWN, 200.0).due == 100.0
    assert keys.hinted(Known(due=500.0), 7.0).due == 7.0


def test_keys_that_nobody_confirmed_for_a_week_count_no_more() -> None:
    known = keys.fetched(Known(), "new", None, 0.0)
    assert keys.aged(known, 7 * 86400 - 1).keys == "new"
    assert keys.aged(known, 7 * 86400).keys == ""


def test_what_the_disk_remembers_counts_for_the_rest_of_that_week_and_is_fetched_at_once() -> None:
    known = keys.remembered("kept", 86400.0, 50.0)
    assert (known.keys, known.due, known.ends) == ("kept", 50.0, 50.0 + 6 * 86400)
    assert keys.remembered("kept", 8 * 86400.0, 50.0) == Known(due=50.0)
    # A clock that was set back makes nothing count for longer than a week.
    assert keys.remembered("kept", -1e6, 50.0).ends == 50.0 + 7 * 86400


@given(
    st.lists(st.tuples(st.sampled_from(("ok", "down", "hint")), st.floats(0, 1000), st.floats(0.5, 1.5)), max_size=40)
)
def test_whatever_happens_an_issuer_is_never_asked_in_a_hurry_nor_forgotten(
    steps: list[tuple[str, float, float]],
) -> None:
    known, now = Known(), 0.0
    for what, seconds, spread in steps:
        if what == "hint":
            known = keys.hinted(known, now)
            assert known.due >= min(now, known.tried + keys.HINTED_SECONDS) or known.due >= known.tried
            assert known.due <= max(now, known.tried + keys.HINTED_SECONDS)
        else:
            now = max(now, known.due)
            assert now - known.tried >= keys.FIRST_PAUSE_SECONDS / 2
            known = keys.begun(known, now)
            known = keys.fetched(known, "k", seconds, now) if what == "ok" else keys.failed(known, "x", now, spread)
        assert known.due <= now + keys.LONGEST_SECONDS

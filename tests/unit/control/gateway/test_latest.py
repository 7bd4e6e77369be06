"""What of a publication is new."""

from hypothesis import given
from hypothesis import strategies as st

from modelyard.control.gateway.latest import Latest

VALUES = [object() for _ in range(8)]
SOME = st.lists(st.sampled_from(VALUES), unique_by=id).map(tuple)


@given(st.lists(SOME))
def test_it_finds_what_came_and_what_went(publications: list[tuple[object, ...]]) -> None:
    latest: Latest[object] = Latest()
    before: tuple[object, ...] = ()
    for values in publications:
        fresh, gone = latest.take(values)
        assert fresh == [each for each in values if each not in before]
        assert gone == [each for each in before if each not in values]
        before = values


def test_an_equal_value_that_is_another_object_is_new() -> None:
    latest: Latest[str] = Latest()
    first, second = "".join(["a", "b"]), "".join(["a", "b"])
    latest.take((first,))
    assert latest.take((second,)) == ([second], [first])

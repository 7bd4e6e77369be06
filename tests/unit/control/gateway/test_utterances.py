"""What Envoy says, without the secrets that it repeats."""

from hypothesis import given
from hypothesis import strategies as st

from modelyard.control.gateway.utterances import Lines, without_dumps

DUMP = (
    'goo.gle/debugstr    \nname: "u1"\nheader {\n  value: "SECRET"\n}\n: Proto constraint validation failed (too short)'
)


def test_a_message_that_envoy_repeats_is_left_out_and_the_reason_stays() -> None:
    assert without_dumps(DUMP) == "Proto constraint validation failed (too short)"
    assert without_dumps(f"Error adding cluster(s) u1: {DUMP}, u2: {DUMP}") == (
        "Error adding cluster(s) u1: Proto constraint validation failed (too short), u2: Proto constraint validation "
        "failed (too short)"
    )
    assert without_dumps("goo.gle/debugonly SECRET") == "Envoy did not say why"
    assert without_dumps("duplicate key") == "duplicate key"


def test_a_line_that_is_too_long_is_cut_and_its_rest_is_no_line() -> None:
    lines = Lines()
    long = b"goo.gle/debugstr " + b"x" * 100_000 + b"SECRET"
    assert lines.feed(long) == ["Envoy did not say why"]
    assert lines.feed(b"SECRET") == []
    assert lines.feed(b"SECRET\nnext") == []
    assert lines.end() == ["next"]


@given(st.lists(st.sampled_from(["plain", DUMP.replace("\n", "\\n"), "", "x" * 70_000]), max_size=6), st.data())
def test_however_the_pieces_are_cut_no_secret_passes(entries: list[str], data: st.DataObject) -> None:
    text = "".join(f"{each}\n" for each in entries).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    lines, found = Lines(), list[str]()
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        found += lines.feed(text[start:end])
    found += lines.end()
    assert not [each for each in found if "SECRET" in each]
    assert found.count("plain") == entries.count("plain")
    assert sum("Proto constraint" in each for each in found) == entries.count(DUMP.replace("\n", "\\n"))

"""What a listing says, and that nothing but parts looks like one."""

from hypothesis import given
from hypothesis import strategies as st

from modelyard.runtime.jobs import layout
from modelyard.runtime.jobs.layout import Commit

ID = "0123456789abcdef"


def test_a_run_is_read_from_the_names_of_its_objects() -> None:
    seen = layout.see(
        [
            layout.run(2),
            layout.attempt(2, 0, 1),
            layout.attempt(2, 0, 3),
            layout.draft(2, 0, ID),
            layout.errors(2, 0, ID),
            layout.part(2, 0, "csv"),
            layout.commit(2, 0, Commit(41, 2, ID)),
            layout.part(2, 1, "csv"),
            layout.SUCCESS,
        ]
    )
    run = seen.runs[2]
    assert (run.parts, run.attempts, run.drafts) == (frozenset({0, 1}), {0: 3}, {0: (ID,)})
    assert run.commits == {0: Commit(41, 2, ID)}
    assert (run.rows, run.errors, run.closed, seen.foreign, seen.success) == (41, 2, False, (), True)
    assert layout.see([layout.run(2), layout.done(2), layout.swept(2)]).runs[2].closed


def test_parts_without_a_run_and_other_files_are_of_somebody_else() -> None:
    seen = layout.see(["part-00001-00000.parquet", "notes.txt", layout.run(2)])
    assert set(seen.foreign) == {"part-00001-00000.parquet", "notes.txt"}
    assert seen.latest == 2
    assert layout.see([]).latest == 0


def test_nothing_below_run_ends_as_a_part_does() -> None:
    names = [
        layout.run(1),
        layout.done(1),
        layout.attempt(1, 2, 3),
        layout.draft(1, 2, ID),
        layout.errors(1, 2, ID),
        layout.commit(1, 2, Commit(1, 0, ID)),
        layout.swept(1),
        layout.staging(1),
    ]
    assert all(name.startswith("_run/") for name in names)
    assert not [name for name in names if name.endswith(tuple(layout.SUFFIXES.values()))]


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(0, 10**12), st.integers(0, 10**12))
def test_names_of_any_numbers_are_read_back(number: int, shard: int, rows: int, errors: int) -> None:
    commit = Commit(rows, errors, ID)
    seen = layout.see([layout.run(number), layout.commit(number, shard, commit), layout.part(number, shard, "arrow")])
    assert seen.runs[number].commits == {shard: commit}
    assert seen.runs[number].parts == frozenset({shard})


@given(st.lists(st.text(max_size=40)))
def test_any_names_can_be_in_a_listing(keys: list[str]) -> None:
    layout.see(keys)

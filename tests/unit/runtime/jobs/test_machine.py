"""Which run a job works on, and what a runner does next."""

from dataclasses import replace

import pytest

from modelyard.base.conditions import Reason
from modelyard.runtime.jobs import machine
from modelyard.runtime.jobs.layout import Commit, RunSeen, Seen
from modelyard.runtime.jobs.machine import (
    Close,
    Draft,
    Finish,
    Follow,
    Me,
    Refuse,
    Settle,
    Sweep,
    Take,
    Try,
    Wait,
    Wish,
)
from modelyard.runtime.jobs.shards import Piece, RunRecord
from modelyard.wire.work import ErrorsWork

ERRORS = ErrorsWork(on_error="deadLetter", max_rows=5)
DONE = Commit(10, 0, "0" * 16)


def run(number: int = 1, job: str = "a", identity: str = "same", mode: str = "create", shards: int = 3) -> RunRecord:
    piece = Piece(source=0, start=0, stop=1, first_row=0, low=0, high=10)
    return RunRecord(
        job=job, identity=identity, number=number, mode=mode, format="parquet", shards=((piece,),) * shards
    )


def wish(job: str = "b", identity: str = "other", mode: str = "create") -> Wish:
    return Wish(job=job, identity=identity, mode=mode, uri="out")


def opened(record: RunRecord, asks: Wish, *, closed: bool) -> object:
    seen = Seen(runs={record.number: RunSeen(closed=closed)})
    return machine.open_output(seen, {record.number: record}, asks)


@pytest.mark.parametrize("mode", ["create", "append", "overwrite"])
def test_an_empty_output_is_taken(mode: str) -> None:
    assert machine.open_output(Seen(), {}, wish(mode=mode)) == Take(1)


@pytest.mark.parametrize("mode", ["create", "append", "overwrite"])
def test_a_job_goes_on_with_its_own_run(mode: str) -> None:
    assert opened(run(job="b"), wish(mode=mode), closed=False) == Follow(1)
    assert opened(run(job="b"), wish(mode=mode), closed=True) == Finish(1, already=False)


@pytest.mark.parametrize("mode", ["create", "append", "overwrite"])
def test_the_same_work_of_another_job_is_gone_on_with_or_done(mode: str) -> None:
    same = wish(identity="same", mode=mode)
    assert opened(run(), same, closed=False) == Follow(1)
    assert opened(run(), same, closed=True) == Finish(1, already=True)


def test_another_work_waits_its_turn() -> None:
    for mode in ("create", "append"):
        found = opened(run(), wish(mode=mode), closed=False)
        assert isinstance(found, Refuse)
        assert found.reason == Reason.OUTPUT_IN_USE
    assert opened(run(), wish(mode="overwrite"), closed=False) == Take(2)


def test_after_a_closed_run_create_is_refused_and_append_goes_on() -> None:
    found = opened(run(), wish(), closed=True)
    assert isinstance(found, Refuse)
    assert found.reason == Reason.OUTPUT_NOT_EMPTY
    assert opened(run(), wish(mode="append"), closed=True) == Take(2)
    assert opened(run(), wish(mode="overwrite"), closed=True) == Take(2)


def test_what_somebody_else_has_put_there_is_no_empty_place() -> None:
    found = machine.open_output(Seen(foreign=("a.txt",)), {}, wish())
    assert isinstance(found, Refuse)
    assert "a.txt" in found.message
    assert machine.open_output(Seen(foreign=("a.txt",)), {}, wish(mode="append")) == Take(1)


def test_work_that_was_overwritten_since_is_done_again() -> None:
    seen = Seen(runs={1: RunSeen(closed=True), 2: RunSeen(closed=True)})
    records = {1: run(1), 2: run(2, job="c", identity="third", mode="overwrite")}
    assert machine.open_output(seen, records, wish(identity="same", mode="overwrite")) == Take(3)
    assert machine.open_output(seen, records, wish(identity="same", mode="append")) == Finish(1, already=True)


def test_overwriting_wants_nothing_beside_the_same_work() -> None:
    seen = Seen(runs={1: RunSeen(closed=True), 2: RunSeen(closed=True)}, parts={1: ("part-00001-00000.parquet",)})
    records = {1: run(1, identity="third"), 2: run(2, job="c", identity="same", mode="append")}
    assert machine.open_output(seen, records, wish(identity="same", mode="overwrite")) == Take(3)
    swept = replace(seen, parts={2: ("part-00002-00000.parquet",)})
    assert machine.open_output(swept, records, wish(identity="same", mode="overwrite")) == Finish(2, already=True)


def step(seen_run: RunSeen, me: Me | None = None, record: RunRecord | None = None, **seen: object) -> object:
    record = record or run()
    there = Seen(runs={record.number: seen_run, **dict(seen.get("more", {}))})  # type: ignore[call-overload]
    return machine.next_step(there, record, ERRORS, me or Me(now=100.0))


def test_runners_begin_at_different_shards_and_take_what_nobody_has_begun() -> None:
    assert step(RunSeen()) == Try(0, 1)
    assert step(RunSeen(), Me(now=100.0, start=7919)) == Try(2, 1)
    assert step(RunSeen(attempts={0: 1})) == Try(1, 1)


def test_a_part_without_books_is_settled_first() -> None:
    assert step(RunSeen(parts=frozenset({1}))) == Settle(1)


def test_a_silent_attempt_is_taken_over_and_a_living_one_is_not() -> None:
    begun = RunSeen(attempts={0: 1, 1: 1, 2: 1})
    alive = {(0, 1): 99.0, (1, 1): 95.0, (2, 1): 98.0}
    assert isinstance(step(begun, Me(now=100.0, since=alive)), Wait)
    assert step(begun, Me(now=105.5, since=alive)) == Try(1, 2)
    assert step(begun, Me(now=100.0, since=alive, abandoned=frozenset({2}))) == Try(2, 2)
    assert isinstance(step(begun, Me(now=200.0, since=alive, busy=frozenset({0, 1, 2}))), Wait)


def test_a_shard_that_ends_every_runner_ends_the_job() -> None:
    begun = RunSeen(attempts={0: machine.MOST_ATTEMPTS, 1: 1, 2: 1})
    found = step(begun, Me(now=100.0, abandoned=frozenset({0})))
    assert isinstance(found, Refuse)
    assert found.reason == Reason.SHARD_FAILED


def test_when_all_parts_are_there_the_run_is_closed_once() -> None:
    full = RunSeen(parts=frozenset({0, 1, 2}), commits={0: DONE, 1: DONE, 2: DONE})
    assert step(full) == Close()
    assert step(replace(full, closed=True)) == Finish(1, already=False)


def test_a_later_run_ends_an_earlier_one() -> None:
    found = step(RunSeen(), more={2: RunSeen()})
    assert isinstance(found, Refuse)
    assert found.reason == Reason.OUTPUT_OVERTAKEN


def test_an_overwriting_run_sweeps_before_its_first_commit() -> None:
    record = run(mode="overwrite")
    assert step(RunSeen(), record=record) == Sweep()
    assert step(RunSeen(swept=True), record=record) == Try(0, 1)


def test_the_budget_of_errors_is_exact() -> None:
    def budget(found: int, **limits: int) -> Refuse | None:
        return machine.over_budget(found, 100, ErrorsWork(on_error="skip", **limits))

    assert budget(5, max_rows=5) is None
    assert budget(6, max_rows=5) is not None
    assert budget(1, max_percent=1) is None
    assert budget(2, max_percent=1) is not None
    assert budget(10**9) is None
    assert machine.over_budget(1, 100, ErrorsWork()) is not None


def test_the_winner_is_who_has_the_hash_of_the_part() -> None:
    drafts = (Draft("b", 1, 0, "x"), Draft("a", 2, 1, "y"))
    assert machine.winner(drafts, "y") == Commit(2, 1, "a")
    assert machine.winner(drafts, "z") is None
    assert machine.winner((*drafts, Draft("0", 1, 0, "x")), "x") == Commit(1, 0, "0")

"""What can be wrong with an input, an output or a row: clear conditions, and nothing half-visible."""

import itertools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import obstore
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.dataset as ds
import pytest

from jobs_testing import folder_store, job, records, runners, state, status, workers, write_parquet
from yard_testing import Yard, wait_until

_numbers = itertools.count()


def run(yard: Yard, source: str, target: str = "", *, until: bool = True, **spec: Any) -> tuple[str, dict[str, Any]]:
    """(the name of a new job, its status when it has ended)."""
    name = f"job-{next(_numbers)}"
    yard.apply(job(name, source, target or f"out/{name}", **spec), wait=False)
    if until:
        wait_until(lambda: "True" in state(yard, name)[:2], f"{name} ends", 60)
    return name, status(yard, name)


def message(found: dict[str, Any], kind: str = "Complete") -> str:
    return next(str(each["message"]) for each in found["conditions"] if each["type"] == kind)


def results(yard: Yard, name: str, folder: str = "out") -> pa.Table:
    return ds.dataset(yard.folder / folder / name, format="parquet").to_table().sort_by("id")


def put(yard: Yard, folder: str, **tables: pa.Table) -> None:
    for name, table in tables.items():
        write_parquet(folder_store(yard.folder / folder), f"{name}.parquet", table, row_group=1000)


def letters(yard: Yard, found: dict[str, Any]) -> list[dict[str, Any]]:
    folder = Path(found["deadLetters"].removeprefix("file://"))
    return [json.loads(line) for each in sorted(folder.iterdir()) for line in each.read_text().splitlines()]


def test_a_missing_input_says_what_was_expected_there(yard: Yard) -> None:
    name, found = run(yard, "in/nowhere")
    assert state(yard, name) == ("False", "True", "InputNotFound")
    assert "there is nothing at in/nowhere; expected files of a known format" in message(found)
    (yard.folder / "in" / "notes").mkdir(parents=True)
    (yard.folder / "in" / "notes" / "a.txt").write_text("x")
    _, found = run(yard, "in/notes")
    assert "there is 1 other objects at in/notes" in message(found)


def test_columns_that_do_not_fit_end_the_job_before_anything_is_scored(yard: Yard) -> None:
    put(yard, "in/texts", a=pa.table({"id": [1], "x": ["1"]}))
    name, found = run(yard, "in/texts")
    assert state(yard, name)[2] == "SchemaMismatch"
    assert message(found) == "column x is string, and input x of the model takes FP64"
    assert not (yard.folder / "out" / name).exists()
    assert "has failed: SchemaMismatch" in yard.cli("why", name)


def test_a_damaged_file_in_the_middle_is_named_and_no_part_is_half_there(yard: Yard) -> None:
    put(yard, "in/damaged", a=records(0, 5000), b=records(5000, 5000), c=records(10_000, 5000))
    file = yard.folder / "in/damaged/b.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
    file.write_bytes(data)
    name, found = run(yard, "in/damaged", parallelism=2)
    assert state(yard, name) == ("False", "True", "InputInvalid")
    assert "b.parquet, row group" in message(found)
    folder = yard.folder / "out" / name
    assert not (folder / "_SUCCESS").exists()
    for part in folder.glob("*.parquet"):
        assert ds.dataset(part).to_table().num_rows


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows_are_scored_as_many_are(yard: Yard, rows: int) -> None:
    put(yard, f"in/few-{rows}", a=records(0, rows))
    name, found = run(yard, f"in/few-{rows}")
    assert state(yard, name) == ("True", "False", "Completed")
    table = results(yard, name)
    assert (table.num_rows, table.column_names) == (rows, ["id", "y"])
    assert found["progressPercentage"] == 100


def test_text_that_is_not_utf_8_is_named(yard: Yard) -> None:
    folder = yard.folder / "in/latin"
    folder.mkdir(parents=True)
    (folder / "people.csv").write_bytes("id,x,name\n1,0.5,Müller\n".encode("latin-1"))
    name, found = run(yard, "in/latin")
    assert state(yard, name)[2] == "InputInvalid"
    assert "people.csv is not text in UTF-8, near row 0; convert it" in message(found)


def test_text_that_is_not_utf_8_far_down_is_named_and_no_part_is_half_there(yard: Yard) -> None:
    folder = yard.folder / "in/late-latin"
    folder.mkdir(parents=True)
    pacsv.write_csv(records(0, 200_000), folder / "a.csv")
    with (folder / "a.csv").open("ab") as file:
        file.write("200000,über\n".encode("latin-1"))
    name, found = run(yard, "in/late-latin", score={"output": {"uri": "out/late-latin", "format": "parquet"}})
    assert state(yard, name)[2] == "InputInvalid"
    assert "a.csv is not text in UTF-8, near row 200000; convert it" in message(found)
    assert not (yard.folder / "out/late-latin/_SUCCESS").exists()
    for part in (yard.folder / "out/late-latin").glob("*.parquet"):
        assert ds.dataset(part).to_table().num_rows


@pytest.mark.parametrize(
    ("file", "reason", "told"),
    [
        ("a.parquet", "InputInvalid", "a.parquet"),
        ("a.csv", "InputInvalid", "a.csv: the first line must name every column"),
        ("a.jsonl", "SchemaMismatch", "there is no column x"),
        ("a.arrow", "InputInvalid", "a.arrow"),
    ],
)
def test_a_file_without_a_byte_is_told(yard: Yard, file: str, reason: str, told: str) -> None:
    folder = yard.folder / "in" / f"empty-{file}"
    folder.mkdir(parents=True)
    (folder / file).touch()
    name, found = run(yard, f"in/empty-{file}")
    assert (state(yard, name)[2], told in message(found)) == (reason, True), message(found)
    assert not (yard.folder / "out" / name).exists()


def test_csv_and_json_lines_are_read_and_written(yard: Yard) -> None:
    folder = yard.folder / "in/csv"
    folder.mkdir(parents=True)
    pacsv.write_csv(records(0, 3000), folder / "a.csv")
    (folder / "_hidden.csv").write_text("not,read\n")
    output = {"uri": "out/lines", "keep": ["id"], "format": "jsonl"}
    name, found = run(yard, "", score={"input": {"uri": "in/csv"}, "output": output, "batchRows": 700})
    assert found["rows"] == 3000
    lines = [
        json.loads(x) for p in sorted((yard.folder / "out/lines").glob("*.jsonl")) for x in p.read_text().splitlines()
    ]
    assert sorted((each["id"], each["y"]) for each in lines) == [(n, 1.5 * n + 1) for n in range(3000)]
    output = {"uri": "out/tables", "keep": ["id"], "format": "csv"}
    score = {"input": {"uri": "out/lines"}, "output": output, "model": {"name": "slow"}}
    score["input"] = {"uri": "in/csv/a.csv"}
    name, found = run(yard, "", score=score)
    assert state(yard, name)[2] == "Completed"
    table = pacsv.read_csv(next((yard.folder / "out/tables").glob("*.csv")))
    assert table.column_names == ["id", "y"]


def test_rows_that_cannot_be_scored_become_dead_letters_and_all_others_are_scored(yard: Yard) -> None:
    table = records(0, 4000).to_pydict()
    table["x"][10], table["x"][700], table["x"][3000], table["x"][3001] = None, -2.0, -1.0, -1.0
    put(yard, "in/poison", a=pa.table(table))
    score = {"errors": {"onError": "deadLetter", "maxRows": 4}, "batchRows": 500}
    name, found = run(yard, "in/poison", score=score)
    assert state(yard, name) == ("True", "False", "Completed"), message(found)
    assert (found["rows"], found["errorRows"]) == (3996, 4)
    told = sorted(letters(yard, found), key=lambda each: each["row"])
    assert [(each["row"], each["code"], each["key"]) for each in told] == [
        (10, "NullValue", {"id": 10}),
        (700, "Refused", {"id": 700}),
        (3000, "Crashed", {"id": 3000}),
        (3001, "Crashed", {"id": 3001}),
    ]
    assert told[1]["message"] == "x must not be -2"
    assert "SIGABRT" in told[2]["message"]
    ids = results(yard, name)["id"].to_pylist()
    assert ids == [n for n in range(4000) if n not in (10, 700, 3000, 3001)]


def test_the_budget_of_errors_ends_the_job_early_with_the_latest_of_them(yard: Yard) -> None:
    table = records(0, 2000).to_pydict()
    table["x"][:50] = [None] * 50
    put(yard, "in/many", a=pa.table(table))
    name, found = run(yard, "in/many", score={"errors": {"onError": "skip", "maxPercent": 2}})
    assert state(yard, name)[2] == "ErrorBudgetExceeded"
    assert "50 of 2,000 rows could not be scored, errors.maxPercent is 2; the latest: a.parquet, row" in message(found)
    name, found = run(yard, "in/many")
    assert state(yard, name)[2] == "RowFailed"
    assert "a.parquet, row 0: NullValue: x is null" in message(found)
    name, found = run(yard, "in/many", score={"errors": {"onError": "skip"}})
    assert (found["rows"], found["errorRows"], "deadLetters" in found) == (1950, 50, True)


def test_the_same_work_is_done_once_whoever_asks(yard: Yard) -> None:
    put(yard, "in/same", a=records(0, 100))
    name, found = run(yard, "in/same", "out/same")
    assert state(yard, name)[2] == "Completed"
    again, found = run(yard, "in/same", "out/same")
    assert state(yard, again) == ("True", "False", "AlreadyDone")
    assert found["rows"] == 100
    put(yard, "in/more", b=records(100, 50))
    other, found = run(yard, "in/more", "out/same")
    assert state(yard, other)[2] == "OutputNotEmpty"
    for mode, rows in (("append", 150), ("append", 150), ("overwrite", 50)):
        score = {"output": {"uri": "out/same", "keep": ["id"], "mode": mode}, "input": {"uri": "in/more"}}
        last, _ = run(yard, "", score=score)
        assert state(yard, last)[0] == "True"
        assert results(yard, "same").num_rows == rows
    assert results(yard, "same")["id"].to_pylist() == list(range(100, 150))


def test_an_output_that_another_job_writes_to_is_left_alone(yard: Yard) -> None:
    put(yard, "in/busy", a=records(0, 100))
    put(yard, "in/late", a=records(100, 100))
    (yard.folder / "pace").write_text("5")
    try:
        first, _ = run(yard, "in/busy", "out/busy", until=False)
        wait_until(lambda: status(yard, first).get("shards"), "it has begun")
        second, found = run(yard, "in/late", "out/busy")
        assert state(yard, second)[2] == "OutputInUse"
        assert "wait for it, use another uri, or take it over with mode: overwrite" in message(found)
    finally:
        (yard.folder / "pace").write_text("0")
    yard.cli("delete", "modeljob", first)
    third, _ = run(yard, "in/busy", "out/busy")
    # The same work goes on where the deleted job was, or finds that it was faster than its deletion.
    assert state(yard, third) in (("True", "False", "Completed"), ("True", "False", "AlreadyDone"))
    assert results(yard, "busy").num_rows == 100


def test_an_input_that_changes_ends_the_job(yard: Yard) -> None:
    put(yard, "in/moving", **{f"f{n}": records(n * 20_000, 20_000) for n in range(4)})
    (yard.folder / "pace").write_text("0.5")
    name, _ = run(yard, "in/moving", until=False)
    wait_until(lambda: status(yard, name).get("shards"), "it has begun")
    for number in range(4):
        put(yard, "in/moving", **{f"f{number}": records(0, 100)})
    (yard.folder / "pace").write_text("0")
    wait_until(lambda: "True" in state(yard, name)[:2], "it ends")
    assert state(yard, name)[2] == "InputChanged"
    assert ".parquet changed or went while it was used" in message(status(yard, name))


def test_a_deleted_job_leaves_no_process_and_its_commits(yard: Yard) -> None:
    put(yard, "in/deleted", a=records(0, 50_000))
    (yard.folder / "pace").write_text("1")
    try:
        name, _ = run(yard, "in/deleted", until=False, parallelism=2)
        wait_until(lambda: len(runners(yard)) == 2, "two runners")
        yard.cli("delete", "modeljob", name)
        wait_until(lambda: not runners(yard), "no runner is left")
    finally:
        (yard.folder / "pace").write_text("0")
    assert not list((yard.data / "work").iterdir()), "its folders are removed"


def test_jobs_leave_only_results_however_they_end(yard: Yard) -> None:
    """No process, no folder of theirs with what is temporary, and no half of a file at an output."""
    put(yard, "in/ends", a=records(0, 5000))
    holes = records(0, 5000).to_pydict()
    holes["x"][4000] = None
    put(yard, "in/holes", a=pa.table(holes))
    done, _ = run(yard, "in/ends")
    failed, _ = run(yard, "in/holes")
    assert (state(yard, done)[2], state(yard, failed)[2]) == ("Completed", "RowFailed")
    (yard.folder / "pace").write_text("30")
    try:
        late, _ = run(yard, "in/ends", activeDeadlineSeconds=2)
        stopped, _ = run(yard, "in/ends", until=False)
        wait_until(lambda: status(yard, stopped).get("shards"), "it has begun")
        yard.cli("suspend", stopped)
        assert state(yard, late)[2] == "DeadlineExceeded"
        wait_until(lambda: not runners(yard) and not workers(yard), "no process is left")
        wait_until(lambda: not list((yard.data / "work").iterdir()), "no folder is left")
    finally:
        (yard.folder / "pace").write_text("0")
    for name in (done, failed, late, stopped):
        assert not list((yard.folder / "out" / name).glob("_run/1/staging/*"))
    left = [each for each in (yard.folder / "out" / done / "_run/1").rglob("*") if each.is_file()]
    assert sorted(each.parent.name for each in left) == ["1", "commits"]


def test_a_job_that_takes_too_long_has_failed(yard: Yard) -> None:
    put(yard, "in/long", a=records(0, 5000))
    (yard.folder / "pace").write_text("30")
    try:
        name, _ = run(yard, "in/long", activeDeadlineSeconds=2)
    finally:
        (yard.folder / "pace").write_text("0")
    assert state(yard, name) == ("False", "True", "DeadlineExceeded")
    wait_until(lambda: not runners(yard), "no runner is left")


def test_a_job_of_higher_priority_gets_the_room_of_a_lower_one_which_goes_on_later(yard: Yard) -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    most = {"requests": {"memory": f"{total * 6 // 10}Mi"}}
    put(yard, "in/low", a=records(0, 30_000))
    put(yard, "in/high", a=records(0, 1000))
    (yard.folder / "pace").write_text("1")
    low, _ = run(yard, "in/low", until=False, resources=most, priority="low")
    wait_until(lambda: status(yard, low).get("shards"), "the first works")
    (yard.folder / "pace").write_text("1")
    high, _ = run(yard, "in/high", resources=most, priority="high", until=False)
    wait_until(lambda: "made room for" in message(status(yard, low)), "the first makes room")
    wait_until(lambda: state(yard, high)[2] == "Completed", "the second is done")
    (yard.folder / "pace").write_text("0")
    wait_until(lambda: state(yard, low)[2] == "Completed", "the first goes on", 60)
    assert status(yard, low)["failed"] == 0
    assert results(yard, low)["id"].to_pylist() == list(range(30_000))


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk can be mounted by root alone")
def test_a_full_disk_is_told_and_goes_on_when_there_is_room(yard: Yard) -> None:
    small = yard.folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)], check=True)
    try:
        (small / "ballast").write_bytes(bytes(200 * 1024))
        put(yard, "in/full", a=records(0, 20_000))
        name, _ = run(yard, "in/full", "small/out", until=False)
        wait_until(lambda: state(yard, name)[2] == "DiskFull", "it says so")
        for part in small.glob("out/part-*"):
            assert ds.dataset(part).to_table().num_rows, "what is visible is whole"
        (small / "ballast").unlink()
        wait_until(lambda: state(yard, name)[2] == "Completed", "it goes on", 60)
        assert ds.dataset(small / "out", format="parquet").to_table().num_rows == 20_000
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_objects_may_be_applied_in_any_order(yard: Yard) -> None:
    put(yard, "in/order", a=records(0, 10))
    name, _ = run(yard, "in/order", score={"model": {"name": "late"}}, until=False)
    wait_until(lambda: state(yard, name)[2] == "ModelNotFound", "it waits")
    model = yard.get("model", "slow")
    spec = model["spec"]
    yard.apply(
        {**{k: model[k] for k in ("apiVersion", "kind")}, "metadata": {"name": "late"}, "spec": spec}, wait=False
    )
    wait_until(lambda: state(yard, name)[2] == "Completed", "it goes on")
    assert obstore.list(folder_store(yard.folder / "out" / name)).collect()

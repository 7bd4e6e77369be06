"""A runner as its driver starts it: exit statuses, reports, signals, and shards that have ended others."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper
from PIL import Image
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType

from jobs_testing import folder_store, records, write_parquet
from models_testing import X as FEATURES
from models_testing import regression, write_joblib, write_skops
from modelyard.base.conditions import Reason
from modelyard.runtime.jobs import lane, layout
from modelyard.runtime.jobs.progress import Progress
from modelyard.runtime.jobs.runner import score
from modelyard.runtime.report.file import ReportFile
from modelyard.runtime.scoring.refused import Refused
from modelyard.storage.cache import Cache
from modelyard.wire import report as reports
from modelyard.wire import work as works
from modelyard.wire.place import Place
from modelyard.wire.report import Report
from modelyard.wire.work import ErrorsWork, InputWork, ModelWork, OutputWork, RunWork, ScoreWork, TensorSpec, WorkSpec
from yard_testing import wait_until

X, Y = (TensorSpec(name=name, datatype="FP64", shape=(-1,)) for name in ("x", "y"))


def linear(path: Path) -> Path:
    """y = 3 x + 1 for FP64 [-1]."""
    tensor = helper.make_tensor
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "three"], ["m"]), helper.make_node("Add", ["m", "one"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["n"])],
        [tensor("three", TensorProto.DOUBLE, [1], [3.0]), tensor("one", TensorProto.DOUBLE, [1], [1.0])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def brightness(path: Path) -> Path:
    """The mean of images UINT8 [-1, 2, 2, 3]."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["f"], ["mean"], axes=[1, 2, 3], keepdims=0),
        ],
        "brightness",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 2, 2, 3])],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["n"])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


class Runner:
    """`python -m modelyard.runtime.jobs` in a project folder, by hand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "scratch").mkdir()
        self.cache = Cache(root / "cache")
        self.place = Place(
            work=str(root / "work.json"),
            report=str(root / "report.json"),
            cache=str(root / "cache"),
            scratch=str(root / "scratch"),
            root=str(root),
        )

    def work(
        self, model: Path, inputs: TensorSpec = X, outputs: TensorSpec = Y, format_name: str = "onnx", **changes: Any
    ) -> None:
        asked = ModelWork(
            name="m",
            digest=self.cache.put(model),
            format=format_name,
            trust="pickle" if format_name == "joblib" else "",
            inputs=(inputs,),
            outputs=(outputs,),
        )
        fields = {
            "job": "job-uid",
            "model": asked,
            "input": InputWork(uri="in"),
            "output": OutputWork(uri="out", keep=("id",)),
            **changes,
        }
        Path(self.place.work).write_bytes(works.encode(WorkSpec(score=ScoreWork(**fields))))

    def asked(self) -> ScoreWork:
        found = works.decode(Path(self.place.work).read_bytes()).score
        assert found is not None
        return found

    def start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, **self.place.environment()}
        command = [sys.executable, "-m", "modelyard.runtime.jobs"]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self) -> tuple[int, str]:
        process = self.start()
        out, _ = process.communicate(timeout=60)
        return process.returncode, out

    @property
    def report(self) -> Report:
        return reports.decode(Path(self.place.report).read_bytes())

    def results(self) -> pa.Table:
        return ds.dataset(self.root / "out", format="parquet").to_table()

    def objects(self, below: str = "") -> set[str]:
        base = self.root / "out"
        return {each.relative_to(base).as_posix() for each in (base / below).rglob("*") if each.is_file()}


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def put(runner: Runner, rows: int, name: str = "a") -> None:
    write_parquet(folder_store(runner.root / "in"), f"{name}.parquet", records(0, rows), row_group=1000)


def test_work_that_is_done_ends_with_0_and_leaves_only_what_counts(runner: Runner) -> None:
    put(runner, 5000)
    runner.work(linear(runner.root / "m.onnx"), min_shards=4)
    status, out = runner.run()
    assert status == 0, out
    job = runner.report.job
    assert job is not None
    assert (job.done, job.rows, job.error_rows, job.shards, job.total_rows) == (True, 5000, 0, 1, 5000)
    assert sorted(runner.results()["id"].to_pylist()) == list(range(5000))
    assert {key.split("/")[-1].split("-")[0] for key in runner.objects("_run")} == {"1.json", "done.json", "00000"}
    status, out = runner.run()
    assert (status, "began" in out) == (0, False), "asked again it finds that all is done"
    parts = {key for key in runner.objects() if key.startswith("part-")}
    metadata = pq.read_metadata(runner.root / "out" / parts.pop()).metadata
    assert metadata[b"modelyard.run"] == b"1"


def test_what_nobody_can_do_ends_with_3_and_says_why(runner: Runner) -> None:
    runner.work(linear(runner.root / "m.onnx"))
    status, _ = runner.run()
    assert status == 3
    failure = runner.report.failure
    assert failure is not None
    assert (failure.reason, failure.retry) == ("InputNotFound", False)


def test_what_may_work_later_ends_with_1(runner: Runner) -> None:
    put(runner, 10)
    (runner.root / "out").write_text("a file where a folder must be")
    runner.work(linear(runner.root / "m.onnx"))
    status, out = runner.run()
    assert status in (1, 3), out
    assert runner.report.failure is not None
    assert "Traceback" not in out


def test_without_a_place_it_says_that_it_is_not_started_by_hand() -> None:
    done = subprocess.run([sys.executable, "-m", "modelyard.runtime.jobs"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "started by Modelyard" in done.stderr


def test_a_shard_that_ended_others_is_tried_with_care(runner: Runner) -> None:
    put(runner, 3000)
    runner.work(linear(runner.root / "m.onnx"))
    assert runner.run()[0] == 0
    base = runner.root / "out"
    record = json.loads((base / layout.run(1)).read_text())
    for key in runner.objects() - {layout.run(1)}:
        (base / key).unlink()
    for count in (1, 2):
        marker = base / layout.attempt(1, 0, count)
        marker.write_text(json.dumps({"runner": 0, "incarnation": "dead"}))
    status, out = runner.run()
    assert status == 0, out
    assert "shard 0 was begun 2 times before; its rows are tried with care" in out
    assert len(record["shards"]) == 1
    assert runner.results()["y"].to_pylist() == [1.5 * number + 1 for number in range(3000)]


def test_a_shard_that_ends_everybody_ends_the_job(runner: Runner) -> None:
    put(runner, 10)
    runner.work(linear(runner.root / "m.onnx"))
    assert runner.run()[0] == 0
    base = runner.root / "out"
    for key in runner.objects() - {layout.run(1)}:
        (base / key).unlink()
    (base / layout.attempt(1, 0, 12)).write_text(json.dumps({"runner": 0, "incarnation": "dead"}))
    assert runner.run()[0] == 3
    failure = runner.report.failure
    assert failure is not None
    assert failure.reason == "ShardFailed"


def test_sigterm_takes_attempts_back_and_ends_soon(runner: Runner) -> None:
    put(runner, 2_000_000)
    runner.work(linear(runner.root / "m.onnx"), batch_rows=100, min_shards=4)
    process = runner.start()
    attempts = runner.root / "out/_run/1/attempts"
    wait_until(lambda: attempts.exists() and list(attempts.glob("*.json")), "it has begun")
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 143, out
    parts = {int(key.split("-")[2].split(".")[0]) for key in runner.objects() if key.startswith("part-")}
    left = {int(each.name.split("-")[0]) for each in attempts.glob("*.json")}
    assert left <= parts, "only committed shards keep their attempts"


def test_images_in_a_folder_are_rows(runner: Runner) -> None:
    store = folder_store(runner.root / "in")
    for number in range(5):
        sink = io.BytesIO()
        Image.fromarray(np.full((2, 2, 3), number * 10, np.uint8)).save(sink, "PNG")
        store.put(f"deep/{number}.png", sink.getvalue())
    store.put("broken.png", b"no image")
    store.put("notes.txt", b"left out")
    runner.work(
        brightness(runner.root / "m.onnx"),
        TensorSpec(name="image", datatype="UINT8", shape=(-1, 2, 2, 3)),
        TensorSpec(name="mean", datatype="FP32", shape=(-1,)),
        output=OutputWork(uri="out", keep=("path",)),
        errors=ErrorsWork(on_error="deadLetter"),
    )
    status, out = runner.run()
    assert status == 0, out
    found = runner.results().sort_by("path").to_pylist()
    assert found == [{"path": f"deep/{number}.png", "mean": 10.0 * number} for number in range(5)]
    (letters,) = (runner.root / "out/_run/1/errors").iterdir()
    letter = json.loads(letters.read_text())
    assert (letter["file"], letter["code"], letter["key"]) == ("broken.png", "ImageInvalid", {"path": "broken.png"})


@pytest.mark.parametrize(
    ("source", "target"), [("parquet", "arrow"), ("arrow", "csv"), ("csv", "jsonl"), ("jsonl", "parquet")]
)
def test_every_format_is_read_and_written(runner: Runner, source: str, target: str) -> None:
    folder_store(runner.root / "in").put(f"a{layout.SUFFIXES[source]}", whole(source, records(0, 700)))
    runner.work(linear(runner.root / "m.onnx"), output=OutputWork(uri="out", format=target, keep=("id",)))
    status, out = runner.run()
    assert status == 0, out
    (part,) = (runner.root / "out").glob(f"*{layout.SUFFIXES[target]}")
    assert read(target, part) == [{"id": number, "y": 1.5 * number + 1} for number in range(700)]


def whole(format_name: str, table: pa.Table) -> bytes:
    """A file of that format as other tools write it."""
    sink = io.BytesIO()
    if format_name == "parquet":
        pq.write_table(table, sink)
    elif format_name == "csv":
        pacsv.write_csv(table, sink)
    elif format_name == "arrow":
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        sink.write("".join(json.dumps(row) + "\n" for row in table.to_pylist()).encode())
    return sink.getvalue()


def read(format_name: str, path: Path) -> list[dict[str, Any]]:
    """As other tools read it."""
    if format_name == "jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    rows: list[dict[str, Any]] = ds.dataset(path, format=format_name).to_table().to_pylist()
    return rows


@pytest.mark.parametrize("format_name", ["onnx", "skops", "joblib"])
def test_models_of_every_format_score_as_they_serve(runner: Runner, format_name: str) -> None:
    model = regression()
    path = runner.root / f"m.{format_name}"
    if format_name == "onnx":
        initial = [("X", DoubleTensorType([None, 4]))]
        path.write_bytes(to_onnx(model, initial_types=initial).SerializeToString())
    else:
        {"skops": write_skops, "joblib": write_joblib}[format_name](model, path)
    columns = {f"c{number}": FEATURES[:, number] for number in range(4)}
    write_parquet(folder_store(runner.root / "in"), "a.parquet", pa.table({"id": range(len(FEATURES)), **columns}))
    name = "variable" if format_name == "onnx" else "predictions"
    features = TensorSpec(name="X", datatype="FP64", shape=(-1, 4))
    output = TensorSpec(name=name, datatype="FP64", shape=(-1, 1) if format_name == "onnx" else (-1,))
    runner.work(path, features, output, format_name=format_name)
    status, out = runner.run()
    assert status == 0, out
    found = runner.results().sort_by("id")
    assert np.allclose(found[name].to_numpy(), model.predict(FEATURES))


async def test_a_part_that_becomes_too_large_ends_the_job_and_is_not_visible(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "MOST_PART_BYTES", 1000)
    put(runner, 5000)
    runner.work(linear(runner.root / "m.onnx"))
    work = runner.asked()
    with pytest.raises(Refused, match="at most 0 are put at once; keep fewer columns") as caught:
        await score(work, runner.place, Progress(ReportFile(Path(runner.place.report))), asyncio.Event())
    assert caught.value.reason == Reason.PART_TOO_LARGE
    assert not [key for key in runner.objects() if key.startswith("part-")]


def test_files_of_several_formats_want_to_be_told_apart(runner: Runner) -> None:
    put(runner, 10)
    folder_store(runner.root / "in").put("b.csv", b"id,x\n10,5.0\n")
    runner.work(linear(runner.root / "m.onnx"))
    assert runner.run()[0] == 3
    failure = runner.report.failure
    assert failure is not None
    assert failure.message == "in holds files of several formats (csv, parquet); say which in input.format"
    runner.work(linear(runner.root / "m.onnx"), input=InputWork(uri="in", format="csv"))
    assert runner.run()[0] == 0
    assert runner.objects("") >= {"part-00001-00000.csv"}


def test_a_node_that_waits_for_the_first_ends_when_it_is_asked_to(runner: Runner) -> None:
    asked = RunWork(job="uid", job_name="default/j", command=("python", "x.py"), nodes=2, output=OutputWork(uri="out"))
    Path(runner.place.work).write_bytes(works.encode(WorkSpec(run=asked)))
    runner.place = msgspec.structs.replace(runner.place, index=1)
    process = runner.start()
    wait_until(lambda: listens_to_sigterm(process.pid), "it has begun")
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 143, out


def listens_to_sigterm(pid: int) -> bool:
    """Whether the process has a way of its own to end."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1)


def test_an_output_within_the_input_is_refused(runner: Runner) -> None:
    put(runner, 10)
    runner.work(linear(runner.root / "m.onnx"), output=OutputWork(uri="in/out"))
    assert runner.run()[0] == 3
    failure = runner.report.failure
    assert failure is not None
    assert "lies within the input" in failure.message

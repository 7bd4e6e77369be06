"""A scoring job beside a pipeline that somebody would write by hand for the same data: one table.

PYTHONPATH=src:tests python bench/jobs.py [--rows 4000000] [--rounds 5]

Parquet with an id and ten FP64 columns -> an ONNX model [-1, 10] -> Parquet with the id and one output, on file://.
Both run in processes of their own, pinned to one core with one thread; rounds alternate, the median of the ratios
counts. Rates are from the first row that is read to the last that is visible; starting Python and planning is a row
of its own. Then: two runners against one, a job of 1,000 rows from `apply` to Complete, and the peak memory of a
runner. The status is 1 when a target is missed.
"""

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

from jobs_testing import API, state
from modelyard.storage.cache import Cache
from modelyard.wire import work as works
from modelyard.wire.place import Place
from modelyard.wire.work import InputWork, ModelWork, OutputWork, ScoreWork, TensorSpec, WorkSpec
from yard_testing import Yard, wait_until

FILES, FEATURES = 8, 10
_LEAST_SHARE, _MOST_GROWTH = 0.8, 1.5
_BATCHES = (16_384, 65_536)
_BY_HAND = """
import glob, os, resource, sys, time
import numpy as np, onnxruntime, pyarrow as pa, pyarrow.parquet as pq
folder = sys.argv[1]
pa.set_cpu_count(1)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(f"{folder}/model.onnx", options, providers=["CPUExecutionProvider"])
os.makedirs(f"{folder}/hand")
began, rows = time.perf_counter(), 0
for path in sorted(glob.glob(f"{folder}/in/*.parquet")):
    source, writer = pq.ParquetFile(path), None
    for group in range(source.num_row_groups):
        table = source.read_row_group(group, use_threads=False)
        matrix = np.column_stack([table[f"f{n}"].to_numpy() for n in range(10)]).astype(np.float32)
        found = pa.table({"id": table["id"], "y": session.run(None, {"X": matrix})[0][:, 0]})
        if writer is None:
            writer = pq.ParquetWriter(f"{folder}/hand/{os.path.basename(path)}", found.schema, compression="zstd")
        writer.write_table(found)
        rows += table.num_rows
    writer.close()
print(rows / (time.perf_counter() - began))
"""

_PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""Linux counts to a process what the one that started it had: so that is a small one, and not the one with the data."""


class Table:
    """Rows as they come; remembers whether a target was missed."""

    def __init__(self) -> None:
        self.missed = False

    def row(self, name: str, value: str, target: str = "", *, good: bool = True) -> None:
        self.missed |= not good
        verdict = "" if not target else "ok" if good else "MISSED"
        sys.stdout.write(f"{f'{name:<54}{value:>18}{target:>12}  {verdict}'.rstrip()}\n")
        sys.stdout.flush()


def write_data(folder: Path, rows: int, *, group: int = 100_000, files: int = FILES) -> None:
    chance = np.random.default_rng(0)
    shutil.rmtree(folder / "in", ignore_errors=True)
    (folder / "in").mkdir()
    each = rows // files
    for number in range(files):
        columns = {f"f{n}": chance.random(each) for n in range(FEATURES)}
        table = pa.table({"id": np.arange(number * each, (number + 1) * each), **columns})
        pq.write_table(table, folder / "in" / f"{number}.parquet", row_group_size=group)


def write_model(folder: Path) -> Path:
    """A logistic regression."""
    weights = np.random.default_rng(1).normal(size=(FEATURES, 1)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["X", "w"], ["m"]), helper.make_node("Sigmoid", ["m"], ["y"])],
        "regression",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(weights, "w")],
    )
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


class Job:
    """Runners on the data of a folder, by hand."""

    def __init__(self, folder: Path, batch_rows: int, min_shards: int = 16) -> None:
        self.folder = folder
        shutil.rmtree(folder / "out", ignore_errors=True)
        digest = Cache(folder / "cache").put(folder / "model.onnx")
        inputs = (TensorSpec(name="X", datatype="FP32", shape=(-1, FEATURES)),)
        outputs = (TensorSpec(name="y", datatype="FP32", shape=(-1, 1)),)
        score = ScoreWork(
            job="bench",
            model=ModelWork(name="m", digest=digest, format="onnx", inputs=inputs, outputs=outputs),
            input=InputWork(uri="in"),
            output=OutputWork(uri="out", keep=("id",)),
            batch_rows=batch_rows,
            min_shards=min_shards,
        )
        (folder / "work.json").write_bytes(works.encode(WorkSpec(score=score)))

    def start(self, core: int, before: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
        scratch = self.folder / f"scratch-{core}"
        scratch.mkdir(exist_ok=True)
        place = Place(
            work=str(self.folder / "work.json"),
            report=str(self.folder / f"report-{core}.json"),
            cache=str(self.folder / "cache"),
            scratch=str(scratch),
            root=str(self.folder),
            index=core,
        )
        return subprocess.Popen(
            [*before, *pinned(core, ["-m", "modelyard.runtime.jobs"])],
            env={**os.environ, **place.environment()},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def pinned(core: int, arguments: list[str]) -> list[str]:
    return ["taskset", "-c", str(core), sys.executable, *arguments]


def rates(folder: Path, rows: int, batch_rows: int, cores: tuple[int, ...]) -> tuple[float, float]:
    """(rows a second, seconds before the first row is read)."""
    job = Job(folder, batch_rows)
    began = time.time()
    processes = [job.start(core) for core in cores]
    logs = [each.communicate(timeout=300)[1] for each in processes]
    if any(each.returncode for each in processes):
        raise SystemExit(f"a runner failed:\n{logs[0][-2000:]}")
    lines = [line for log in logs for line in log.splitlines()]
    first = min(stamp(line) for line in lines if " began run " in line)
    last = max(stamp(line) for line in lines if "are committed" in line)
    return rows / (last - first), first - began


def stamp(line: str) -> float:
    return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()


def by_hand(folder: Path) -> float:
    shutil.rmtree(folder / "hand", ignore_errors=True)
    command = pinned(0, ["-c", _BY_HAND, str(folder)])
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_mb(folder: Path, batch_rows: int) -> float:
    """Of one runner, start included."""
    process = Job(folder, batch_rows).start(0, (sys.executable, "-c", _PEAK))
    out, error = process.communicate(timeout=300)
    if process.returncode:
        raise SystemExit(f"a runner failed:\n{error[-2000:]}")
    return int(out) / 1024


def compare(table: Table, folder: Path, rows: int, rounds: int) -> None:
    for batch_rows in _BATCHES:
        ratios, ours, starts = [], [], []
        for _ in range(rounds):
            hand = by_hand(folder)
            rate, start = rates(folder, rows, batch_rows, (0,))
            ratios.append(rate / hand)
            ours.append(rate)
            starts.append(start)
        share = statistics.median(ratios)
        table.row(f"one core, batchRows {batch_rows}: rows/s", f"{statistics.median(ours):,.0f}")
        table.row("  of the pipeline by hand", f"{share:.2f}", f">= {_LEAST_SHARE}", good=share >= _LEAST_SHARE)
    table.row("from the start of a runner to the first row", f"{statistics.median(starts):.2f} s")


def scale(table: Table, folder: Path, rows: int, rounds: int) -> None:
    found = []
    for _ in range(rounds):
        one = rates(folder, rows, 65_536, (0,))[0]
        found.append(rates(folder, rows, 65_536, (0, 1))[0] / one)
    ratio = statistics.median(found)
    table.row("two runners on two cores, times one", f"{ratio:.2f}")


def start_up(table: Table, folder: Path, rounds: int) -> None:
    write_data(folder, 1000, files=1)
    model = {
        "apiVersion": API,
        "kind": "Model",
        "metadata": {"name": "m", "namespace": "default"},
        "spec": {"uri": "model.onnx"},
    }
    times = []
    with Yard(folder) as yard:
        yard.apply(model)
        for number in range(rounds):
            spec = {
                "model": {"name": "m"},
                "input": {"uri": "in"},
                "output": {"uri": f"small-{number}", "keep": ["id"]},
            }
            body = {"apiVersion": API, "kind": "ModelJob", "metadata": {"name": f"j{number}", "namespace": "default"}}
            began = time.monotonic()
            yard.apply({**body, "spec": {"score": spec}}, wait=False)
            applied = time.monotonic()
            wait_until(lambda number=number: state(yard, f"j{number}")[0] == "True", "the job")  # type: ignore[misc]
            times.append((time.monotonic() - applied, applied - began))
    table.row("1,000 rows, from stored to Complete", f"{statistics.median(each[0] for each in times):.2f} s")


def memory(table: Table, folder: Path, rows: int) -> None:
    write_data(folder, rows // 4)
    small = peak_mb(folder, 65_536)
    write_data(folder, rows)
    large = peak_mb(folder, 65_536)
    write_data(folder, rows, group=rows, files=1)
    single = peak_mb(folder, 65_536)
    table.row(f"peak memory of a runner, {rows // 4:,} rows", f"{small:.0f} MB")
    growth = large / small
    table.row(f"  {rows:,} rows", f"{large:.0f} MB", f"<= {_MOST_GROWTH} x", good=growth <= _MOST_GROWTH)
    growth = single / small
    table.row("  the same in one row group", f"{single:.0f} MB", f"<= {_MOST_GROWTH} x", good=growth <= _MOST_GROWTH)


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    table = Table()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelyard-bench-")))
        write_model(folder)
        write_data(folder, options.rows)
        compare(table, folder, options.rows, options.rounds)
        scale(table, folder, options.rows, options.rounds)
        memory(table, folder, options.rows)
        start_up(table, folder, options.rounds)
    return 1 if table.missed else 0


if __name__ == "__main__":
    sys.exit(main())

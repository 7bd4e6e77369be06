"""Scoring jobs on a local server as users declare them, their data, and a reader that knows nothing of Modelyard."""

import asyncio
import base64
import io
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import obstore
import psutil
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from obstore.store import LocalStore

import scoring_worker
from modelyard.control.kube import auth
from modelyard.control.kube.client import Client
from modelyard.control.kube.resources import MODELJOBS
from s3_testing import KEY, S3, SECRET
from yard_testing import Yard

Object = dict[str, Any]
API = "modelyard.dev/v1alpha1"


def secret(name: str, keys: dict[str, str]) -> Object:
    data = {key: base64.b64encode(value.encode()).decode() for key, value in keys.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "default"}, "data": data}


def slow_model(folder: Path, pace: float) -> list[Object]:
    """A Model `slow` (x FP64 [-1] -> y = 3 x + 1) and the Runtime that runs it; `folder/pace` says how slowly."""
    (folder / "pace").write_text(str(pace))
    (folder / "slow.model").write_text(str(folder / "pace"))
    one = {"datatype": "FP64", "shape": [-1]}
    return [
        {
            "apiVersion": API,
            "kind": "Runtime",
            "metadata": {"name": "slow", "namespace": "default"},
            "spec": {
                "formats": [{"name": "slow"}],
                "process": {"command": [sys.executable, scoring_worker.__file__]},
            },
        },
        {
            "apiVersion": API,
            "kind": "Model",
            "metadata": {"name": "slow", "namespace": "default"},
            "spec": {
                "uri": "slow.model",
                "format": "slow",
                "inputs": [{"name": "x", **one}],
                "outputs": [{"name": "y", **one}],
            },
        },
    ]


def job(name: str, source: str, target: str, **spec: Any) -> Object:
    """A scoring job; spec: of the job, `score` merged."""
    score = {
        "model": {"name": "slow"},
        "input": {"uri": source},
        "output": {"uri": target, "keep": ["id"]},
        **spec.pop("score", {}),
    }
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": API, "kind": "ModelJob", "metadata": metadata, "spec": {"score": score, **spec}}


def records(first: int, rows: int) -> pa.Table:
    """id, and x = id / 2."""
    ids = np.arange(first, first + rows, dtype=np.int64)
    return pa.table({"id": ids, "x": ids / 2})


def write_parquet(store: Any, key: str, table: pa.Table, row_group: int = 10_000) -> None:
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=row_group)
    obstore.put(store, key, sink.getvalue())


def folder_store(path: Path) -> Any:
    path.mkdir(parents=True, exist_ok=True)
    return LocalStore(path)


def state(yard: Yard, name: str) -> tuple[str, str, str]:
    """(Complete, Failed, reason)."""
    conditions = {each["type"]: each for each in status(yard, name).get("conditions", [])}
    complete, failed = conditions.get("Complete", {}), conditions.get("Failed", {})
    return complete.get("status", ""), failed.get("status", ""), complete.get("reason", "")


def status(yard: Yard, name: str) -> Object:

    async def get() -> Object:
        async with Client(auth.load(yard.data / "kubeconfig")) as client:
            return await client.get(MODELJOBS, "default", name)

    found: Object = asyncio.run(get()).get("status", {})
    return found


def runners(yard: Yard) -> list[psutil.Process]:
    """The processes of jobs that run now."""
    found = []
    for each in yard.children():
        with suppress(psutil.Error):
            if each.cmdline()[-1:] == ["modelyard.runtime.jobs"]:
                found.append(each)
    return found


def workers(yard: Yard) -> list[psutil.Process]:
    """The processes that run the slow model."""
    found = []
    for each in yard.children():
        with suppress(psutil.Error):
            if each.cmdline()[-1:] == [scoring_worker.__file__]:
                found.append(each)
    return found


def s3_filesystem(s3: S3) -> Any:
    return pa.fs.S3FileSystem(
        access_key=KEY,
        secret_key=SECRET,
        endpoint_override=f"127.0.0.1:{s3.port}",
        scheme="http",
        region="us-east-1",
        connect_timeout=2,
        request_timeout=5,
    )


class PlainReader:
    """Reads the output prefix all the time, as any tool would. problems: what it must never see.

    outages: how often the store went and came back; a read during which that changes may fail.
    """

    def __init__(self, path: str, filesystem: Callable[[], Any] | None, outages: Callable[[], int]) -> None:
        self.problems: list[str] = []
        self.reads = 0
        self._path = path
        self._filesystem = filesystem
        self._outages = outages
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def table(self) -> pa.Table:
        filesystem = self._filesystem() if self._filesystem else None
        return ds.dataset(self._path, format="parquet", filesystem=filesystem).to_table()

    def _run(self) -> None:
        while not self._over.wait(0.2):
            before = self._outages()
            try:
                table = self.table()
            except Exception as error:
                away = before % 2 == 1 or self._outages() != before
                if not away and not _absent(error):
                    self.problems.append(f"{type(error).__name__}: {error}")
                continue
            self.reads += 1
            if table.num_rows:
                self.check(table)

    def check(self, table: pa.Table) -> None:
        ids = table["id"].to_numpy()
        if len(np.unique(ids)) != len(ids):
            self.problems.append(f"{len(ids) - len(np.unique(ids))} rows are there twice")
        if not np.array_equal(table["y"].to_numpy(), 3 * (ids / 2) + 1):
            self.problems.append("a row has a wrong result")


def _absent(error: Exception) -> bool:
    """There is no output yet."""
    return isinstance(error, FileNotFoundError) or "Path does not exist" in str(error)


def pause(seconds: float, over: Callable[[], bool]) -> None:
    """That long, or until it is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not over():
        time.sleep(0.05)

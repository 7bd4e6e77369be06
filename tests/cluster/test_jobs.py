"""Jobs on a real cluster: nothing is lost and nothing is there twice, whatever is killed in the middle."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster_serving_testing import model, models, secret
from cluster_testing import HOST, Cluster, Namespace
from installation_testing import SYSTEM, Installation
from kubectl_testing import until
from s3_testing import S3
from stand_in_image_testing import PREFIX, VERSION, archive

Object = dict[str, Any]
FILES, ROWS = 12, 20_000
SMALL = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"cpu": "500m", "memory": "512Mi"}}
TRAIN = """
import os, time
with open(os.environ["PROGRESS_FILE"], "w") as file:
    file.write('{"progressPercentage": 40}')
while not os.path.exists(os.environ["OUTPUT_DIR"] + "/seen"):
    time.sleep(0.1)
with open(os.environ["OUTPUT_DIR"] + "/weights", "w") as file:
    file.write("7")
"""
MEET = """
import os, socket
rank, folder = int(os.environ["RANK"]), os.environ["OUTPUT_DIR"]
at = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
if rank == 0:
    server = socket.create_server(("0.0.0.0", at[1]))
    peer, _ = server.accept()
    peer.sendall(b"hello")
else:
    while True:
        try:
            peer = socket.create_connection(at, timeout=30)
            break
        except OSError:
            pass
    assert peer.recv(5) == b"hello"
open(f"{folder}/rank-{rank}", "w").write(os.environ["WORLD_SIZE"])
"""


@pytest.fixture
def lake(cluster: Cluster, namespace: Namespace, tmp_path: Any) -> Iterator[S3]:
    """A store with models and a bucket `data`, and its keys in the namespace."""
    _ = cluster.node  # pods reach this machine from our node only
    with models(tmp_path, HOST) as server:
        namespace.apply(secret("lake", server.credentials()))
        yield server


def job(name: str, **spec: Any) -> Object:
    body = {"apiVersion": "modelyard.dev/v1alpha1", "kind": "ModelJob", "metadata": {"name": name}}
    return {**body, "spec": {"resources": SMALL, **spec}}


def state(namespace: Namespace, name: str) -> str:
    """Complete, Failed: and why, or "" while it runs."""
    found = namespace.find("modeljob", name).get("status", {}).get("conditions", [])
    ends = [each for each in found if each["type"] in ("Complete", "Failed") and each["status"] == "True"]
    return f"{ends[0]['type']}: {ends[0]['reason']}: {ends[0].get('message', '')}" if ends else ""


def finish(namespace: Namespace, name: str, seconds: float = 240) -> str:
    until(lambda: state(namespace, name), seconds)
    return state(namespace, name)


@pytest.mark.timeout(420)
def test_every_row_is_scored_once_although_pods_the_kubelet_and_the_leader_are_killed(
    cluster: Cluster, installed: Installation, namespace: Namespace, lake: S3
) -> None:
    store = lake.store()
    for number in range(FILES):
        obstore.put(store, f"in/{number:02}.parquet", _parquet(number * ROWS))
    score = {
        "model": {"name": "plus-1"},
        "input": {"uri": "s3://data/in/", "credentials": "lake", "columns": ["a", "b"]},
        "output": {"uri": "s3://data/out/", "credentials": "lake", "keep": ["id"]},
        "batchRows": 100,
    }
    namespace.apply(model("plus-1", "s3://models/plus-1.onnx"), job("score", score=score, parallelism=2))
    until(lambda: _committed(namespace) >= 1, 180)
    for _ in range(2):
        pods = namespace.all("pods", "-l", "modelyard.dev/job=score", "--field-selector=status.phase=Running")
        if pods:
            namespace("delete", "pod", pods[0]["metadata"]["name"], "--force", "--grace-period=0")
    (leader,) = (pod for pod in installed.pods("operator") if _leads(pod))
    installed.kubectl("-n", SYSTEM, "delete", "pod", leader["metadata"]["name"], "--force", "--grace-period=0")
    cluster.node.kill("kubelet")
    cluster.node.start("kubelet")
    assert finish(namespace, "score").startswith("Complete: Completed: "), namespace.told()
    found = pa.concat_tables(_read(lake, "out/"))
    ids = found["id"].to_numpy()
    assert sorted(ids) == list(range(FILES * ROWS))
    assert all(np.array_equal(y, [i + 1, 2 * i + 1]) for i, y in zip(ids[:1000], found["y"].to_pylist(), strict=False))
    again = job("again", score=score, parallelism=1)
    namespace.apply(again)
    assert finish(namespace, "again").startswith("Complete: AlreadyDone: ")


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("installed")
def test_a_program_in_a_users_image_leaves_what_is_committed(cluster: Cluster, namespace: Namespace, lake: S3) -> None:
    cluster.node.load(archive())
    run = {
        "command": ["/usr/local/bin/python3", "-c", TRAIN],
        "environment": {"image": f"{PREFIX}runtime:{VERSION}"},
        "output": {"uri": "s3://data/trained/", "credentials": "lake"},
    }
    namespace.apply(job("train", run=run))
    until(lambda: namespace.find("modeljob", "train").get("status", {}).get("progressPercentage") == 40, 120)
    (pod,) = namespace.all("pods", "-l", "modelyard.dev/job=train")
    seen = "import os; open(os.environ['OUTPUT_DIR'] + '/seen', 'w')"
    namespace("exec", pod["metadata"]["name"], "-c", "program", "--", "/usr/local/bin/python3", "-c", seen)
    assert finish(namespace, "train").startswith("Complete: "), namespace.told()
    assert [each for each in _keys(lake, "trained/") if each.endswith("weights")]


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("installed")
def test_nodes_of_one_job_find_each_other(namespace: Namespace, lake: S3) -> None:
    output = {"uri": "s3://data/together/", "credentials": "lake"}
    namespace.apply(job("together", run={"command": ["python3", "-c", MEET], "nodes": 2, "output": output}))
    assert finish(namespace, "together").startswith("Complete: "), namespace.told()
    assert [each for each in _keys(lake, "together/") if each.endswith("rank-0")]


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("installed", "lake")
def test_a_job_whose_input_is_not_there_has_failed_for_good(namespace: Namespace) -> None:
    score = {
        "model": {"name": "plus-1"},
        "input": {"uri": "s3://data/nothing/", "credentials": "lake"},
        "output": {"uri": "s3://data/out/", "credentials": "lake"},
    }
    namespace.apply(model("plus-1", "s3://models/plus-1.onnx"), job("empty", score=score))
    assert finish(namespace, "empty").startswith("Failed: InputNotFound: ")


def _committed(namespace: Namespace) -> int:
    shards = namespace.find("modeljob", "score").get("status", {}).get("shards", {})
    assert not state(namespace, "score").startswith("Failed"), state(namespace, "score")
    return int(shards.get("committed", 0))


def _leads(pod: Object) -> bool:
    return bool(pod["metadata"]["labels"].get("modelyard.dev/leader") == "true")


def _parquet(first: int) -> bytes:
    ids = np.arange(first, first + ROWS, dtype=np.int64)
    table = pa.table({"id": ids, "a": ids.astype(np.float32), "b": (2 * ids).astype(np.float32)})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=2_000)
    return sink.getvalue()


def _keys(lake: S3, prefix: str) -> list[str]:
    return [each["path"] for page in obstore.list(lake.store(), prefix) for each in page]


def _read(lake: S3, prefix: str) -> list[pa.Table]:
    """As any tool would: what begins with `_` or `.` is not data."""
    names = [each for each in _keys(lake, prefix) if each.endswith(".parquet")]
    shown = [each for each in names if not any(part.startswith(("_", ".")) for part in each.split("/"))]
    return [pq.read_table(io.BytesIO(bytes(obstore.get(lake.store(), each).bytes()))) for each in shown]

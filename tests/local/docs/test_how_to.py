"""The how-to pages do what they say."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nats
import pyarrow.dataset as ds
import pytest
import yaml
from aiohttp import ClientSession, UnixConnector

from models_testing import write_onnx
from modelyard.sdk import broker
from s3_testing import KEY, S3, SECRET
from yard_testing import Yard, wait_until

ROOT = Path(__file__).parents[3]
DOCS = sorted((ROOT / "docs").rglob("*.md"))


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


def command(page: str, start: str) -> str:
    """The one in the running text that begins so."""
    (found,) = re.findall(rf"`({start} [^`]+)`", (ROOT / "docs" / page).read_text())
    return str(found)


def shell(folder: Path, text: str, **variables: str) -> str:
    """Run lines as a person would, with the commands of this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **variables}
    environment.pop("KUBECONFIG", None)
    done = subprocess.run(
        ["bash", "-ec", text], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=150
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_page_that_a_page_links_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.timeout(240)
def test_jobs_prepare_train_and_score_as_written(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples/02-jobs", tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("data"))
    with Yard(tmp_path):
        first, second = blocks("how-to/jobs.md", "bash")
        assert "digits-trained" in shell(tmp_path, first)
        watched = shell(tmp_path, second)
        assert "450" in watched
        assert "Completed" in watched
        (program,) = blocks("how-to/jobs.md", "python")
        counted = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
        found = re.fullmatch(r"450 images, (\d+) recognized\n", counted)
        assert found, counted
        assert int(found[1]) > 420
        told = shell(tmp_path, "modelyard suspend digits-score 2>&1 || true; modelyard why digits-score")
        assert "450 rows" in told


STREAMS = "how-to/streams.md"


@pytest.mark.timeout(300)
def test_records_are_scored_as_they_arrive_as_written(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples/03-streams", tmp_path, dirs_exist_ok=True, ignore=made_by_the_example())
    with Yard(tmp_path) as yard:
        (lines,) = blocks(STREAMS, "bash")
        said = shell(tmp_path, lines)
        assert re.search(r"^1000 records in .*, each scored once, 9\d\.\d% right$", said, re.MULTILINE), said
        assert re.search(r"^screening +True +Following +exactlyOnce +2 +2 ", said, re.MULTILINE), said
        (program,) = blocks(STREAMS, "python")
        asked = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
        record, sequence = asked.strip().rsplit(" ", 1)
        assert {"id", "patient", "benign", "label"} <= json.loads(record).keys()
        assert 1 <= int(sequence) <= 1000
        assert_subjects_are_as_written(tmp_path)
        assert "modelyard_stream_records_total" in asyncio.run(metrics(yard))
        describe, row = command(STREAMS, "modelyard describe"), r"^  1 +1000 +0 +screening-stream-00001\."
        wait_until(lambda: re.search(row, shell(tmp_path, describe), re.MULTILINE), f"{row} in {describe}")
        shell(tmp_path, f"export KUBECONFIG=$(modelyard kubeconfig); {command(STREAMS, 'kubectl scale')}")
        wait_until(lambda: yard.get("modelstream", "screening")["status"]["readyReplicas"] == 1, "one runner is left")
        assert "its offsets stay" in shell(tmp_path, command(STREAMS, "modelyard suspend"))
        sending = [sys.executable, "replay.py", "1", "100"]
        with subprocess.Popen(sending, cwd=tmp_path, stdout=subprocess.PIPE) as replay:
            shell(tmp_path, command(STREAMS, "modelyard resume"))
            assert b"100 records" in replay.communicate(timeout=90)[0]
        assert replay.returncode == 0
        assert_files_are_as_written(yard)
        assert "is Ready and following" in shell(tmp_path, command(STREAMS, "modelyard why"))
        shell(tmp_path, "modelyard delete modelstream/screening")
        assert asyncio.run(subjects(tmp_path, "screening-out")) == {"screening.scored": 1100}


def test_the_sink_of_files_is_valid_as_written(tmp_path: Path) -> None:
    (tmp_path / "stream.yaml").write_text(yaml.safe_dump(example_to_files()))
    assert "1 object is valid" in shell(tmp_path, "modelyard validate stream.yaml")


def made_by_the_example() -> Any:
    return shutil.ignore_patterns(".modelyard", "model.onnx", "patients.jsonl")


def example_to_files() -> dict[str, Any]:
    """The stream of the example with the sink of the page: all of it once more, under another name."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "examples/03-streams/stream.yaml").read_text())
    (fragment,) = blocks(STREAMS, "yaml")
    found["metadata"]["name"] = "lake"
    found["spec"] |= yaml.safe_load(fragment) | {"start": {"from": "earliest"}}
    return found


def assert_files_are_as_written(yard: Yard) -> None:
    """Into a folder, and without the wait of the page."""
    stream = example_to_files()
    stream["spec"]["sink"] |= {"uri": "lake"}
    stream["spec"]["batch"] |= {"wait": "1s"}
    del stream["spec"]["sink"]["credentials"]
    yard.apply(stream)

    def ids() -> list[str]:
        table = ds.dataset(yard.folder / "lake", format="parquet").to_table()
        return table["id"].to_pylist() if table.num_rows else []

    wait_until(lambda: len(ids()) >= 1100, "the files hold all records")
    assert len(ids()) == len(set(ids())) == 1100


def assert_subjects_are_as_written(folder: Path) -> None:
    """What each page says about the stored subjects of source and sink."""
    source = asyncio.run(subjects(folder, "screening-in"))
    assert sum(source.values()) == 1000
    assert all(re.fullmatch(r"screening\.in\.[01]\.site\d", each) for each in source), source
    (listed,) = re.findall(
        r"```\n(screening\..*?)```", (ROOT / "docs/explanation/exactly-once.md").read_text(), re.DOTALL
    )
    names = [line.split()[0] for line in listed.splitlines()]
    expected = {
        each.replace("<namespace>", "default").replace("<name>", "screening").replace("<p>", partition)
        for each in names[:-1]
        for partition in "01"
    }
    assert set(asyncio.run(subjects(folder, "screening-out"))) == expected - {"screening.dead"}
    assert asyncio.run(subjects(folder, names[-1]))


async def subjects(folder: Path, stream: str) -> dict[str, int]:
    """How many messages each subject of a stream has."""
    connection = await nats.connect(**broker.connect_options(folder))
    try:
        found = (await connection.jetstream().stream_info(stream, subjects_filter=">")).state.subjects
        return dict(found or {})
    finally:
        await connection.close()


async def metrics(yard: Yard) -> str:
    """Of one runner."""
    runners = [each.environ() for each in yard.children() if "modelyard.runtime.streams" in each.cmdline()]
    async with ClientSession(connector=UnixConnector(runners[0]["MODELYARD_SOCKET"])) as session:
        return await (await session.get("http://runner/metrics")).text()


@pytest.mark.timeout(180)
def test_a_model_comes_from_an_object_store_as_written(tmp_path: Path) -> None:
    page = "how-to/models-in-object-stores.md"
    project = tmp_path / "project"
    project.mkdir()
    with S3(tmp_path / "weed") as s3, Yard(project):
        import_model(s3, tmp_path)
        (project / "model.yaml").write_text(blocks(page, "yaml")[0])
        first, second = blocks(page, "bash")
        shell(project, first, KEY=KEY, SECRET=SECRET, ENDPOINT=s3.endpoint)
        assert "Ready" in shell(project, second)


def import_model(s3: S3, folder: Path) -> None:
    s3.store("models").put("forest.onnx", write_onnx(folder / "m.onnx").read_bytes())

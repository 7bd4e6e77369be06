"""Runners in pods: programs that have run in another container, reports over the network."""

import contextlib
import time
import urllib.request
from pathlib import Path

import msgspec
import obstore
import pytest

from identity_testing import Cloud
from jobs_testing import records, write_parquet
from modelyard.wire import report as reports
from modelyard.wire import work as works
from modelyard.wire.work import InputWork, OutputWork, RunWork, WorkSpec
from s3_testing import free_ports

from .test_runner import Runner, linear, put


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def ran_elsewhere(runner: Runner, **more: str) -> Path:
    """A job whose program has run in another container; the folder that they share."""
    program = runner.root / "program"
    runner.place = msgspec.structs.replace(
        runner.place, program=str(program), termination=str(runner.root / "termination-log"), **more
    )
    (runner.root / "termination-log").touch()
    work = RunWork(job="job-uid", job_name="default/train", command=("no-such-program",), output=OutputWork(uri="out"))
    Path(runner.place.work).write_bytes(works.encode(WorkSpec(run=work)))
    return program


def test_what_a_program_left_in_another_container_is_committed(runner: Runner) -> None:
    program = ran_elsewhere(runner)
    (program / "output/deep").mkdir(parents=True)
    (program / "output/deep/a.txt").write_text("a")
    (program / "progress.json").write_text('{"metrics": {"loss": 0.25}}')
    for _ in range(2):
        status, out = runner.run()
        assert status == 0, out
        job = runner.report.job
        assert job is not None
        assert (job.done, [(each.name, each.value) for each in job.metrics]) == (True, [("loss", 0.25)])
        assert (runner.root / "termination-log").read_bytes() == (runner.root / "report.json").read_bytes()
        assert (runner.root / "out/deep/a.txt").read_text() == "a"
    assert (program / "output/deep/a.txt").exists()


def test_without_what_it_should_have_left_it_is_tried_again(runner: Runner) -> None:
    program = ran_elsewhere(runner)
    (runner.root / "elsewhere").mkdir()
    program.mkdir()
    for linked in (False, True):
        if linked:
            (program / "output").symlink_to(runner.root / "elsewhere")
        status, out = runner.run()
        failure = runner.report.failure
        assert failure is not None
        assert (status, failure.reason, failure.retry) == (1, "ProgramFailed", True), out


def test_a_scoring_job_reads_and_writes_stores_by_the_identity_of_its_account(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = runner.root / "cloud"
    folder.mkdir()
    with Cloud(folder) as cloud:
        write_parquet(cloud.s3.store("models"), "in/a.parquet", records(0, 1000))
        for role in ("input", "output"):
            (runner.root / "secrets" / role).mkdir(parents=True)
            for name, value in cloud.addresses().items():
                (runner.root / "secrets" / role / name).write_text(value)
        runner.work(
            linear(runner.root / "m.onnx"),
            input=InputWork(uri="s3://models/in"),
            output=OutputWork(uri="s3://models/results/one", keep=("id",)),
        )
        runner.place = msgspec.structs.replace(runner.place, secrets=str(runner.root / "secrets"), account="reader")
        for name, value in cloud.variables("team:reader").items():
            monkeypatch.setenv(name, value)
        status, out = runner.run()
        assert status == 0, out
        assert runner.report.job is not None
        assert runner.report.job.rows == 1000
        keys = {each["path"] for each in obstore.list(cloud.s3.store("models"), "results/one").collect()}
        assert "results/one/_SUCCESS" in keys


def test_how_far_it_is_and_what_it_has_used_may_be_read_over_the_network(runner: Runner) -> None:
    (port,) = free_ports(1)
    termination = runner.root / "termination-log"
    termination.touch()
    runner.place = msgspec.structs.replace(
        runner.place, report_listen=f"127.0.0.1:{port}", termination=str(termination)
    )
    put(runner, 200_000)
    runner.work(linear(runner.root / "m.onnx"), min_shards=50)
    process = runner.start()
    found = set()
    while process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/report", timeout=5) as told:
            if told.status == 200:
                report = reports.decode(told.read())
                assert report.job is not None
                assert report.usage
                found.add(report.job.shards)
        time.sleep(0.05)
    out, _ = process.communicate()
    assert process.returncode == 0, out
    assert max(found) >= 1
    last = reports.decode(termination.read_bytes())
    assert last.usage
    assert min(last.usage.cpu_seconds, last.usage.memory_byte_seconds) > 0

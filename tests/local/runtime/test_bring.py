"""What is fetched before the process that uses it: from a real S3 server, the web and folders."""

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import obstore
import pytest

from models_testing import write_onnx
from modelyard.base.conditions import Reason
from modelyard.runtime.fetch import bring
from modelyard.runtime.prepare.inspect import run
from modelyard.storage import digest as digests
from modelyard.storage.cache import Cache
from modelyard.storage.errors import StoreRefused, StoreUnavailable
from modelyard.wire import report as reports
from modelyard.wire import work as works
from modelyard.wire.place import Place
from modelyard.wire.work import (
    InputWork,
    ModelWork,
    OutputWork,
    PrepareWork,
    RunWork,
    ScoreWork,
    ServeWork,
    SinkWork,
    SourceWork,
    StreamWork,
    WorkSpec,
)
from s3_testing import S3


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with S3(tmp_path_factory.mktemp("weed")) as found:
        yield found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    for name in ("scratch", "fetched"):
        (tmp_path / name).mkdir()
    return Place(
        work=str(tmp_path / "work.json"),
        report=str(tmp_path / "report.json"),
        cache=str(tmp_path / "cache"),
        scratch=str(tmp_path / "scratch"),
        fetched=str(tmp_path / "fetched"),
        secrets=str(tmp_path / "secrets"),
        termination=str(tmp_path / "termination-log"),
    )


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A folder, `web`, over HTTP."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    folder = tmp_path / "web"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def keys(place: Place, found: dict[str, str]) -> Path:
    folder = Path(place.secrets) / "model"
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in found.items():
        (folder / name).write_text(value)
    return folder


def model(uri: str, digest: str, name: str = "m") -> ModelWork:
    return ModelWork(name=name, digest=digest, format="onnx", uri=uri)


def serving(*models: ModelWork) -> WorkSpec:
    return WorkSpec(serve=ServeWork(models=models))


def test_models_are_fetched_for_whoever_uses_them_each_digest_once() -> None:
    one, two = (model(f"s3://models/{each}", f"sha256:{each * 64}", each) for each in "12")
    here = ModelWork(name="here", digest="sha256:" + "3" * 64, format="onnx")
    score = ScoreWork(job="u", model=one, input=InputWork(uri="in"), output=OutputWork(uri="out"))
    source, sink = SourceWork(uri="nats://x", stream="s", subjects=("a",)), SinkWork(uri="nats://x")
    stream = StreamWork(name="n", revision="r", model=two, source=source, sink=sink)
    assert bring.models(serving(one, two, here, one)) == (one, two)
    assert bring.models(WorkSpec(score=score)) == (one,)
    assert bring.models(WorkSpec(stream=stream)) == (two,)
    for other in (
        WorkSpec(prepare=PrepareWork(uri="s3://models/1")),
        WorkSpec(run=RunWork(job="u", job_name="n", command=("x",))),
        WorkSpec(clean=works.CleanWork(stream=stream)),
    ):
        assert bring.models(other) == ()


async def test_models_lie_in_the_cache_afterwards_and_nothing_else_is_left(
    s3: S3, place: Place, tmp_path: Path
) -> None:
    first = write_onnx(tmp_path / "first.onnx")
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    write_onnx(folder / "m.onnx")
    (folder / "deep/names.txt").write_text("x")
    for source, key in (
        (first, "first.onnx"),
        (folder / "m.onnx", "f/m.onnx"),
        (folder / "deep/names.txt", "f/deep/names.txt"),
    ):
        obstore.put(s3.store("models"), key, source.read_bytes())
    work = serving(
        model("s3://models/first.onnx", digests.digest(first), "a"), model("s3://models/f", digests.digest(folder), "b")
    )
    secret = keys(place, s3.credentials())
    await bring.all_of(work, place)
    cache = Cache(Path(place.cache))
    for path in (first, folder):
        assert digests.digest(cache.path(digests.digest(path))) == digests.digest(path)
    assert os.listdir(place.scratch) == os.listdir(secret) == []


async def test_what_the_cache_holds_is_not_fetched_again(place: Place, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    digest = Cache(Path(place.cache)).put(path)
    await bring.all_of(serving(model("https://127.0.0.1:1/nobody", digest)), place)
    damaged = Cache(Path(place.cache)).path(digest)
    damaged.chmod(0o644)
    damaged.write_bytes(b"x")
    path.write_bytes(path.read_bytes())
    await bring.all_of(serving(model(f"file://{path}", digest)), place)
    assert digests.digest(Cache(Path(place.cache)).path(digest)) == digest
    assert path.exists()


async def test_another_content_is_refused_and_says_what_to_do(web: str, place: Place, tmp_path: Path) -> None:
    before = digests.digest(write_onnx(tmp_path / "m.onnx"))
    (tmp_path / "web/m.onnx").write_bytes(b"another")
    with pytest.raises(StoreRefused) as caught:
        await bring.all_of(serving(model(f"{web}/m.onnx?signature=s3cret", before, "iris.shop")), place)
    assert caught.value.reason == Reason.ARTIFACT_CHANGED
    told = caught.value.message
    assert told.startswith(f"{web}/m.onnx is sha256:")
    for part in ("the model iris.shop was made of", before, "`modelyard refresh NAME`"):
        assert part in told
    assert "s3cret" not in told
    assert "cache" not in os.listdir(tmp_path)


async def test_an_artifact_is_laid_out_for_prepare_which_needs_no_keys(s3: S3, place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write_onnx(folder / "m.onnx")
    content = (folder / "m.onnx").read_bytes()
    for key in ("one.onnx", "two/m.onnx", "three/three"):
        obstore.put(s3.store("models"), key, content)
    for uri, digest in (
        ("s3://models/one.onnx", digests.digest(folder / "m.onnx")),
        ("s3://models/two", digests.digest(folder)),
        ("s3://models/one.onnx", digests.digest(folder / "m.onnx")),
    ):
        secret = keys(place, s3.credentials())
        work = PrepareWork(uri=uri, digest=digest)
        await bring.all_of(WorkSpec(prepare=work), place)
        assert list(secret.iterdir()) == []
        keys(place, {"unknown": "never read"})
        report = await run(work, place)
        assert report.prepare is not None, report
        assert [each.name for each in secret.iterdir()] == ["unknown"]
        (secret / "unknown").unlink()
    keys(place, s3.credentials())
    await bring.all_of(WorkSpec(prepare=PrepareWork(uri="s3://models/three")), place)
    assert bring.artifact(place) == Path(place.fetched) / "folder"


async def test_what_was_not_fetched_to_its_end_is_not_prepared(web: str, place: Place) -> None:
    (Path(place.fetched) / ".unfinished").mkdir()
    (Path(place.fetched) / ".unfinished/m.onnx").touch()
    with pytest.raises(StoreUnavailable, match="nothing was fetched"):
        bring.artifact(place)
    with pytest.raises(StoreRefused, match="there is nothing at"):
        await bring.all_of(WorkSpec(prepare=PrepareWork(uri=f"{web}/nothing")), place)
    report = await run(PrepareWork(uri=f"{web}/nothing"), place)
    assert report.failure is not None
    assert report.failure.retry


async def test_a_file_that_lies_here_is_prepared_where_it_lies(place: Place, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    work = PrepareWork(uri=str(path))
    await bring.all_of(WorkSpec(prepare=work), place)
    assert os.listdir(place.fetched) == []
    assert (await run(work, place)).prepare is not None


async def test_the_folder_of_a_program_is_made_empty(place: Place, tmp_path: Path) -> None:
    there = Place(work="", report="", cache="", scratch="", program=str(tmp_path / "program"))
    work = WorkSpec(run=RunWork(job="u", job_name="n", command=("x",)))
    (tmp_path / "program/output/old").mkdir(parents=True)
    (tmp_path / "program/progress.json").write_text("{}")
    await bring.all_of(work, there)
    assert [each.name for each in (tmp_path / "program").rglob("*")] == ["output"]
    assert (tmp_path / "program/output").stat().st_mode & 0o777 == 0o777


def fetched(work: WorkSpec, place: Place) -> tuple[int, reports.Report | None, str]:
    """The program itself -> its exit status, its report, its log."""
    Path(place.work).write_bytes(works.encode(work))
    Path(place.termination).write_bytes(b"")
    environment = {**os.environ, **place.environment()}
    command = [sys.executable, "-m", "modelyard.runtime.fetch"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    told = Path(place.termination).read_bytes()
    if told:
        assert told == Path(place.report).read_bytes()
    return ended.returncode, reports.decode(told) if told else None, ended.stderr


def test_the_program_tells_by_its_exit_whether_another_try_may_help(web: str, place: Place, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "web/m.onnx")
    digest = digests.digest(path)
    statuses = []
    for uri in ("http://127.0.0.1:1/m.onnx", f"{web}/other.onnx", f"{web}/m.onnx?t0ken"):
        status, report, log = fetched(serving(model(uri, digest)), place)
        statuses.append((status, report and report.failure and (report.failure.reason, report.failure.retry)))
        assert "Traceback" not in log
        assert "t0ken" not in log
    assert statuses == [(1, (Reason.STORE_UNREACHABLE, True)), (3, (Reason.ARTIFACT_NOT_FOUND, False)), (0, None)]
    assert f"{digest} was fetched from {web}/m.onnx" in log
    assert not Path(place.report).exists()

"""Artifacts from a real S3 server and from the web, with the keys that a Secret holds."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import obstore
import pytest

from models_testing import write_onnx
from modelyard.base.conditions import Reason
from modelyard.runtime.prepare import fetch as fetching
from modelyard.runtime.prepare.inspect import run
from modelyard.storage import digest as digests
from modelyard.storage.digest import Limits
from modelyard.storage.errors import StoreRefused
from modelyard.wire.report import Report
from modelyard.wire.work import Place, PrepareWork
from s3_testing import S3


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with S3(tmp_path_factory.mktemp("weed")) as found:
        yield found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "scratch").mkdir()
    return Place(
        work="",
        report="",
        cache=str(tmp_path / "cache"),
        scratch=str(tmp_path / "scratch"),
        secrets=str(tmp_path / "secrets"),
    )


def keys(place: Place, found: dict[str, str]) -> Path:
    folder = Path(place.secrets) / "model"
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in found.items():
        (folder / name).write_text(value)
    return folder


def failed(report: Report) -> tuple[str, str, bool]:
    assert report.failure is not None, report
    return report.failure.reason, report.failure.message, report.failure.retry


async def test_an_object_is_fetched_with_keys_that_are_gone_before_the_model_is_loaded(
    s3: S3, place: Place, tmp_path: Path
) -> None:
    model = write_onnx(tmp_path / "m.onnx")
    obstore.put(s3.store("models"), "a/m.onnx", model.read_bytes())
    folder = keys(place, s3.credentials())
    report = await run(PrepareWork(uri="s3://models/a/m.onnx"), place)
    assert report.prepare is not None, report
    assert (report.prepare.digest, report.prepare.format) == (digests.digest(model), "onnx")
    assert list(folder.iterdir()) == []


async def test_a_prefix_is_a_folder(s3: S3, place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    write_onnx(folder / "m.onnx")
    (folder / "deep" / "notes.txt").write_text("x")
    for each in ("m.onnx", "deep/notes.txt"):
        obstore.put(s3.store("models"), f"folder/{each}", (folder / each).read_bytes())
    obstore.put(s3.store("models"), "folder-2/other.onnx", b"not this one")
    keys(place, s3.credentials())
    report = await run(PrepareWork(uri="s3://models/folder/", digest=digests.digest(folder)), place)
    assert report.prepare is not None, report


async def test_what_cannot_be_fetched_says_why(s3: S3, place: Place) -> None:
    keys(place, s3.credentials())
    assert failed(await run(PrepareWork(uri="s3://models/nothing"), place))[:1] == (Reason.ARTIFACT_NOT_FOUND,)
    keys(place, {**s3.credentials(), "AWS_SECRET_ACCESS_KEY": "wrong"})
    reason, message, retry = failed(await run(PrepareWork(uri="s3://models/a"), place))
    assert (reason, retry) == (Reason.ACCESS_DENIED, False)
    assert "wrong" not in message
    keys(place, s3.credentials())
    assert failed(await run(PrepareWork(uri="s3://no-bucket/a"), place))[0] == Reason.BUCKET_NOT_FOUND
    obstore.put(s3.store("models"), "pinned.onnx", b"x")
    keys(place, s3.credentials())
    reason, message, _ = failed(
        await run(PrepareWork(uri="s3://models/pinned.onnx", digest="sha256:" + "0" * 64), place)
    )
    assert reason == Reason.DIGEST_MISMATCH


async def test_too_much_is_refused_before_it_is_read(s3: S3, place: Place) -> None:
    for number in range(3):
        obstore.put(s3.store("models"), f"much/{number}", b"x" * 100)
    for limits in (Limits(files=2), Limits(size_bytes=299)):
        keys(place, s3.credentials())
        with pytest.raises(StoreRefused) as caught:
            await fetching.fetch(PrepareWork(uri="s3://models/much"), place, limits)
        assert caught.value.reason == Reason.ARTIFACT_TOO_LARGE
        assert list((Path(place.scratch) / "fetched").iterdir()) == []


@pytest.mark.parametrize("key", ["a/../b", "a\\b", "..", "a//b"])
def test_names_that_leave_the_folder_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(StoreRefused) as caught:
        fetching._inside(tmp_path, key, "s3://models/x")
    assert caught.value.reason == Reason.ARTIFACT_INVALID


class Web(BaseHTTPRequestHandler):
    body = b""
    asked: list[tuple[str, str | None]] = []  # noqa: RUF012  of the one server of a test

    def do_GET(self) -> None:
        type(self).asked.append((self.path, self.headers.get("Authorization")))
        where = {
            "/moved": "/model.onnx",
            "/away": "http://localhost:1/x",
            "/out": "http://example.org/x",
            "/round": "/round",
        }
        if self.path in where:
            self.send_response(302)
            self.send_header("Location", where[self.path])
            self.end_headers()
            return
        status = {"/model.onnx": 200, "/private": 403, "/broken": 500}.get(self.path, 404)
        self.send_response(status)
        self.send_header("Content-Length", str(len(self.body) if status == 200 else 0))
        self.end_headers()
        if status == 200:
            self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    Web.body = write_onnx(tmp_path / "w.onnx").read_bytes()
    Web.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


async def test_a_file_is_fetched_from_the_web_with_a_token(web: str, place: Place) -> None:
    keys(place, {"token": "t0ken"})
    report = await run(PrepareWork(uri=f"{web}/moved"), place)
    assert report.prepare is not None, report
    assert Web.asked == [("/moved", "Bearer t0ken"), ("/model.onnx", "Bearer t0ken")]


@pytest.mark.parametrize(
    ("path", "reason", "retry"),
    [
        ("/nothing", Reason.ARTIFACT_NOT_FOUND, False),
        ("/private", Reason.ACCESS_DENIED, False),
        ("/broken", Reason.STORE_UNREACHABLE, True),
        ("/out", Reason.UNSUPPORTED, False),
        ("/round", Reason.UNSUPPORTED, False),
        ("/away", Reason.STORE_UNREACHABLE, True),
    ],
)
async def test_what_the_web_answers_is_told(web: str, place: Place, path: str, reason: Reason, retry: bool) -> None:
    told = failed(await run(PrepareWork(uri=f"{web}{path}"), place))
    assert (told[0], told[2]) == (reason, retry), told


async def test_a_body_that_never_ends_is_cut_off(web: str, place: Place) -> None:
    with pytest.raises(StoreRefused) as caught:
        await fetching.fetch(PrepareWork(uri=f"{web}/model.onnx"), place, Limits(size_bytes=10))
    assert caught.value.reason == Reason.ARTIFACT_TOO_LARGE

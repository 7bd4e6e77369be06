"""Artifacts from a real S3 server and from the web, with the keys that a Secret holds."""

import gzip
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import obstore
import pyarrow.fs
import pytest

from models_testing import write_onnx
from modelyard.base.clock import SystemClock
from modelyard.base.conditions import Reason
from modelyard.control.apiserver import certificates
from modelyard.runtime.fetch import download as fetching
from modelyard.runtime.prepare.inspect import run
from modelyard.storage import credentials
from modelyard.storage import digest as digests
from modelyard.storage.digest import Limits
from modelyard.storage.errors import StoreRefused, StoreUnavailable
from modelyard.storage.location import parse
from modelyard.wire import report as reports
from modelyard.wire import work as works
from modelyard.wire.place import Place
from modelyard.wire.report import Report
from modelyard.wire.work import PrepareWork, WorkSpec
from s3_testing import KEY, S3, SECRET


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


async def fetched(uri: str, place: Place, limits: Limits = digests.LIMITS) -> Path:
    """What was downloaded to the folder that prepare uses."""
    target = Path(place.scratch) / "fetched"
    target.mkdir(exist_ok=True)
    return await fetching.download(parse(uri), credentials.take(Path(place.secrets) / "model"), target, limits)


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
    assert message.startswith("s3://models/pinned.onnx is sha256:")


async def test_folders_that_only_the_store_shows_are_not_fetched(s3: S3, place: Place, tmp_path: Path) -> None:
    """As pyarrow, consoles and Hadoop make them: empty objects whose names end with a slash."""
    files = pyarrow.fs.S3FileSystem(
        access_key=KEY,
        secret_key=SECRET,
        endpoint_override=f"127.0.0.1:{s3.port}",
        scheme="http",
        region="us-east-1",
    )
    files.create_dir("models/marked/assets")
    files.create_dir("models/marked/nothing")
    folder = tmp_path / "marked"
    (folder / "assets").mkdir(parents=True)
    write_onnx(folder / "m.onnx")
    (folder / "assets/names.txt").write_text("x")
    (folder / "empty.txt").write_text("")
    for each in ("m.onnx", "assets/names.txt", "empty.txt"):
        obstore.put(s3.store("models"), f"marked/{each}", (folder / each).read_bytes())
    keys(place, s3.credentials())
    found = await fetched("s3://models/marked", place)
    assert digests.digest(found) == digests.digest(folder)


async def test_a_folder_with_one_file_of_its_own_name_is_a_folder(s3: S3, place: Place) -> None:
    obstore.put(s3.store("models"), "twice.onnx/twice.onnx", b"x")
    keys(place, s3.credentials())
    assert (await fetched("s3://models/twice.onnx", place)).is_dir()


def prepare(uri: str, place: Place, own: Path, **variables: str) -> tuple[int, Report]:
    """The program itself -> its exit status and its report."""
    (own / "work.json").write_bytes(works.encode(WorkSpec(prepare=PrepareWork(uri=uri))))
    told = Place(
        work=str(own / "work.json"),
        report=str(own / "report.json"),
        cache=place.cache,
        scratch=place.scratch,
        secrets=place.secrets,
    )
    environment = {**os.environ, **told.environment(), **variables}
    command = [sys.executable, "-m", "modelyard.runtime.prepare"]
    ended = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
    return ended.returncode, reports.decode((own / "report.json").read_bytes())


def test_the_program_ends_well_whatever_threads_the_store_has(s3: S3, place: Place, tmp_path: Path) -> None:
    for _ in range(8):
        keys(place, s3.credentials())
        status, report = prepare("s3://models/nowhere", place, tmp_path)
        assert (status, failed(report)[0]) == (0, Reason.ARTIFACT_NOT_FOUND)


async def test_too_much_is_refused_before_it_is_read(s3: S3, place: Place) -> None:
    for number in range(3):
        obstore.put(s3.store("models"), f"much/{number}", b"x" * 100)
    for limits in (Limits(files=2), Limits(size_bytes=299)):
        keys(place, s3.credentials())
        with pytest.raises(StoreRefused) as caught:
            await fetched("s3://models/much", place, limits)
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
            "/folder": "/folder/",
            "/signed": "/model.onnx?sig=a%2Bb%2F%3D~%7e+",
            "/signed-denied": "/private?sig=t0ken",
        }
        if self.path in where:
            self.send_response(302)
            self.send_header("Location", where[self.path])
            self.end_headers()
            return
        found = {
            "/model.onnx": 200,
            "/folder/": 200,
            "/": 200,
            "/x/..": 200,
            "/packed": 200,
            "/private": 403,
            "/broken": 500,
        }
        status = found.get(self.path.partition("?")[0], 404)
        body = self.body if status == 200 else b""
        packed = self.path == "/packed" or "gzip" in self.headers.get("Accept-Encoding", "")
        self.send_response(status)
        if packed:
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    Web.body = write_onnx(tmp_path / "w.onnx").read_bytes()
    Web.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
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
        ("/signed-denied", Reason.ACCESS_DENIED, False),
        ("/packed", Reason.UNSUPPORTED, False),
    ],
)
async def test_what_the_web_answers_is_told(web: str, place: Place, path: str, reason: Reason, retry: bool) -> None:
    told = failed(await run(PrepareWork(uri=f"{web}{path}"), place))
    assert (told[0], told[2]) == (reason, retry), told
    assert "t0ken" not in told[1]


@pytest.mark.parametrize("path", ["/", "/folder", "/signed", "/x/.."])
async def test_what_is_fetched_is_what_lies_there(web: str, place: Place, path: str) -> None:
    found = await fetched(f"{web}{path}", place)
    assert found.read_bytes() == Web.body
    assert found.parent == Path(place.scratch) / "fetched"


async def test_signed_addresses_are_asked_for_as_they_are_spelled(web: str, place: Place) -> None:
    await fetched(f"{web}/signed", place)
    assert Web.asked[-1][0] == "/model.onnx?sig=a%2Bb%2F%3D~%7e+"


async def test_a_token_that_no_header_can_hold_is_refused(web: str, place: Place) -> None:
    keys(place, {"token": "t0\nken"})
    told = failed(await run(PrepareWork(uri=f"{web}/model.onnx"), place))
    assert (told[0], told[2], Web.asked) == (Reason.INVALID, False, [])
    assert "ken" not in told[1].replace("token", "")


async def test_a_file_that_finds_no_space_is_tried_again(web: str, place: Place) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(StoreUnavailable) as caught:
            await fetched(f"{web}/model.onnx", place)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.reason == Reason.DISK_FULL


async def test_a_file_that_drips_is_given_up(web: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_IDLE_SECONDS", -1.0)
    monkeypatch.setattr(fetching, "_SLOWEST_BYTES_PER_SECOND", 2**40)
    told = failed(await run(PrepareWork(uri=f"{web}/model.onnx"), place))
    assert (told[0], told[2]) == (Reason.STORE_UNREACHABLE, True)


async def test_https_is_read_from_hosts_whose_certificates_are_trusted(place: Place, tmp_path: Path) -> None:
    Web.body = write_onnx(tmp_path / "w.onnx").read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    folder = tmp_path / "certificates"
    folder.mkdir()
    context = certificates.server_context(folder, (), SystemClock())
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        uri = f"https://127.0.0.1:{server.server_port}/model.onnx"
        reason, message, retry = failed(await run(PrepareWork(uri=uri), place))
        assert (reason, retry) == (Reason.STORE_UNREACHABLE, True)
        assert "certificate" in message
        authority = str(folder / certificates.CA_CERTIFICATE)
        status, report = prepare(uri, place, tmp_path, SSL_CERT_FILE=authority)
        assert (status, report.prepare is not None) == (0, True), report
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_a_body_that_never_ends_is_cut_off(web: str, place: Place) -> None:
    with pytest.raises(StoreRefused) as caught:
        await fetched(f"{web}/model.onnx", place, Limits(size_bytes=10))
    assert caught.value.reason == Reason.ARTIFACT_TOO_LARGE

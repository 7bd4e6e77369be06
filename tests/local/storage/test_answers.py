"""What stores answer and people put into Secrets, in sentences: a server that answers as it is told, and folders."""

import asyncio
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from modelyard.base.conditions import Reason
from modelyard.storage import credentials, stores
from modelyard.storage.errors import StoreRefused, StoreUnavailable
from modelyard.storage.stores import Store

KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "t0psecret"}
Answer = tuple[int, str] | None
"""Status and body; None: no answer while the test runs."""


class Told(ThreadingHTTPServer):
    """asked: methods and paths; headers: of the last request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.decide: Callable[[str], Answer] = lambda _method: (200, "")
        self.asked: list[str] = []
        self.headers: Mapping[str, str] = {}
        self.ended = threading.Event()

    @property
    def keys(self) -> dict[str, str]:
        return {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.server_port}"}

    def store(self) -> Store:
        return Store.open("s3://data/x", credentials=self.keys)


class _Request(BaseHTTPRequestHandler):
    server: Told
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(f"{self.command} {self.path}")
        self.server.headers = dict(self.headers)
        answer = self.server.decide(self.command)
        if answer is None:
            self.server.ended.wait()
            self.close_connection = True
            return
        body = b"" if self.command == "HEAD" else answer[1].encode()
        self.send_response(answer[0])
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"e"')
        self.send_header("Last-Modified", "Sat, 28 Nov 2026 08:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_DELETE = _answer  # noqa: N815  of the base class

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    impatient = {**stores._RETRY, "retry_timeout": timedelta(seconds=0.5)}
    monkeypatch.setattr(stores, "_RETRY", impatient)
    found = Told()
    thread = threading.Thread(target=found.serve_forever, args=(0.02,))
    thread.start()
    yield found
    found.ended.set()
    found.shutdown()
    found.server_close()
    thread.join()


def error(code: str, message: str = "because") -> str:
    return (
        f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>4711</RequestId>"
        f"<HostId>{'h' * 300}</HostId></Error>"
    )


@pytest.mark.parametrize("key", ["_run/1/commits/00017-403-2-ab", "401/x", "part-1507", "NoSuchBucket"])
async def test_numbers_in_the_names_of_objects_say_nothing(server: Told, key: str) -> None:
    server.decide = lambda _: (503, error("SlowDown", "Reduce your request rate."))
    with pytest.raises(StoreUnavailable) as caught:
        await server.store().put(key, b"")
    assert caught.value.reason == Reason.STORE_UNREACHABLE
    assert caught.value.message.endswith("status 503 SlowDown: Reduce your request rate.")


@pytest.mark.parametrize(
    ("status", "code", "reason", "said"),
    [
        (301, "PermanentRedirect", Reason.ACCESS_DENIED, "AWS_REGION"),
        (400, "AuthorizationHeaderMalformed", Reason.ACCESS_DENIED, "AWS_REGION"),
        (400, "ExpiredToken", Reason.ACCESS_DENIED, "ExpiredToken"),
        (403, "RequestTimeTooSkewed", Reason.ACCESS_DENIED, "RequestTimeTooSkewed"),
        (401, "", Reason.ACCESS_DENIED, "right keys"),
        (404, "NoSuchBucket", Reason.BUCKET_NOT_FOUND, "the bucket does not exist"),
        (501, "NotImplemented", Reason.UNSUPPORTED, "NotImplemented"),
    ],
)
async def test_what_somebody_must_change_is_not_tried_again(
    server: Told, status: int, code: str, reason: Reason, said: str
) -> None:
    server.decide = lambda _: (status, error(code))
    for work in (server.store().create("a", b""), server.store().list()):
        with pytest.raises(StoreRefused, match=said) as caught:
            await work
        assert caught.value.reason == reason
        assert "4711" not in caught.value.message
        assert "hhh" not in caught.value.message


async def test_a_store_without_space_is_tried_again(server: Told) -> None:
    server.decide = lambda _: (507, "")
    with pytest.raises(StoreUnavailable) as caught:
        await server.store().put("a", b"")
    assert caught.value.reason == Reason.DISK_FULL


async def test_a_creation_that_met_another_write_is_repeated_until_one_has_succeeded(server: Told) -> None:
    conflicts = [(409, error("ConditionalRequestConflict"))] * 2
    server.decide = lambda method: (404, "") if method == "HEAD" else conflicts.pop() if conflicts else (200, "")
    assert await server.store().create("a", b"x")
    assert [each.partition(" ")[0] for each in server.asked] == ["PUT", "HEAD", "PUT", "HEAD", "PUT"]
    server.decide = lambda method: (200, "") if method == "HEAD" else (409, error("ConditionalRequestConflict"))
    assert not await server.store().create("a", b"x"), "somebody else's is there"


async def test_a_store_that_never_answers_is_told_in_the_time_of_a_small_request(
    server: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "_CLASSES", ((2**20, 1), (2**63, 1000)))
    server.decide = lambda _: None
    store = server.store()
    entry = stores.Entry("a", 100, '"e"', 0.0)
    for work in (store.get("a"), store.list(), asyncio.to_thread(store.open_file(entry).read, 10)):
        with pytest.raises(StoreUnavailable) as caught:
            await asyncio.wait_for(work, 30)
        assert caught.value.reason == Reason.STORE_UNREACHABLE


async def test_large_bodies_have_more_time(server: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "_CLASSES", ((1000, 1), (2**63, 60)))

    def late(method: str) -> Answer:
        threading.Event().wait(2 if method == "PUT" else 0)
        return (200, "y" * 2000)

    server.decide = late
    assert await server.store().create("a", bytes(1001))
    with pytest.raises(StoreUnavailable):
        await server.store().create("a", bytes(1000))
    assert await server.store().get("a") == b"y" * 2000


def listing(*keys: tuple[str, int]) -> str:
    contents = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-11-28T08:00:00.000Z</LastModified><ETag>e</ETag>"
        f"<Size>{size}</Size></Contents>"
        for key, size in keys
    )
    return f"<ListBucketResult><Name>data</Name><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"


async def test_objects_that_only_mark_folders_are_no_files(server: Told) -> None:
    found = listing(("x/", 0), ("x/a/", 0), ("x/a/b/", 0), ("x/a/b/c", 1), ("x/empty", 0), ("x/full", 1))
    server.decide = lambda _: (200, found)
    assert [each.key for each in await server.store().list()] == ["a/b/c", "empty", "full"]


@pytest.mark.parametrize("key", ["x/a//b", "x/../b", "x/a&#10;b"])
async def test_names_that_cannot_be_used_are_told(server: Told, key: str) -> None:
    server.decide = lambda _: (200, listing((key, 1)))
    with pytest.raises(StoreRefused, match="rename it") as caught:
        await server.store().list()
    assert "\n" not in caught.value.message
    with pytest.raises(StoreRefused, match="rename it") as caught:
        await server.store().put("a//b\n", b"")
    assert "\n" not in caught.value.message


BAD_KEYS: list[tuple[str, str, dict[str, str]]] = [
    ("s3", "lacks AWS_ACCESS_KEY_ID", {"AWS_SECRET_ACCESS_KEY": "t0psecret"}),
    ("s3", "lacks AWS_SECRET_ACCESS_KEY", {"AWS_ACCESS_KEY_ID": "t0psecret"}),
    ("s3", "AWS_ACCESS_KEY_ID in", {**KEYS, "AWS_ACCESS_KEY_ID": "t0psecret\r"}),
    ("s3", "AWS_SECRET_ACCESS_KEY in", {**KEYS, "AWS_SECRET_ACCESS_KEY": "t0p\nsecret"}),
    ("s3", "no endpoint", {**KEYS, "AWS_ENDPOINT_URL": "127.0.0.1:80"}),
    ("s3", "no endpoint", {**KEYS, "AWS_ENDPOINT_URL": "ftp://host"}),
    ("s3", "no endpoint", {**KEYS, "AWS_ENDPOINT_URL": "http://me:t0psecret@host"}),
    ("s3", "no region", {**KEYS, "AWS_REGION": "eu_west/1"}),
    ("gs", "damaged", {"GOOGLE_SERVICE_ACCOUNT_KEY": '"t0psecret"'}),
    ("az", "damaged", {"AZURE_STORAGE_ACCOUNT_NAME": "a", "AZURE_STORAGE_ACCOUNT_KEY": "t0psecret!"}),
    ("az", "damaged", {"AZURE_STORAGE_ACCOUNT_NAME": "a", "AZURE_STORAGE_SAS_TOKEN": "t0psecret"}),
]


@pytest.mark.parametrize(("scheme", "said", "keys"), BAD_KEYS)
def test_keys_that_cannot_be_right_are_refused_and_not_repeated(scheme: str, said: str, keys: dict[str, str]) -> None:
    with pytest.raises(StoreRefused, match=said) as caught:
        Store.open(f"{scheme}://bucket/x", credentials=keys)
    assert caught.value.reason == Reason.INVALID
    assert "t0p" not in caught.value.message
    assert caught.value.__cause__ is None


async def test_keys_of_googles_tools_in_the_home_folder_are_not_used(
    server: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".config/gcloud"
    folder.mkdir(parents=True)
    (folder / "application_default_credentials.json").write_text("not even JSON")
    monkeypatch.setenv("HOME", str(tmp_path))
    server.decide = lambda _: (200, listing())
    endpoint = server.keys["AWS_ENDPOINT_URL"]
    assert await Store.open("gs://bucket/x", credentials={"GOOGLE_ENDPOINT_URL": endpoint}).list() == ()
    assert not {"authorization", "Authorization"} & server.headers.keys()


@pytest.mark.parametrize("scheme", ["gs", "az"])
async def test_the_other_clouds_are_asked_with_the_keys_of_the_secret(server: Told, scheme: str) -> None:
    """No server of theirs is here: this shows only where requests go, and that they are signed."""
    endpoint = server.keys["AWS_ENDPOINT_URL"]
    keys = {
        "gs": {"GOOGLE_ENDPOINT_URL": endpoint},
        "az": {
            "AZURE_STORAGE_ACCOUNT_NAME": "a",
            "AZURE_STORAGE_ACCOUNT_KEY": "c2VjcmV0",
            "AZURE_STORAGE_ENDPOINT": endpoint,
        },
    }[scheme]
    server.decide = lambda _: (403, error("AuthenticationFailed"))
    with pytest.raises(StoreRefused, match="access is denied"):
        await Store.open(f"{scheme}://bucket/x", credentials=keys).list()
    assert server.asked[0].startswith("GET /bucket?")
    assert ("authorization" in {name.lower() for name in server.headers}) == (scheme == "az")


def test_what_a_mounted_secret_holds_beside_its_keys_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "..2026_11_28").mkdir()
    (tmp_path / "..2026_11_28" / "token").write_text("t")
    (tmp_path / "..data").symlink_to("..2026_11_28")
    (tmp_path / "token").symlink_to("..data/token")
    assert credentials.read(tmp_path) == {"token": "t"}


def test_keys_that_cannot_be_read_are_gone_as_well(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xff")
    (tmp_path / "b").write_bytes(b"x" * 70_000)
    with pytest.raises(StoreRefused, match="key a of the Secret is not text"):
        credentials.take(tmp_path)
    assert list(tmp_path.iterdir()) == []


@contextmanager
def nobody() -> Iterator[Path]:
    """A folder in which this process may not write, whoever it is; `closed` in it may not even be read."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:  # that of pytest is closed to everybody else
        folder = Path(name)
        (folder / "closed").mkdir(mode=0)
        folder.chmod(0o555)
        if root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o755)
            (folder / "closed").chmod(0o755)


async def test_a_folder_that_may_not_be_used_is_no_store_that_is_away() -> None:
    with nobody() as folder:
        works: list[Any] = [
            Store.open(str(folder)).create("a", b""),
            Store.open(str(folder / "new")).put("a", b""),
            Store.open(str(folder / "closed/deep")).list(),
            Store.open(str(folder / "closed/deep")).settled(),
        ]
        for work in works:
            with pytest.raises(StoreRefused, match="change the permissions") as caught:
                await work
            assert caught.value.reason == Reason.ACCESS_DENIED


async def test_a_file_is_no_folder_to_write_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for uri in ("file", "file/below"):
        store = Store.open(uri, root=str(tmp_path))
        with pytest.raises(StoreRefused, match="a file where a folder is expected"):
            await store.create("a", b"")
        assert await store.list() == ()
        await store.delete(["a"])

"""Folders, a real S3 server and the twin of simulations do the same; only `create` decides races.

Other stores are tested when MODELYARD_TEST_STORES names a file: JSON, an empty prefix of a store -> keys of its Secret.
"""

import asyncio
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.base.conditions import Reason
from modelyard.storage import credentials
from modelyard.storage.errors import StoreRefused, StoreUnavailable
from modelyard.storage.stores import Entry, Store
from s3_testing import S3, LossyProxy
from stores_testing import MemoryTwin


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with S3(tmp_path_factory.mktemp("weed")) as found:
        yield found


def _others() -> dict[str, dict[str, str]]:
    path = os.environ.get("MODELYARD_TEST_STORES")
    return json.loads(Path(path).read_text()) if path else {}


OTHERS = _others()


@pytest.fixture(params=["file", "s3", "twin", *OTHERS])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param in OTHERS:
        return Store.open(f"{request.param}/{uuid.uuid4()}", credentials=OTHERS[request.param])
    if request.param == "twin":
        return MemoryTwin()
    if request.param == "file":
        return Store.open("there", root=str(tmp_path))
    server = request.getfixturevalue("s3")
    return Store.open(f"s3://data/{tmp_path.name}", credentials=server.credentials())


async def test_what_was_put_is_there_whole(store: Any) -> None:
    assert await store.list() == ()
    assert await store.get("a/b.txt") is None
    assert await store.head("a/b.txt") is None
    await store.put("a/b.txt", b"one")
    await store.put("a/b.txt", b"three")
    await store.put("c", b"")
    assert await store.get("a/b.txt") == b"three"
    found = await store.list()
    assert [(each.key, each.size_bytes) for each in found] == [("a/b.txt", 5), ("c", 0)]
    assert [each.key for each in await store.list("a")] == ["a/b.txt"]
    assert (await store.head("a/b.txt")).etag == found[0].etag
    await store.delete(["a/b.txt", "never"])
    assert [each.key for each in await store.list()] == ["c"]


async def test_of_many_who_create_one_has_created(store: Any) -> None:
    for round_ in range(3):
        won = await asyncio.gather(*(store.create(f"x{round_}", b"%d" % n) for n in range(16)))
        assert won.count(True) == 1
        assert await store.get(f"x{round_}") == b"%d" % won.index(True)
    assert {each.key for each in await store.list()} == {"x0", "x1", "x2"}, "nothing else is left"


async def test_who_looks_while_something_is_replaced_finds_the_old_or_the_new_and_nothing_beside(store: Any) -> None:
    await store.replace("deep/a.txt", b"0" * 100_000)
    contents: set[bytes] = set()
    keys: set[str] = set()

    async def look() -> None:
        contents.add(await store.get("deep/a.txt"))
        keys.update(each.key for each in await store.list() if not each.key.startswith("_run/"))

    for number in range(1, 6):
        await asyncio.gather(store.replace("deep/a.txt", b"%d" % number * 100_000), look())
    assert contents <= {b"%d" % number * 100_000 for number in range(6)}
    assert keys == {"deep/a.txt"}
    assert await store.get("deep/a.txt") == b"5" * 100_000


async def test_another_content_is_another_version(store: Any) -> None:
    await store.put("a", b"1")
    first = await store.head("a")
    await store.put("a", b"2")
    assert (await store.head("a")).etag != first.etag


async def test_many_objects_are_listed_over_pages(s3: S3, tmp_path: Path) -> None:
    for store in (
        Store.open("many", root=str(tmp_path)),
        Store.open("s3://data/many", credentials=s3.credentials()),
    ):
        count = 1200
        for start in range(0, count, 100):
            await asyncio.gather(*(store.put(f"k/{n:05d}", b"x") for n in range(start, start + 100)))
        assert [each.key for each in await store.list("k")] == [f"k/{n:05d}" for n in range(count)]


async def test_a_file_is_one_version_and_is_read_in_any_pieces(s3: S3, tmp_path: Path) -> None:
    data = os.urandom(3 * 2**20 + 17)
    for store in (Store.open("f", root=str(tmp_path)), Store.open("s3://data/f", credentials=s3.credentials())):
        await store.put("big", data)
        entry = (await store.list())[0]
        file: Any = store.open_file(entry)

        def read(file: Any = file) -> None:
            assert file.size() == len(data)
            assert file.read() == data
            file.seek(5)
            assert file.read(10) == data[5:15]
            assert file.read(2**20) == data[15 : 15 + 2**20]
            file.seek(-17, os.SEEK_END)
            assert file.read(100) == data[-17:]
            assert file.read(1) == b""
            buffer = bytearray(4)
            file.seek(2**21)
            assert file.readinto(buffer) == 4
            assert bytes(buffer) == data[2**21 : 2**21 + 4]

        await asyncio.to_thread(read)
        await store.put("big", data[::-1])
        with pytest.raises(StoreRefused, match="changed or went") as caught:
            await asyncio.to_thread(store.open_file(entry).read, 10)
        assert caught.value.reason == Reason.INPUT_CHANGED
        await store.delete(["big"])
        with pytest.raises(StoreRefused, match="changed or went"):
            await asyncio.to_thread(store.open_file(entry).read, 10)


async def test_a_uri_may_name_one_object(s3: S3, tmp_path: Path) -> None:
    for uri, root in (("one", str(tmp_path)), ("s3://data/one", "")):
        keys = s3.credentials() if not root else {}
        store = Store.open(uri, root=root, credentials=keys)
        await store.put("a.csv", b"x")
        await store.put("a.csv.bak", b"y")
        single = await Store.open(f"{uri}/a.csv", root=root, credentials=keys).settled()
        assert [each.key for each in await single.entries()] == ["a.csv"]
        (entry,) = await single.entries()
        assert await asyncio.to_thread(single.open_file(entry).read) == b"x"
        whole = await store.settled()
        assert [each.key for each in await whole.entries()] == ["a.csv", "a.csv.bak"]
    assert await Store.open("s3://data/on", credentials=s3.credentials()).list() == (), "a prefix ends at a slash"


async def test_large_bodies_are_put_at_once(s3: S3) -> None:
    store = Store.open("s3://data/large", credentials=s3.credentials())
    body = bytes(20 * 2**20)
    assert await store.create("a", body)
    assert not await store.create("a", body)
    assert len(await store.get("a") or b"") == len(body)
    with pytest.raises(StoreRefused, match="at most 1000 are read"):
        await store.get("a", limit_bytes=1000)


async def test_who_may_not_is_told_what_to_name(s3: S3) -> None:
    wrong = {**s3.credentials(), "AWS_SECRET_ACCESS_KEY": "wrong"}
    for keys in (wrong, {"AWS_ENDPOINT_URL": s3.endpoint}):
        store = Store.open("s3://data/x", credentials=keys)
        for work in (store.list(), store.create("a", b""), store.get("a"), store.put("a", b"")):
            with pytest.raises(StoreRefused, match="name a Secret with the right keys in credentials") as caught:
                await work
            assert caught.value.reason == Reason.ACCESS_DENIED
            assert "wrong" not in caught.value.message
            assert "\n" not in caught.value.message


async def test_a_missing_bucket_is_told(s3: S3) -> None:
    store = Store.open("s3://no-such-bucket/x", credentials=s3.credentials())
    with pytest.raises(StoreRefused, match=r"s3://no-such-bucket/x: the bucket does not exist") as caught:
        await store.list()
    assert caught.value.reason == Reason.BUCKET_NOT_FOUND


async def test_ambient_keys_of_the_process_are_never_used(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.credentials().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:1")
    store = Store.open("s3://data/x", credentials={"AWS_ENDPOINT_URL": s3.endpoint})
    with pytest.raises(StoreRefused) as caught:
        await store.list()
    assert caught.value.reason == Reason.ACCESS_DENIED
    assert os.environ["AWS_ENDPOINT"] == "http://127.0.0.1:1"


async def test_a_server_that_is_killed_and_comes_back_is_waited_for(tmp_path: Path) -> None:
    with S3(tmp_path) as server:
        store = Store.open("s3://data/x", credentials=server.credentials())
        await store.put("a", b"1")
        server.kill()
        reading = asyncio.ensure_future(store.get("a"))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(server.start)
        assert await reading == b"1"


async def test_a_lost_reply_of_a_creation_is_no_second_one(s3: S3) -> None:
    verdicts = ["drop-reply"]
    proxy = LossyProxy(s3.port, lambda head: verdicts.pop() if verdicts and head.startswith(b"PUT") else "pass")
    store = Store.open("s3://data/lost", credentials=s3.credentials(proxy.port))
    created = await store.create("a", b"mine")
    assert proxy.dropped == 1
    assert not created, "the client's own retry finds what the first request has created"
    assert await store.get("a") == b"mine"
    proxy.close()


_WRITER = """
import asyncio, sys
from modelyard.storage.stores import Store
async def main():
    store = Store.open(sys.argv[1])
    print("on", flush=True)
    for number in range(10**6):
        await store.create(f"part-{sys.argv[2]}-{number}", b"x" * 5_000_000)
asyncio.run(main())
"""


def test_what_a_killed_writer_leaves_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for life in range(6):
        process = subprocess.Popen([sys.executable, "-c", _WRITER, str(folder), str(life)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        deadline = time.monotonic() + 0.15 + 0.03 * life
        while time.monotonic() < deadline:
            sizes = {each.name: each.stat().st_size for each in folder.glob("part-*")}
            assert set(sizes.values()) <= {5_000_000}, sizes
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    parts = list(folder.glob("*"))
    assert {each.name for each in parts if not each.name.startswith("part-")} == {"_run"}
    assert {each.stat().st_size for each in parts if each.is_file()} == {5_000_000}


async def test_a_file_that_cannot_grow_is_a_full_disk(tmp_path: Path) -> None:
    store = Store.open("out", root=str(tmp_path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StoreUnavailable) as caught:
            await store.create("a", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.reason == Reason.DISK_FULL
    assert [each.key for each in await store.list()] == []
    assert os.strerror(errno.EFBIG)


def test_keys_are_files_that_are_gone_when_they_were_taken(tmp_path: Path) -> None:
    (tmp_path / "AWS_REGION").write_text("eu-1\n")
    (tmp_path / "AWS_ACCESS_KEY_ID").write_text("id")
    assert credentials.read(tmp_path) == {"AWS_ACCESS_KEY_ID": "id", "AWS_REGION": "eu-1"}
    assert credentials.take(tmp_path) == {"AWS_ACCESS_KEY_ID": "id", "AWS_REGION": "eu-1"}
    assert list(tmp_path.iterdir()) == []
    assert credentials.take(tmp_path / "nowhere") == {}


def mounted(folder: Path, keys: dict[str, str]) -> Path:
    """As the kubelet lays out the volume of a Secret. Source: Kubernetes, "Atomic writer"."""
    folder.mkdir()
    data = folder / "..2026_11_28_18_00_00.123456789"
    data.mkdir()
    (folder / "..data").symlink_to(data.name)
    for name, value in keys.items():
        (data / name).write_text(value)
        (folder / name).symlink_to(Path("..data", name))
    return folder


@pytest.mark.parametrize("why", [errno.EROFS, errno.EACCES, errno.EPERM, errno.EBUSY])
def test_keys_of_a_mounted_secret_are_taken_and_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: int) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_REGION": "eu-1"}
    folder = mounted(tmp_path / "model", keys)
    assert credentials.read(folder) == keys

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise OSError(why, os.strerror(why), str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    for _ in range(2):
        assert credentials.take(folder) == keys


def test_keys_that_cannot_be_removed_for_another_reason_are_no_secret_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = mounted(tmp_path / "model", {"AWS_REGION": "eu-1"})

    def fail(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EIO, "broken", str(path))

    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(OSError, match="broken"):
        credentials.take(folder)


def test_keys_that_a_store_does_not_know_are_refused_by_name() -> None:
    with pytest.raises(StoreRefused, match=r"PASSWORD, which s3:// does not know; known are AWS_ACCESS_KEY_ID"):
        Store.open("s3://a/b", credentials={"PASSWORD": "x"})
    with pytest.raises(StoreRefused, match="AZURE_STORAGE_ACCOUNT_NAME"):
        Store.open("az://container/x")


def test_entries_are_values() -> None:
    assert Entry("a", 1, "e", 0.0) == Entry("a", 1, "e", 0.0)

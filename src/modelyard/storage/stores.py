"""Object stores and folders behind one small interface, over obstore.

A `Store` is everything below one prefix. The one primitive that all of them share, and on which jobs rest, is `create`:
put-if-absent in a single request.
"""

import asyncio
import contextlib
import os
import stat
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import AzureStore, GCSStore, LocalStore, S3Store

from modelyard.base.conditions import Reason
from modelyard.storage import credentials as keys_of
from modelyard.storage.errors import StoreRefused, StoreUnavailable
from modelyard.storage.faults import is_conflict, is_no_bucket, told
from modelyard.storage.file import StoredFile
from modelyard.storage.identity import Identity
from modelyard.storage.location import OBJECT_STORES, Location, parse

_CLASSES = ((8 * 2**20, 30), (64 * 2**20, 64), (2**63, 256))
"""Up to so many bytes -> timeout of a request in seconds. obstore's own fails 200 MB on a slow line after 30 s."""
_RETRY: Mapping[str, Any] = {
    "max_retries": 10_000,
    "retry_timeout": timedelta(seconds=65),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=8),
        "base": 2,
    },
}
"""A store that is started again within a minute is waited for; one that stays away is told. Time alone decides: with
pauses drawn by lot 40 attempts were over after 29 s."""
_MOST_CONFLICTS = 6
_PART = 16 * 2**20
"""Of an object that is sent in several requests; S3 takes 10,000 of them."""
_KINDS: Mapping[str, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
_AMBIENT = ("AWS_", "GOOGLE_", "AZURE_", "GCLOUD_")
_HOME = "HOME"  # where keys of Google's own tools are
_AMBIENT_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Entry:
    """An object. key: relative to its store; etag: its version; modified: seconds since 1970, of the store's clock."""

    key: str
    size_bytes: int
    etag: str
    modified: float


class Store:
    """Everything below one prefix. Methods raise StoreRefused and StoreUnavailable, which name the place."""

    def __init__(
        self,
        raw: Any,
        prefix: str,
        uri: str,
        *,
        folder: Path | None = None,
        larger: tuple[tuple[int, Any], ...] = (),
        identity: Identity | None = None,
    ) -> None:
        """raw: of obstore, for requests of any size; larger: (most bytes, raw) for larger and larger ones, if given.
        identity: in place of keys, for what messages say.

        single: the one key that the uri names, after `settled`; else "".
        """
        self.uri = uri
        self._raw = raw
        self._larger = larger
        self._identity = identity
        self._prefix = prefix.strip("/")
        self._folder = folder
        self.single = ""

    @classmethod
    def open(
        cls,
        uri: str,
        *,
        root: str = "",
        credentials: Mapping[str, str] | None = None,
        identity: Identity | None = None,
    ) -> "Store":
        """Nothing is asked yet. root: what relative paths are relative to. credentials: keys of a Secret. identity: in
        place of keys, unless there are some."""
        place = parse(uri, root)
        keys = credentials or {}
        options = keys_of.options(place.scheme, keys, identity)
        if place.scheme == "file":
            return cls(None, "", place.uri, folder=Path(place.path))
        if place.scheme not in OBJECT_STORES:
            raise StoreRefused(
                Reason.UNSUPPORTED,
                f"{place.uri}: a web address is no store; use {'://, '.join(OBJECT_STORES)}:// or a path",
            )
        larger = tuple((most, _raw(place, options, seconds)) for most, seconds in _CLASSES)
        used = None if keys_of.signs(place.scheme, keys) else identity
        return cls(larger[0][1], place.path, place.uri, larger=larger, identity=used)

    async def settled(self) -> "Store":
        """Itself; or, if the uri names one object, the store around it, in which `entries` finds only that object."""
        if self._folder is not None:
            with self._told():
                single = self._folder.is_file()
            if not single:
                return self
            found = Store(None, "", self.uri, folder=self._folder.parent)
            found.single = self._folder.name
            return found
        parent, _, name = self._prefix.rpartition("/")
        if not name or await self._head(self._prefix) is None:
            return self
        found = Store(self._raw, parent, self.uri, larger=self._larger, identity=self._identity)
        found.single = name
        return found

    async def entries(self) -> tuple[Entry, ...]:
        """All objects, or the one that the uri names."""
        if not self.single:
            return await self.list()
        found = await self.head(self.single)
        return (found,) if found else ()

    async def list(self, prefix: str = "") -> tuple[Entry, ...]:
        """All objects below a folder of the store, sorted by key. What only marks a folder is none."""
        if self._lacks_folder():
            return ()
        found: list[Entry] = []
        with self._told():
            start = self._full(prefix) if prefix else self._prefix
            async for page in obstore.list(self._opened(), start or None):
                found.extend(self._entry(each) for each in page if each["path"] != start)
        return tuple(sorted(_without_markers(found), key=lambda each: each.key))

    async def head(self, key: str) -> Entry | None:
        """One object; None: not there."""
        if self._lacks_folder():
            return None
        meta = await self._head(self._full(key))
        return None if meta is None else self._entry(meta)

    async def get(self, key: str, *, limit_bytes: int = 64 * 2**20) -> bytes | None:
        """The content; None: not there. Raises StoreRefused (ArtifactTooLarge) above `limit_bytes`."""
        if self._lacks_folder():
            return None
        path = self._full(key)
        with self._told(f"/{key}"):
            try:
                answer = await obstore.get_async(self._for(0), path)
                size = self._checked(key, answer.meta, limit_bytes)
                if self._for(size) is not self._for(0):  # only now it is known how long it may take
                    answer = await obstore.get_async(self._for(size), path)
                    self._checked(key, answer.meta, limit_bytes)
                return bytes(await answer.bytes_async())
            except FileNotFoundError as error:
                if is_no_bucket(error):
                    raise
                return None

    async def create(self, key: str, body: Any, *, staging: str = "_run/tmp") -> bool:
        """Put if absent, in one request; False: it exists already.

        On file:// the content is written below `staging` and synced, then gets its name by a rename that replaces
        nothing: obstore's own way writes `key#1` beside the target, which readers of the folder would find.
        """
        for number in range(_MOST_CONFLICTS):
            with self._told(f"/{key}"):
                try:
                    if self._folder is None:
                        raw = self._for(memoryview(body).nbytes)
                        await obstore.put_async(raw, self._full(key), body, mode="create", use_multipart=False)
                    else:
                        await self._rename_file(key, body, f"{staging}/{uuid.uuid4().hex}", overwrite=False)
                    return True
                except AlreadyExistsError as error:
                    if not is_conflict(error) or await self.head(key) is not None:
                        return False
            await asyncio.sleep(0.1 * 2**number)
        raise StoreUnavailable(
            Reason.STORE_UNREACHABLE, f"{self.uri}/{key}: other writes are in the way; it is tried again"
        )

    async def replace(self, key: str, body: Any, *, staging: str = "_run/tmp") -> None:
        """As `put`, for what readers of a folder look for: they find nothing beside it, as with `create`."""
        if self._folder is None:
            await self.put(key, body)
            return
        with self._told(f"/{key}"):
            await self._rename_file(key, body, f"{staging}/{uuid.uuid4().hex}", overwrite=True)

    async def put(self, key: str, body: Any) -> None:
        """Write or replace."""
        with self._told(f"/{key}"):
            await obstore.put_async(self._for(memoryview(body).nbytes, create=True), self._full(key), body)

    async def send(self, key: str, blocks: Iterator[bytes], size_bytes: int) -> None:
        """Write or replace in several requests. Nothing is there before all blocks are, and none if they end badly."""
        with self._told(f"/{key}"):
            raw = self._for(size_bytes, create=True)
            await obstore.put_async(raw, self._full(key), blocks, chunk_size=_PART, max_concurrency=2)

    async def delete(self, keys: Iterable[str]) -> None:
        """What is not there is fine."""
        for key in () if self._lacks_folder() else keys:
            with self._told(f"/{key}"), contextlib.suppress(FileNotFoundError):
                await obstore.delete_async(self._opened(), self._full(key))

    def open_file(self, entry: Entry) -> StoredFile:
        """The object as a seekable file, for use in a thread. Reading another version of it raises InputChanged."""
        changing = partial(self._told, f"/{entry.key}", changed=True)
        return StoredFile(self._for, self._full(entry.key), entry.size_bytes, entry.etag, changing)

    async def _rename_file(self, key: str, body: Any, draft: str, *, overwrite: bool) -> None:
        raw = self._opened(create=True)
        assert self._folder is not None
        try:
            await obstore.put_async(raw, draft, body, use_multipart=False)
            await asyncio.to_thread(_sync, self._folder / draft)
            await obstore.rename_async(raw, draft, key, overwrite=overwrite)
        except BaseException:
            with contextlib.suppress(Exception):
                await obstore.delete_async(raw, draft)
            raise

    async def _head(self, path: str) -> Any:
        with self._told():
            try:
                return await obstore.head_async(self._opened(), path)
            except FileNotFoundError as error:
                if is_no_bucket(error):
                    raise
                return None

    def _checked(self, key: str, meta: Any, limit_bytes: int) -> int:
        size = int(meta["size"])
        if size > limit_bytes:
            raise StoreRefused(
                Reason.ARTIFACT_TOO_LARGE, f"{self.uri}/{key} has {size} bytes, at most {limit_bytes} are read"
            )
        return size

    def _lacks_folder(self) -> bool:
        if self._folder is None:
            return False
        with self._told():
            try:
                return not stat.S_ISDIR(self._folder.stat().st_mode)
            except (FileNotFoundError, NotADirectoryError):
                return True

    def _opened(self, *, create: bool = False) -> Any:
        if self._folder is None:
            return self._raw
        if self._raw is None or create:
            self._raw = LocalStore(self._folder, mkdir=create)
        return self._raw

    def _for(self, size_bytes: int, *, create: bool = False) -> Any:
        """obstore's store for a request of that size."""
        if self._folder is not None:
            return self._opened(create=create)
        return next((raw for most, raw in self._larger if size_bytes <= most), self._raw)

    def _told(self, more: str = "", *, changed: bool = False) -> AbstractContextManager[None]:
        return told(f"{self.uri}{more}", changed=changed, identity=self._identity)

    def _full(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def _entry(self, meta: Any) -> Entry:
        key = meta["path"].removeprefix(f"{self._prefix}/") if self._prefix else meta["path"]
        etag = meta["e_tag"] or ""
        if etag and self.uri.startswith("az:"):
            etag = f'"{etag.strip(chr(34))}"'  # Azure quotes it everywhere but in lists
        return Entry(key=key, size_bytes=int(meta["size"]), etag=etag, modified=meta["last_modified"].timestamp())


def _without_markers(entries: Sequence[Entry]) -> list[Entry]:
    """Consoles and file systems over S3 keep empty objects where they show folders; obstore drops their last slash."""
    empty = {each.key for each in entries if not each.size_bytes}
    if not empty:
        return list(entries)
    folders: set[str] = set()
    for each in entries:
        parent = each.key.rpartition("/")[0]
        while parent and parent not in folders:
            folders.add(parent)
            parent = parent.rpartition("/")[0]
    markers = empty & folders
    return [each for each in entries if each.key not in markers]


def _raw(place: Location, options: dict[str, Any], seconds: int) -> Any:
    endpoint = str(options.get("endpoint") or options.get("base_url") or "")
    client = {
        "timeout": timedelta(seconds=seconds),
        "connect_timeout": timedelta(seconds=5),
        "allow_http": endpoint.startswith("http://"),
    }
    options = {**options, "client_options": client, "retry_config": _RETRY}
    if place.scheme == "az" and "account_name" not in options:
        raise StoreRefused(
            Reason.ACCESS_DENIED,
            f"{place.uri}: the account is not known; name a Secret with AZURE_STORAGE_ACCOUNT_NAME",
        )
    if place.scheme == "s3":
        hosted = not endpoint and "." not in place.bucket  # no certificate is for names with more dots
        options = {"region": "us-east-1", "virtual_hosted_style_request": hosted, **options}
    try:
        with _without_ambient_keys():
            return _KINDS[place.scheme](place.bucket, **options)
    except (BaseError, ValueError):  # its text may repeat what is secret
        raise StoreRefused(
            Reason.INVALID, f"{place.uri}: the keys in the Secret are damaged; put them into it again, each whole"
        ) from None


@contextmanager
def _without_ambient_keys() -> Iterator[None]:
    """obstore reads variables of the process; whose keys are used is decided by a manifest alone."""
    with _AMBIENT_LOCK:
        hidden = {name: value for name, value in os.environ.items() if name.startswith(_AMBIENT) or name == _HOME}
        for name in hidden:
            del os.environ[name]
        try:
            yield
        finally:
            os.environ.update(hidden)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

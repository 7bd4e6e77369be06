"""Object stores and folders behind one small interface, over obstore.

A `Store` is everything below one prefix. The one primitive that all of them share, and on which jobs rest, is `create`:
put-if-absent in a single request.
"""

import asyncio
import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import AzureStore, GCSStore, LocalStore, S3Store

from modelyard.base.conditions import Reason
from modelyard.storage import credentials as keys_of
from modelyard.storage.errors import StoreRefused
from modelyard.storage.faults import told
from modelyard.storage.file import StoredFile
from modelyard.storage.location import OBJECT_STORES, Location, parse

_SMALL_BYTES = 8 * 2**20
_SMALL_SECONDS = 30
_SLOW_BYTES_PER_SECOND = 2**20
_RETRY: Mapping[str, Any] = {
    "max_retries": 40,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=8),
        "base": 2,
    },
}
"""A store that is started again within a minute is waited for; one that stays away is told."""
_AMBIENT = ("AWS_", "GOOGLE_", "AZURE_", "GCLOUD_")


@dataclass(frozen=True, slots=True)
class Entry:
    """An object. key: relative to its store; etag: its version; modified: seconds since 1970, of the store's clock."""

    key: str
    size_bytes: int
    etag: str
    modified: float


class Store:
    """Everything below one prefix. Methods raise StoreRefused and StoreUnavailable, which name the place."""

    def __init__(self, raw: Any, prefix: str, uri: str, *, folder: Path | None = None, patient: Any = None) -> None:
        self.uri = uri
        self._raw = raw
        self._patient = patient or raw
        self._prefix = prefix.strip("/")
        self._folder = folder
        self._single = ""

    @classmethod
    def open(cls, uri: str, *, root: str = "", credentials: Mapping[str, str] | None = None) -> "Store":
        """Nothing is asked yet. root: what relative paths are relative to. credentials: keys of a Secret."""
        place = parse(uri, root)
        options = keys_of.options(place.scheme, credentials or {})
        if place.scheme == "file":
            return cls(None, "", place.uri, folder=Path(place.path))
        if place.scheme not in OBJECT_STORES:
            raise StoreRefused(
                Reason.UNSUPPORTED,
                f"{place.uri}: a web address is no store; use {'://, '.join(OBJECT_STORES)}:// or a path",
            )
        usual, patient = (_raw(place, options, seconds) for seconds in (_SMALL_SECONDS, _seconds(2**28)))
        return cls(usual, place.path, place.uri, patient=patient)

    async def settled(self) -> "Store":
        """Itself; or, if the uri names one object, the store around it, in which `entries` finds only that object."""
        if self._folder is not None:
            if not self._folder.is_file():
                return self
            found = Store(None, "", self.uri, folder=self._folder.parent)
            found._single = self._folder.name
            return found
        parent, _, name = self._prefix.rpartition("/")
        if not name or await self._head(self._prefix) is None:
            return self
        found = Store(self._raw, parent, self.uri, patient=self._patient)
        found._single = name
        return found

    async def entries(self) -> tuple[Entry, ...]:
        """All objects, or the one that the uri names."""
        if not self._single:
            return await self.list()
        found = await self.head(self._single)
        return (found,) if found else ()

    async def list(self, prefix: str = "") -> tuple[Entry, ...]:
        """All objects below a folder of the store, sorted by key."""
        if self._folder is not None and not self._folder.is_dir():
            return ()
        found: list[Entry] = []
        with told(self.uri):
            start = self._full(prefix) if prefix else self._prefix
            async for page in obstore.list(self._opened(), start or None):
                found.extend(self._entry(each) for each in page)
        return tuple(sorted(found, key=lambda each: each.key))

    async def head(self, key: str) -> Entry | None:
        """One object; None: not there."""
        if self._folder is not None and not self._folder.is_dir():
            return None
        meta = await self._head(self._full(key))
        return None if meta is None else self._entry(meta)

    async def get(self, key: str, *, limit_bytes: int = 64 * 2**20) -> bytes | None:
        """The content; None: not there."""
        if self._folder is not None and not self._folder.is_dir():
            return None
        with told(f"{self.uri}/{key}"):
            try:
                answer = await obstore.get_async(self._for(limit_bytes), self._full(key))
            except FileNotFoundError as error:
                _only_absent(error)
                return None
            size = int(answer.meta["size"])
            if size > limit_bytes:
                raise StoreRefused(
                    Reason.ARTIFACT_TOO_LARGE, f"{self.uri}/{key} has {size} bytes, at most {limit_bytes} are read"
                )
            return bytes(await answer.bytes_async())

    async def create(self, key: str, body: Any, *, staging: str = "_run/tmp") -> bool:
        """Put if absent, in one request; False: it exists already.

        On file:// the content is written below `staging` and synced, then gets its name by a rename that replaces
        nothing: obstore's own way writes `key#1` beside the target, which readers of the folder would find.
        """
        with told(f"{self.uri}/{key}"):
            try:
                if self._folder is None:
                    raw = self._for(memoryview(body).nbytes)
                    await obstore.put_async(raw, self._full(key), body, mode="create", use_multipart=False)
                else:
                    await self._create_file(key, body, f"{staging}/{uuid.uuid4().hex}")
            except AlreadyExistsError:
                return False
        return True

    async def put(self, key: str, body: Any) -> None:
        """Write or replace."""
        with told(f"{self.uri}/{key}"):
            await obstore.put_async(self._for(memoryview(body).nbytes, create=True), self._full(key), body)

    async def delete(self, keys: Iterable[str]) -> None:
        """What is not there is fine."""
        for key in keys:
            with told(f"{self.uri}/{key}"), contextlib.suppress(FileNotFoundError):
                await obstore.delete_async(self._opened(), self._full(key))

    def open_file(self, entry: Entry) -> StoredFile:
        """The object as a seekable file, for use in a thread. Reading another version of it raises InputChanged."""
        return StoredFile(
            self._opened(), self._full(entry.key), entry.size_bytes, entry.etag, f"{self.uri}/{entry.key}"
        )

    async def _create_file(self, key: str, body: Any, draft: str) -> None:
        raw = self._opened(create=True)
        assert self._folder is not None
        try:
            await obstore.put_async(raw, draft, body, use_multipart=False)
            await asyncio.to_thread(_sync, self._folder / draft)
            await obstore.rename_async(raw, draft, key, overwrite=False)
        except BaseException:
            with contextlib.suppress(Exception):
                await obstore.delete_async(raw, draft)
            raise

    async def _head(self, path: str) -> Any:
        with told(f"{self.uri}"):
            try:
                return await obstore.head_async(self._opened(), path)
            except FileNotFoundError as error:
                _only_absent(error)
                return None

    def _opened(self, *, create: bool = False) -> Any:
        if self._folder is None:
            return self._raw
        if self._raw is None or create:
            self._raw = LocalStore(self._folder, mkdir=create)
        return self._raw

    def _for(self, size_bytes: int, *, create: bool = False) -> Any:
        """The request timeout follows the size: obstore's own fails 200 MB on a slow line after 30 s."""
        if self._folder is not None:
            return self._opened(create=create)
        return self._raw if size_bytes <= _SMALL_BYTES else self._patient

    def _full(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def _entry(self, meta: Any) -> Entry:
        key = meta["path"].removeprefix(f"{self._prefix}/") if self._prefix else meta["path"]
        return Entry(
            key=key, size_bytes=int(meta["size"]), etag=meta["e_tag"] or "", modified=meta["last_modified"].timestamp()
        )


def _only_absent(error: FileNotFoundError) -> None:
    """A missing object is no error, a missing bucket is."""
    if "NoSuchBucket" in str(error):
        raise error


def _seconds(size_bytes: int) -> int:
    return max(_SMALL_SECONDS, size_bytes // _SLOW_BYTES_PER_SECOND)


def _raw(place: Location, options: dict[str, Any], seconds: int) -> Any:
    endpoint = str(options.get("endpoint") or options.get("base_url") or "")
    client = {
        "timeout": timedelta(seconds=seconds),
        "connect_timeout": timedelta(seconds=5),
        "allow_http": endpoint.startswith("http://"),
    }
    more: dict[str, Any] = {"client_options": client, "retry_config": _RETRY}
    with _without_ambient_keys(), told(place.uri):
        if place.scheme == "s3":
            options = {"region": "us-east-1", "virtual_hosted_style_request": not endpoint, **options}
            return S3Store(place.bucket, **options, **more)
        if place.scheme == "gs":
            return GCSStore(place.bucket, **options, **more)
        if "account_name" not in options:
            raise StoreRefused(
                Reason.ACCESS_DENIED,
                f"{place.uri}: the account is not known; name a Secret with AZURE_STORAGE_ACCOUNT_NAME",
            )
        return AzureStore(place.bucket, **options, **more)


@contextmanager
def _without_ambient_keys() -> Iterator[None]:
    """obstore reads variables of the process; whose keys are used is decided by a manifest alone."""
    hidden = {name: value for name, value in os.environ.items() if name.startswith(_AMBIENT)}
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

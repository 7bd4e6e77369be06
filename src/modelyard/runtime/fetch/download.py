"""An artifact of an object store or the web, downloaded into a folder. Nothing of it is run."""

import asyncio
import errno
import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from modelyard.base.conditions import Reason
from modelyard.base.quantities import bytes_text
from modelyard.storage import credentials
from modelyard.storage.digest import LIMITS, Limits
from modelyard.storage.errors import StoreRefused, StoreUnavailable, unwritable
from modelyard.storage.identity import Identity
from modelyard.storage.location import Location, parse
from modelyard.storage.stores import Entry, Store

_log = logging.getLogger(__name__)
_BLOCK = 4 * 2**20
_SAY_SECONDS = 2.0
_MOST_REDIRECTS = 5
_IDLE_SECONDS = 60.0
_SLOWEST_BYTES_PER_SECOND = 16 * 2**10
_MOST_NAME_BYTES = 255
_MISSING = frozenset({404, 410})
_DENIED = frozenset({401, 403, 407})


async def download(
    where: Location,
    keys: Mapping[str, str],
    target: Path,
    limits: Limits = LIMITS,
    *,
    identity: Identity | None = None,
) -> Path:
    """The file in `target`, an empty folder; or `target`, of which the artifact is all that lies there.

    identity: for object stores, in place of keys.

    Raises StoreRefused and StoreUnavailable.
    """
    if where.scheme in ("https", "http"):
        return await _from_web(where, keys, target, limits)
    return await _from_store(where.uri, Store.open(where.uri, credentials=keys, identity=identity), target, limits)


async def _from_store(uri: str, around: Store, target: Path, limits: Limits) -> Path:
    store = await around.settled()
    entries = [each for each in await store.entries() if each.size_bytes or await store.head(each.key)]
    if not entries:
        raise StoreRefused(
            Reason.ARTIFACT_NOT_FOUND, f"there is nothing at {uri}; correct the uri, or save the model there"
        )
    _check_size(uri, len(entries), sum(each.size_bytes for each in entries), limits)
    paths = {each.key: _inside(target, each.key, uri) for each in entries}
    progress = _Progress(uri, sum(each.size_bytes for each in entries))
    for each in entries:
        await asyncio.to_thread(_download, store, each, paths[each.key], progress)
    return paths[store.single] if store.single else target


def _download(store: Store, entry: Entry, path: Path, progress: "_Progress") -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with store.open_file(entry) as source, path.open("xb") as sink:
            while block := source.read(_BLOCK):
                sink.write(block)
                progress.add(len(block))
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise StoreRefused(
            Reason.ARTIFACT_INVALID, f"{store.uri} holds {entry.key} as a file and as a folder; remove one of them"
        ) from error
    except StoreRefused as error:
        if error.reason is not Reason.INPUT_CHANGED:
            raise
        message = f"{store.uri}/{entry.key} changed while it was read; it is read again"
        raise StoreUnavailable(Reason.ARTIFACT_UNREADABLE, message) from error
    except OSError as error:
        raise unwritable(path.parent, error) from error


def _inside(target: Path, key: str, uri: str) -> Path:
    """Names of objects are of somebody else."""
    parts = key.split("/")
    unusual = any(part in ("", ".", "..") or len(part.encode()) > _MOST_NAME_BYTES for part in parts)
    if unusual or "\0" in key or "\\" in key or "\n" in key:
        raise StoreRefused(Reason.ARTIFACT_INVALID, f"{uri} holds an object named {key!r}, which no file can be called")
    return target.joinpath(*parts)


def _check_size(uri: str, files: int, size_bytes: int, limits: Limits) -> None:
    if files > limits.files or size_bytes > limits.size_bytes:
        raise StoreRefused(
            Reason.ARTIFACT_TOO_LARGE,
            f"{uri} has {files} files and {bytes_text(size_bytes)}, at most {limits.files} and "
            f"{bytes_text(limits.size_bytes)} are read; point at the model's own file or folder",
        )


async def _from_web(where: Location, keys: Mapping[str, str], target: Path, limits: Limits) -> Path:
    credentials.options(where.scheme, keys)
    path = target / _file_name(where)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=_IDLE_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
            await _get(session, where, keys.get("token", ""), path, limits)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        message = f"{_shown(where)} cannot be read: {_cause(error)}; it is tried again"
        raise StoreUnavailable(Reason.STORE_UNREACHABLE, message) from error
    except ValueError as error:
        raise StoreRefused(Reason.INVALID, f"{_shown(where)} is no address: {error}") from error
    return path


def _file_name(where: Location) -> str:
    name = Path(urlsplit(where.uri).path).name
    return name if name not in ("", ".", "..") and len(name.encode()) <= _MOST_NAME_BYTES else "artifact"


def _shown(where: Location) -> str:
    """Queries of signed addresses are as good as keys."""
    return where.uri.partition("?")[0]


def _cause(error: Exception) -> str:
    """aiohttp's texts may hold the whole address."""
    return re.sub(r"\?[^\s'\")]*", "", str(error)) or type(error).__name__


async def _get(session: aiohttp.ClientSession, where: Location, token: str, path: Path, limits: Limits) -> None:
    """Follow redirects to encrypted places only; the token goes to the first host and to no other."""
    for _ in range(_MOST_REDIRECTS):
        headers = {"Accept-Encoding": "identity", **({"Authorization": f"Bearer {token}"} if token else {})}
        async with session.get(_address(where), headers=headers, allow_redirects=False) as answer:
            location = answer.headers.get("Location")
            if answer.status in (301, 302, 303, 307, 308) and location:
                target = parse(urljoin(where.uri, location))
                if target.scheme not in ("https", where.scheme):
                    raise StoreRefused(
                        Reason.UNSUPPORTED, f"{_shown(where)} redirects to {_shown(target)}, which is not followed"
                    )
                token = token if target.bucket == where.bucket else ""
                where = target
                continue
            _check_status(_shown(where), answer.status)
            await _save(answer, _shown(where), path, limits)
            return
    raise StoreRefused(Reason.UNSUPPORTED, f"{_shown(where)} redirects more than {_MOST_REDIRECTS} times")


def _address(where: Location) -> URL:
    """As it is written, where that can be sent: a signed address is void in another spelling."""
    return URL(where.uri, encoded=re.fullmatch(r"[!-~]+", where.uri) is not None)


def _check_status(uri: str, status: int) -> None:
    if status in _MISSING:
        raise StoreRefused(Reason.ARTIFACT_NOT_FOUND, f"there is nothing at {uri} (status {status}); correct the uri")
    if status in _DENIED:
        raise StoreRefused(
            Reason.ACCESS_DENIED, f"{uri} may not be read (status {status}); name a Secret with a token in credentials"
        )
    if status != 200:
        raise StoreUnavailable(Reason.STORE_UNREACHABLE, f"{uri} answers with status {status}; it is tried again")


async def _save(answer: aiohttp.ClientResponse, uri: str, path: Path, limits: Limits) -> None:
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise StoreRefused(
            Reason.UNSUPPORTED, f"{uri} is sent compressed although it was asked for as it is; put it somewhere else"
        )
    _check_size(uri, 1, answer.content_length or 0, limits)
    size = 0
    started = time.monotonic()
    progress = _Progress(uri, answer.content_length or 0)
    try:
        with path.open("xb") as sink:
            async for block in answer.content.iter_chunked(_BLOCK):
                size += len(block)
                _check_size(uri, 1, size, limits)
                if time.monotonic() - started > _IDLE_SECONDS + size / _SLOWEST_BYTES_PER_SECOND:
                    raise StoreUnavailable(
                        Reason.STORE_UNREACHABLE,
                        f"{uri} is sent too slowly, {bytes_text(size)} so far; it is tried again",
                    )
                await asyncio.to_thread(sink.write, block)
                progress.add(len(block))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise unwritable(path.parent, error) from error
        raise


class _Progress:
    """Says in the log how far a long download is."""

    def __init__(self, uri: str, size_bytes: int) -> None:
        self._uri = uri
        self._total = size_bytes
        self._done = 0
        self._said = time.monotonic()

    def add(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._said >= _SAY_SECONDS:
            self._said = time.monotonic()
            of = f" of {bytes_text(self._total)}" if self._total else ""
            _log.info("%s: %s%s fetched", self._uri, bytes_text(self._done), of)

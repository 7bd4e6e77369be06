"""What a work needs to have here: its models in the cache, or the artifact to prepare in a folder."""

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from modelyard.base.conditions import Reason
from modelyard.base.quantities import bytes_text
from modelyard.runtime.fetch.download import download
from modelyard.runtime.worker import joined
from modelyard.storage import credentials
from modelyard.storage import digest as digests
from modelyard.storage import identity as identities
from modelyard.storage.cache import Cache
from modelyard.storage.errors import StoreRefused, StoreUnavailable, unwritable
from modelyard.storage.location import parse
from modelyard.wire.place import PROGRAM_OUTPUT, PROGRAM_PROGRESS, Place
from modelyard.wire.work import ModelWork, WorkSpec

_log = logging.getLogger(__name__)
_FILE, _FOLDER, _UNFINISHED = "file", "folder", ".unfinished"
"""In Place.fetched: `file/<name>` or `folder`, which appear complete."""


async def all_of(work: WorkSpec, place: Place) -> None:
    """Raises StoreRefused and StoreUnavailable."""
    keys = credentials.take(Path(place.secrets) / "model") if place.secrets else {}
    for model in models(work):
        await _cached(model, place, keys)
    if work.prepare is not None and place.fetched:
        await _laid_out(work.prepare.uri, place, keys)
    if work.run is not None and place.program:
        _emptied(place.program)
    if place.pipes:
        _joined(place.pipes)


def models(work: WorkSpec) -> tuple[ModelWork, ...]:
    """Those that must be fetched, each digest once."""
    found = list(work.serve.models) if work.serve else []
    found += [each.model for each in (work.score, work.stream) if each is not None]
    return tuple({each.digest: each for each in found if each.uri}.values())


def artifact(place: Place) -> Path:
    """The artifact that lies in Place.fetched. Raises StoreUnavailable where there is none."""
    folder = Path(place.fetched)
    if (folder / _FOLDER).is_dir():
        return folder / _FOLDER
    files = list((folder / _FILE).iterdir()) if (folder / _FILE).is_dir() else []
    if len(files) != 1:
        raise StoreUnavailable(
            Reason.ARTIFACT_UNREADABLE, f"nothing was fetched to {folder}: its log says why; it is tried again"
        )
    return files[0]


async def _cached(model: ModelWork, place: Place, keys: Mapping[str, str]) -> None:
    cache = Cache(Path(place.cache))
    if await asyncio.to_thread(cache.holds, model.digest):
        _log.info("%s is here already", model.digest)
        return
    began = time.monotonic()
    target = Path(place.scratch) / "fetched"
    shutil.rmtree(target, ignore_errors=True)
    path = await _read(model.uri, place, keys, target)
    there = await asyncio.to_thread(digests.inventory, path)
    if there.digest != model.digest:
        raise StoreRefused(Reason.ARTIFACT_CHANGED, _changed(model, there.digest))
    await asyncio.to_thread(cache.put, path, there)
    shutil.rmtree(target, ignore_errors=True)
    size, seconds = bytes_text(there.size_bytes), time.monotonic() - began
    _log.info("%s was fetched from %s: %s in %.1f s", model.digest, _shown(model.uri), size, seconds)


def _changed(model: ModelWork, digest: str) -> str:
    return (
        f"{_shown(model.uri)} is {digest} now, and the model {model.name} was made of {model.digest}: `modelyard "
        "refresh NAME` takes the new content and rolls it out, or put the old content back. What runs already goes on"
    )


def _shown(uri: str) -> str:
    """Queries of signed addresses are as good as keys."""
    return uri.partition("?")[0]


async def _read(uri: str, place: Place, keys: Mapping[str, str], target: Path) -> Path:
    """Where it is, or where it was downloaded to: below `target`."""
    where = parse(uri, place.root)
    if where.scheme == "file":
        return Path(where.path)
    _made(target)
    return await download(where, keys, target, identity=identities.of(place.account, os.environ))


def _made(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise unwritable(folder.parent, error) from error


async def _laid_out(uri: str, place: Place, keys: Mapping[str, str]) -> None:
    """An artifact that lies in a file system here is left where it is."""
    folder = Path(place.fetched)
    for name in (_FILE, _FOLDER, _UNFINISHED):
        shutil.rmtree(folder / name, ignore_errors=True)
    if parse(uri, place.root).scheme == "file":
        return
    began = time.monotonic()
    target = folder / _UNFINISHED
    path = await _read(uri, place, keys, target)
    target.rename(folder / (_FOLDER if path == target else _FILE))
    _log.info("%s was fetched in %.1f s", _shown(uri), time.monotonic() - began)


def _emptied(program: str) -> None:
    """For a program that runs next, as whatever user its image says."""
    output = Path(program) / PROGRAM_OUTPUT
    try:
        shutil.rmtree(output, ignore_errors=True)
        (Path(program) / PROGRAM_PROGRESS).unlink(missing_ok=True)
        output.mkdir()
        output.chmod(0o777)
        with suppress(PermissionError):  # a volume belongs to who made it, and is for everybody to write
            output.parent.chmod(0o777)
    except OSError as error:
        raise unwritable(Path(program), error) from error


def _joined(pipes: str) -> None:
    """For a worker that runs next, beside us."""
    try:
        joined.made(Path(pipes))
    except OSError as error:
        raise unwritable(Path(pipes), error) from error

"""The digest of an artifact: `sha256:` over the sorted list of its files, each with the SHA-256 of its content.

It depends on the bytes and, in a folder, on the files' names; not on the artifact's own name, times or permissions.
Anybody can compute it: `sha256sum < FILE | sha256sum` for a file, and in a folder
`find -L . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum`.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from modelyard.base.conditions import Reason
from modelyard.base.quantities import bytes_text
from modelyard.storage.errors import StoreRefused, StoreUnavailable, unreadable

_BLOCK = 1 << 20
_MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Limits:
    """What is too large to be an artifact."""

    files: int = 10_000
    size_bytes: int = 64 * 2**30


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class File:
    """One file: its path relative to the artifact ("" if it is the artifact), size, modification time and hash."""

    path: str
    size_bytes: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Inventory:
    """All files of an artifact, sorted by path."""

    files: tuple[File, ...]

    @property
    def digest(self) -> str:
        lines = "".join(f"{each.sha256}  {f'./{each.path}' if each.path else '-'}\n" for each in self.files)
        return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()

    @property
    def size_bytes(self) -> int:
        return sum(each.size_bytes for each in self.files)


def digest(path: Path, limits: Limits = LIMITS) -> str:
    """The digest of the file or folder at `path`; raises as `inventory`."""
    return inventory(path, limits).digest


def inventory(path: Path, limits: Limits = LIMITS) -> Inventory:
    """Hash every file once.

    Raises StoreRefused (not there, not readable, too large, links that leave the folder) and StoreUnavailable
    when something changed meanwhile.
    """
    return _visit(path, limits, lambda _relative, blocks: _hash(blocks))


def copy(path: Path, target: Path, limits: Limits = LIMITS) -> Inventory:
    """As `inventory`, writing what is hashed to `target`, a path that does not exist yet. Every file is synced.

    The inventory's times are those of the copies. Errors of writing are OSError.
    """

    def write(relative: str, blocks: Iterator[bytes]) -> str:
        goal = target / relative if relative else target
        goal.parent.mkdir(parents=True, exist_ok=True)
        with goal.open("xb") as sink:
            found = _hash(blocks, sink)
            sink.flush()
            os.fchmod(sink.fileno(), 0o444)
            os.fsync(sink.fileno())
        return found

    taken = _visit(path, limits, write)
    return Inventory(tuple(replace(each, mtime_ns=(target / each.path).stat().st_mtime_ns) for each in taken.files))


def listing(path: Path, limits: Limits = LIMITS) -> dict[str, os.stat_result]:
    """Relative path -> stat of every file, sorted; without reading any. Raises as `inventory`."""
    try:
        if not path.is_dir():
            return {"": _regular(path)}
        base = path.resolve()
        found: dict[str, os.stat_result] = {}
        total = 0
        for each in _walk(base, base, 0):
            relative = each.relative_to(base).as_posix()
            _check_name(relative)
            found[relative] = _regular(each)
            total += found[relative].st_size
            if len(found) > limits.files:
                raise _too_large(path, f"more than {limits.files} files")
            if total > limits.size_bytes:
                raise _too_large(path, f"more than {bytes_text(limits.size_bytes)}")
    except OSError as error:
        raise unreadable(Path(error.filename or path), error) from error
    if not found:
        raise StoreRefused(Reason.ARTIFACT_INVALID, f"{path} is an empty folder; a model file was expected in it")
    return dict(sorted(found.items(), key=lambda pair: pair[0].encode()))


def _visit(path: Path, limits: Limits, read: Callable[[str, Iterator[bytes]], str]) -> Inventory:
    before = listing(path, limits)
    if sum(found.st_size for found in before.values()) > limits.size_bytes:
        raise _too_large(path, f"more than {bytes_text(limits.size_bytes)}")
    files = []
    for relative, found in before.items():
        place = path / relative if relative else path
        with _open(place) as source:
            opened = os.fstat(source.fileno())
            sha256 = read(relative, _blocks(place, source))
            if not _same(found, opened) or not _same(opened, os.fstat(source.fileno())):
                raise _changing(place)
        files.append(File(relative, found.st_size, found.st_mtime_ns, sha256))
    after = listing(path, limits)
    if before.keys() != after.keys() or not all(_same(before[name], after[name]) for name in before):
        raise _changing(path)
    return Inventory(tuple(files))


def _open(path: Path) -> IO[bytes]:
    try:
        # Not blocking, in case the path has become a named pipe since it was looked at.
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb", buffering=0)
    except OSError as error:
        raise unreadable(path, error) from error


def _blocks(path: Path, source: IO[bytes]) -> Iterator[bytes]:
    while True:
        try:
            block = source.read(_BLOCK)
        except OSError as error:
            raise unreadable(path, error) from error
        if not block:
            return
        yield block


def _hash(blocks: Iterator[bytes], sink: IO[bytes] | None = None) -> str:
    state = hashlib.sha256()
    for block in blocks:
        state.update(block)
        if sink is not None:
            sink.write(block)
    return state.hexdigest()


def _walk(folder: Path, base: Path, depth: int) -> Iterator[Path]:
    if depth > _MAX_DEPTH:
        raise _too_large(base, f"folders nested deeper than {_MAX_DEPTH}")
    for each in folder.iterdir():
        if each.is_symlink():
            target = each.resolve(strict=True)
            if not target.is_relative_to(base) or target.is_dir():
                raise StoreRefused(
                    Reason.ARTIFACT_INVALID,
                    f"{each} is a link to {target}; an artifact may only link to files inside itself",
                )
        if each.is_dir():
            yield from _walk(each, base, depth + 1)
        else:
            yield each


def _regular(path: Path) -> os.stat_result:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise StoreRefused(Reason.ARTIFACT_INVALID, f"{path} is neither a file nor a folder; a model file was expected")
    return found


def _check_name(relative: str) -> None:
    try:
        relative.encode()
    except UnicodeEncodeError:
        relative = "\n"
    if "\n" in relative or "\\" in relative:
        raise StoreRefused(
            Reason.ARTIFACT_INVALID,
            f"the file name {relative!r} has a line break, a backslash or no valid text; rename it",
        )


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_ino, one.st_size, one.st_mtime_ns) == (other.st_ino, other.st_size, other.st_mtime_ns)


def _changing(path: Path) -> StoreUnavailable:
    return StoreUnavailable(Reason.ARTIFACT_UNREADABLE, f"{path} changed while it was read; it is read again")


def _too_large(path: Path, found: str) -> StoreRefused:
    return StoreRefused(Reason.ARTIFACT_TOO_LARGE, f"{path} has {found}; point at the model's own file or folder")

"""Copies of artifacts under their digests: what replicas load, whatever happens to the originals.

`<root>/sha256-<hex>/` holds the artifact under its original name and `.manifest.json` beside it. An entry appears by
one rename of a complete, synced folder, so a killed process leaves no half entry. Never a hard link: people overwrite
model files in place. Files are read-only; a lookup compares sizes and times, and content where those differ.
"""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from modelyard.base import ids
from modelyard.base.conditions import Reason
from modelyard.base.errors import UserError
from modelyard.storage import digest as digests
from modelyard.storage.errors import StoreRefused, StoreUnavailable, unwritable

_MANIFEST = ".manifest.json"
_TEMPORARY = ".new-"
_SWEEP_AFTER_SECONDS = 60.0


class _Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    files: tuple[digests.File, ...]


class Cache:
    """The entries below one folder, shared by any number of processes."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, digest: str) -> Path:
        """The artifact itself, file or folder; raises StoreRefused (ArtifactChanged) if it is gone or damaged."""
        entry = self._entry(digest)
        artifact = self._verified(entry, digest)
        if artifact is None:
            raise StoreRefused(
                Reason.ARTIFACT_CHANGED,
                f"the stored copy of {digest} in {entry} is gone or damaged; "
                "`modelyard refresh NAME` reads the artifact again",
            )
        return artifact

    def holds(self, digest: str) -> bool:
        """Whether `path` would find it, sound."""
        return self._verified(self._entry(digest), digest) is not None

    def put(self, source: Path, found: digests.Inventory | None = None) -> str:
        """Store a copy of the file or folder and return its digest; an entry that exists and is sound is kept.

        found: what `digest.inventory` said about it just now, to read it once less. Raises as that, and
        StoreUnavailable (DiskFull).
        """
        digest = (found or digests.inventory(source)).digest
        entry = self._entry(digest)
        if self._verified(entry, digest) is None:
            try:
                self._root.mkdir(parents=True, exist_ok=True)
                self._sweep()
                self._store(source.resolve(), entry, digest)
            except OSError as error:
                raise unwritable(self._root, error) from error
        return digest

    def _entry(self, digest: str) -> Path:
        if not ids.is_digest(digest):
            raise UserError(f"{digest!r} is not a digest; expected sha256: and 64 hexadecimal characters")
        return self._root / digest.replace(":", "-")

    def _verified(self, entry: Path, digest: str) -> Path | None:
        try:
            manifest = msgspec.json.decode((entry / _MANIFEST).read_bytes(), type=_Manifest)
            artifact = entry / manifest.name
            found = digests.listing(artifact)
            cheap = {name: (stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}
            if cheap == {each.path: (each.size_bytes, each.mtime_ns) for each in manifest.files}:
                return artifact
            # Times change when a data folder is restored from a backup; only the content decides.
            return artifact if digests.digest(artifact) == digest else None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, StoreRefused):
            return None

    def _store(self, source: Path, entry: Path, digest: str) -> None:
        with self._temporary() as folder:
            name = source.name if source.name not in ("", _MANIFEST) else "artifact"
            taken = digests.copy(source, folder / name)
            if taken.digest != digest:
                raise StoreUnavailable(
                    Reason.ARTIFACT_UNREADABLE,
                    f"{source} changed while it was read; it is read again",
                )
            manifest = folder / _MANIFEST
            manifest.write_bytes(msgspec.json.encode(_Manifest(name=name, files=taken.files)))
            _sync(manifest)
            for parent, _, _ in os.walk(folder):
                _sync(Path(parent))
            if entry.exists():  # damaged: what still uses the old files keeps them open
                os.rename(entry, folder.with_name(f"{folder.name}-damaged"))
            self._publish(folder, entry, digest)

    def _publish(self, folder: Path, entry: Path, digest: str) -> None:
        try:
            os.rename(folder, entry)
        except OSError:
            if self._verified(entry, digest) is None:  # else another process stored the same artifact first
                raise
        _sync(self._root)

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """A folder of this process alone, locked while it is in use, gone afterwards unless it became an entry."""
        folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self._root))
        folder.chmod(0o755)
        lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(folder.with_name(f"{folder.name}-damaged"), ignore_errors=True)
            os.close(lock)

    def _sweep(self) -> None:
        """Remove what killed processes left: their folders are not locked."""
        for folder in self._root.glob(f"{_TEMPORARY}*"):
            try:
                lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # it has just become an entry
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(lock).st_mtime > _SWEEP_AFTER_SECONDS:  # not between mkdir and lock
                    shutil.rmtree(folder, ignore_errors=True)
            except BlockingIOError:
                continue
            finally:
                os.close(lock)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

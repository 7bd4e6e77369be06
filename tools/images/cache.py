"""Layers and archives that were made before, by what they were made from."""

import fcntl
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from tools.images import elf, oci, sbom

KEPT = 2  # of each kind; the rest is removed, oldest use first
IN_USE_SECONDS = 600.0  # nothing that was asked for so lately is removed: somebody may be reading it


@dataclass(frozen=True)
class Made:
    """What a recipe gives: the layer's entries, and what others made of it."""

    entries: Mapping[str, oci.Entry]
    components: Sequence[sbom.Component] = ()


@dataclass(frozen=True)
class Kept:
    """A packed layer, and what it holds: the paths, and what others made."""

    layer: oci.Layer
    paths: frozenset[str]
    components: tuple[sbom.Component, ...]


@dataclass(frozen=True)
class Cache:
    """A folder; whoever uses it holds its lock, so builds take turns."""

    folder: Path
    seconds: int
    compression: int

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Wait for the others, and keep them out."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            for left in self.folder.glob("tmp*"):  # of a build that was killed
                shutil.rmtree(left, ignore_errors=True)
            yield

    def layer(self, kind: str, key: str, make: Callable[[Path], Made]) -> Kept:
        """The layer that `make` gives for `key`; `make` gets an empty folder that lives until the layer is packed.

        Files of this machine that went in from outside that folder are compared as well: a new libssl, a new layer.
        """
        named = hashlib.sha256(f"{key} {self.seconds} {self.compression}".encode()).hexdigest()[:20]
        blob, record = self.folder / f"{kind}-{named}.layer", self.folder / f"{kind}-{named}.json"
        if found := _recorded(blob, record):
            return found
        with tempfile.TemporaryDirectory(dir=self.folder) as work:
            made = make(Path(work))
            packed = oci.pack(made.entries, blob, kind, seconds=self.seconds, compression=self.compression)
            inputs = _outside(made.entries, Path(work))
        content = {
            "digest": packed.digest,
            "diff_id": packed.diff_id,
            "size": packed.size,
            "paths": sorted(made.entries),
            "components": sbom.plain(made.components),
            "inputs": inputs,
        }
        record.write_text(json.dumps(content))
        self.prune(kind, ".layer")
        return Kept(packed, frozenset(made.entries), tuple(made.components))

    def prune(self, kind: str, suffix: str) -> None:
        """Remove what was not used for longest, and not lately."""
        lately = time.time() - IN_USE_SECONDS
        paths = [path for path in self.folder.iterdir() if path.name.rpartition("-")[0] == kind]
        ours = sorted((path for path in paths if path.suffix == suffix), key=lambda path: path.stat().st_mtime)
        for path in ours[:-KEPT]:
            if path.stat().st_mtime < lately:
                path.unlink()
                path.with_suffix(".json").unlink(missing_ok=True)


def recipe(*modules: ModuleType) -> str:
    """Changes when the code of these modules does."""
    return " ".join(elf.digest(Path(str(module.__file__))) for module in modules)


def copy(source: Path, target: Path) -> None:
    """Put a file elsewhere, replacing what is there only when all is written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    shutil.copyfile(source, partial)
    partial.replace(target)


def _recorded(blob: Path, record: Path) -> Kept | None:
    if not (blob.is_file() and record.is_file()):
        return None
    content = json.loads(record.read_text())
    if any(not Path(path).is_file() or elf.digest(Path(path)) != was for path, was in content["inputs"].items()):
        return None
    blob.touch()
    components = tuple(sbom.Component(**each) for each in content["components"])
    kind = blob.name.rpartition("-")[0]
    packed = oci.Layer(blob, content["digest"], content["diff_id"], content["size"], kind)
    return Kept(packed, frozenset(content["paths"]), components)


def _outside(entries: Mapping[str, oci.Entry], work: Path) -> dict[str, str]:
    files = [entry.content for entry in entries.values() if isinstance(entry, oci.File)]
    outside = [path for path in files if isinstance(path, Path) and not path.is_relative_to(work)]
    return {str(path): elf.digest(path) for path in outside}

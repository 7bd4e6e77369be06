"""Writes container images as archives (an OCI layout in a tar), byte for byte the same from the same content.

Source: OCI image spec 1.1 (layout, index, manifest, config, layer). `manifest.json` is what `docker load` reads.

A layer is made of entries: path in the image -> what is there. Nothing of the machine gets in: owners, times, order and
modes are set here. As a command:

    python -m tools.images.oci OUT.tar NAME:TAG FOLDER|LAYER.tar... [--entrypoint JSON] [--env A=B] [--user UID:GID]
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import stat
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

BLOCK = 1 << 20
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_TYPE = "application/vnd.oci.image"


@dataclass(frozen=True)
class File:
    """A regular file: its bytes, or where they are on this machine."""

    content: bytes | Path
    mode: int = 0o644


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class Folder:
    """A folder; those that lead to an entry need not be named."""

    mode: int = 0o755


Entry = File | Link | Folder
Tree = Mapping[str, Entry]  # "usr/local/bin/python3" -> entry; no leading slash


@dataclass(frozen=True)
class Layer:
    """A packed layer. `digest` names the blob as stored, `diff_id` its tar; they differ when it is compressed."""

    path: Path
    digest: str
    diff_id: str
    size: int
    created_by: str = ""

    @property
    def compressed(self) -> bool:
        """Whether the blob is gzip."""
        return self.digest != self.diff_id


@dataclass(frozen=True)
class Config:
    """What runs, as whom, and what describes the image."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ("PATH=/usr/local/bin:/usr/bin:/bin",)
    user: str = "65532:65532"
    folder: str = "/"
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[int, ...] = ()
    created: int = 0  # seconds since 1970


@dataclass(frozen=True)
class Image:
    """What was written. `digest` names the manifest, `id` the config (the same for every compression)."""

    archive: Path
    name: str
    digest: str
    id: str
    size: int


def tree(folder: Path) -> dict[str, Entry]:
    """The entries of a folder on this machine; a file is executable or not, other modes are not kept."""
    found: dict[str, Entry] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = Link(str(path.readlink()))
        elif path.is_dir():
            found[name] = Folder(0o1777 if path.stat().st_mode & stat.S_ISVTX else 0o755)
        elif path.is_file():
            found[name] = File(path, 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
        else:
            raise ValueError(f"{path}: neither file, folder nor link; an image cannot hold it")
    return found


def pack(entries: Tree, into: Path, created_by: str = "", *, seconds: int = 0, compression: int = 0) -> Layer:
    """Write a layer: sorted, owned by root, every time equal to `seconds`; gzip for a compression of 1 to 9.

    Raises ValueError for a path that is absolute, leads out or goes through something that is not a folder.
    """
    into.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into.parent) as work:
        plain = Path(work) / "layer.tar"
        with tarfile.open(plain, "w", format=tarfile.PAX_FORMAT) as archive:
            for name, entry in sorted(_complete(entries).items(), key=lambda item: item[0].split("/")):
                _add(archive, name, entry, seconds)
        diff_id, result = _digest(plain), plain
        if compression:
            result = Path(work) / "layer.tar.gz"
            with (
                plain.open("rb") as source,
                result.open("wb") as target,
                gzip.GzipFile("", "wb", compression, target, mtime=0) as packed,
            ):
                shutil.copyfileobj(source, packed, BLOCK)
        layer = Layer(into, _digest(result) if compression else diff_id, diff_id, result.stat().st_size, created_by)
        result.replace(into)
    return layer


def layer(path: Path, created_by: str = "") -> Layer:
    """A layer that exists as a file: a tar, or one compressed with gzip."""
    digest = _digest(path)
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    if not compressed:
        return Layer(path, digest, digest, path.stat().st_size, created_by)
    with gzip.open(path) as unpacked:
        return Layer(path, digest, _hash(unpacked), path.stat().st_size, created_by)


def write(archive: Path, name: str, layers: Sequence[Layer], config: Config) -> Image:
    """Write the image `name` (with its tag) as an OCI archive; replaces `archive` only when all is written."""
    _, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        raise ValueError(f"{name}: an image's name needs a tag, as in localhost/example:1")
    described, settings = _described(layers), _json(_settings(layers, config))
    identity = _blob(settings)
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_TYPE}.manifest.v1+json",
            "config": {"mediaType": f"{_TYPE}.config.v1+json", "digest": identity, "size": len(settings)},
            "layers": described,
        }
    )
    digest = _blob(manifest)
    index = {
        "schemaVersion": 2,
        "mediaType": f"{_TYPE}.index.v1+json",
        "manifests": [
            {
                "mediaType": f"{_TYPE}.manifest.v1+json",
                "digest": digest,
                "size": len(manifest),
                "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag},
                "platform": {"architecture": architecture(), "os": "linux"},
            }
        ],
    }
    docker = [{"Config": _place(identity), "RepoTags": [name], "Layers": [_place(item.digest) for item in layers]}]
    texts = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": _json(index),
        "manifest.json": _json(docker),
        _place(digest): manifest,
        _place(identity): settings,
    }
    blobs: dict[str, Entry] = {place: File(content) for place, content in texts.items()}
    blobs |= {_place(item.digest): File(item.path) for item in layers}
    pack(blobs, archive, seconds=config.created)
    return Image(archive, name, digest, identity, archive.stat().st_size)


def architecture() -> str:
    """This machine's architecture, as images name it."""
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)


def unpack(archive: Path, folder: Path) -> dict[str, Any]:
    """Lay an image's files out in a folder, to look at or to run from; returns its config.

    Reads what `write` writes: an archive with one image, and no whiteouts in its layers.
    """
    with tarfile.open(archive) as whole:
        index = _read(whole, "index.json")
        manifest = _read(whole, _place(index["manifests"][0]["digest"]))
        for described in manifest["layers"]:
            blob = whole.extractfile(_place(described["digest"]))
            with tarfile.open(fileobj=blob) as files:
                files.extractall(folder, filter="fully_trusted")
        config: dict[str, Any] = _read(whole, _place(manifest["config"]["digest"]))
    return config


def _read(archive: tarfile.TarFile, place: str) -> Any:
    file = archive.extractfile(place)
    if file is None:
        raise ValueError(f"{place} is not a file")
    return json.load(file)


def _complete(entries: Tree) -> dict[str, Entry]:
    """With every folder that leads to an entry; refuses paths that are no plain relative ones."""
    whole: dict[str, Entry] = {}
    for name in entries:
        parts = name.split("/")
        if not name or any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"{name!r}: a path in an image is relative and plain, as in usr/bin/tool")
        for end in range(1, len(parts)):
            parent = "/".join(parts[:end])
            if not isinstance(entries.get(parent, Folder()), Folder):
                raise ValueError(f"{name}: {parent} is not a folder")
            whole.setdefault(parent, Folder())
    return whole | dict(entries)


def _add(archive: tarfile.TarFile, name: str, entry: Entry, seconds: int) -> None:
    info = tarfile.TarInfo(name)
    info.mtime = seconds
    match entry:
        case Folder(mode):
            info.type, info.mode = tarfile.DIRTYPE, mode
            archive.addfile(info)
        case Link(target):
            info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, target
            archive.addfile(info)
        case File(bytes() as content, mode):
            info.size, info.mode = len(content), mode
            archive.addfile(info, io.BytesIO(content))
        case File(Path() as path, mode):
            with path.open("rb") as file:
                info.size, info.mode = os.fstat(file.fileno()).st_size, mode
                archive.addfile(info, file)


def _described(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    kinds = {False: f"{_TYPE}.layer.v1.tar", True: f"{_TYPE}.layer.v1.tar+gzip"}
    return [{"mediaType": kinds[item.compressed], "digest": item.digest, "size": item.size} for item in layers]


def _settings(layers: Sequence[Layer], config: Config) -> dict[str, Any]:
    created = datetime.fromtimestamp(config.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    run: dict[str, Any] = {"User": config.user, "Env": list(config.env), "WorkingDir": config.folder}
    optional: dict[str, Any] = {
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.command),
        "Labels": dict(sorted(config.labels.items())),
        "ExposedPorts": {f"{port}/tcp": {} for port in config.ports},
    }
    return {
        "created": created,
        "architecture": architecture(),
        "os": "linux",
        "config": run | {key: value for key, value in optional.items() if value},
        "rootfs": {"type": "layers", "diff_ids": [item.diff_id for item in layers]},
        "history": [{"created": created, "created_by": item.created_by} for item in layers],
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _blob(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _place(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return _hash(file)


def _hash(file: IO[bytes] | gzip.GzipFile) -> str:
    found = hashlib.sha256()
    for block in _blocks(file):
        found.update(block)
    return f"sha256:{found.hexdigest()}"


def _blocks(file: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block


def main() -> int:
    """The command; prints the archive, its size in bytes and the image's digest."""
    parser = argparse.ArgumentParser(prog="python -m tools.images.oci")
    parser.add_argument("archive", type=Path)
    parser.add_argument("name")
    parser.add_argument("layers", nargs="+", type=Path)
    parser.add_argument("--entrypoint", type=json.loads, default=[])
    parser.add_argument("--env", action="append", default=["PATH=/usr/local/bin:/usr/bin:/bin"])
    parser.add_argument("--user", default="65532:65532")
    given = parser.parse_args()
    config = Config(entrypoint=tuple(given.entrypoint), env=tuple(given.env), user=given.user)
    with tempfile.TemporaryDirectory(dir=given.archive.parent) as work:
        layers = [
            pack(tree(path), Path(work) / f"{number}.tar", str(path.name)) if path.is_dir() else layer(path, path.name)
            for number, path in enumerate(given.layers)
        ]
        image = write(given.archive, given.name, layers, config)
    print(image.archive, image.size, image.digest)
    return 0


if __name__ == "__main__":
    sys.exit(main())

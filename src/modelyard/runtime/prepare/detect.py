"""The format of a file, from its bytes. Nothing in them is run or trusted.

Sources: onnx.proto3 (ModelProto), the skops file layout (a zip with `schema.json`), PEP 307 and 3154 (pickle opcodes),
joblib.numpy_pickle.
"""

import bz2
import io
import json
import lzma
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from modelyard.base.conditions import Reason
from modelyard.runtime.backends.load import SUFFIXES
from modelyard.runtime.backends.port import LoadFailed
from modelyard.wire.work import BUILTIN_FORMATS

_BLOCK = 1 << 20
_MAX_SCHEMA_BYTES = 256 * 2**20
_PICKLE = 0x80
_PROTOCOLS = range(2, 6)
_STOP = b"."
_JOBLIB = b"joblib.numpy_pickle"

_VARINT, _LENGTH = 0, 2
_ONNX_FIELDS = {
    **dict.fromkeys((1, 5), _VARINT),
    **dict.fromkeys((2, 3, 4, 6, 7, 8, 14, 20, 25, 26), _LENGTH),
}
_IR_VERSION, _GRAPH, _OPSET_IMPORT = 1, 7, 8
_MAX_OPSET_BYTES = 1024
_NEWEST_IR_VERSION = 64

_COMPRESSED: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"\x1f\x8b", lambda head: zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, 2)),
    (b"BZh", lambda head: bz2.BZ2Decompressor().decompress(head, 2)),
    (b"\xfd7zXZ\0", lambda head: lzma.LZMADecompressor().decompress(head, 2)),
    (b"\x5d\0\0", lambda head: lzma.LZMADecompressor().decompress(head, 2)),
    (b"x", lambda head: zlib.decompressobj().decompress(head, 2)),
)


@dataclass(frozen=True, slots=True)
class Detected:
    """version: what the file records about its format: the default opset of ONNX, else ""."""

    format: str
    version: str = ""


def detect(path: Path) -> Detected:
    """The built-in format of a file.

    Raises LoadFailed: ArtifactInvalid for a known format that is cut off or damaged, FormatUnknown for anything else;
    OSError as it comes.
    """
    with path.open("rb") as file:
        head = file.read(64)
        file.seek(0)
        if not head:
            raise _invalid(path, "is empty")
        if head.startswith(b"PK\x03\x04"):
            return _zip(path, file)
        if head[0] == _PICKLE and head[1:2] and head[1] in _PROTOCOLS:
            return _pickle(path, file)
        if head[0] == _IR_VERSION << 3 | _VARINT and (found := _onnx(path, file)):
            return found
        for magic, start in _COMPRESSED:
            if head.startswith(magic) and _is_compressed_pickle(file, start):
                return Detected("joblib")
    raise LoadFailed(
        Reason.FORMAT_UNKNOWN,
        f"the format of {path.name} is not recognized; known are {', '.join(sorted(BUILTIN_FORMATS))}. "
        "For another one write a Runtime that lists it, and name it in `format`",
    )


def candidate(folder: Path, declared: str) -> Path:
    """The file in a folder by which its format is told; raises LoadFailed."""
    endings = SUFFIXES.get(declared) or tuple(ending for each in SUFFIXES.values() for ending in each)
    found = sorted(each for each in folder.iterdir() if each.suffix in endings)
    if len(found) == 1:
        return found[0]
    if not found:
        raise LoadFailed(
            Reason.ARTIFACT_UNREADABLE,
            f"the folder {folder} holds no model: no file is named *{', *'.join(endings)}",
        )
    names = ", ".join(each.name for each in found[:5])
    raise LoadFailed(
        Reason.ARTIFACT_INVALID, f"the folder {folder} holds {len(found)} models: {names}; name one file in `uri`"
    )


def _zip(path: Path, file: IO[bytes]) -> Detected:
    try:
        with zipfile.ZipFile(file) as archive:
            if "schema.json" not in archive.namelist():
                raise LoadFailed(
                    Reason.FORMAT_UNKNOWN,
                    f"{path.name} is a zip file without schema.json, so not a skops file; known formats are "
                    f"{', '.join(sorted(BUILTIN_FORMATS))}",
                )
            if archive.getinfo("schema.json").file_size > _MAX_SCHEMA_BYTES:
                raise _invalid(path, "has a schema.json of more than 256 MiB")
            schema = json.loads(archive.read("schema.json"))
    except (zipfile.BadZipFile, EOFError, zlib.error, ValueError, NotImplementedError, RecursionError) as error:
        raise _invalid(path, f"is a zip file that is cut off or damaged ({error})") from error
    if not isinstance(schema, dict) or not {"__loader__", "protocol"} <= schema.keys():
        raise _invalid(path, "has a schema.json that skops did not write")
    return Detected("skops")


def _pickle(path: Path, file: IO[bytes]) -> Detected:
    file.seek(-1, io.SEEK_END)
    if file.read() != _STOP:
        raise _invalid(path, "is a pickle that is cut off: its last byte is not STOP")
    file.seek(0)
    rest = b""
    while block := file.read(_BLOCK):
        if _JOBLIB in rest + block:
            return Detected("joblib")
        rest = block[-len(_JOBLIB) :]
    return Detected("pickle")


def _is_compressed_pickle(file: IO[bytes], start: Callable[[bytes], bytes]) -> bool:
    file.seek(0)
    try:
        first = start(file.read(_BLOCK))
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return False
    return len(first) == 2 and first[0] == _PICKLE and first[1] in _PROTOCOLS


def _onnx(path: Path, file: IO[bytes]) -> Detected | None:
    """Walk over the fields of the message without reading the large ones."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    seen: set[int] = set()
    version = ""
    while file.tell() < size:
        key = _varint(file)
        field = (key or 0) >> 3
        if key is not None and _ONNX_FIELDS.get(field) != key & 7:
            return None
        value = _varint(file)
        if key is None or value is None or (key & 7 == _LENGTH and file.tell() + value > size):
            if not seen:
                return None
            raise _invalid(path, "is an ONNX model that is cut off")
        if field == _IR_VERSION and not 0 < value <= _NEWEST_IR_VERSION:
            return None
        seen.add(field)
        if key & 7 == _LENGTH:
            after = file.tell() + value
            if field == _OPSET_IMPORT and value <= _MAX_OPSET_BYTES:
                version = _default_opset(file.read(value)) or version
            file.seek(after)
    if _GRAPH not in seen:
        return None if len(seen) < 2 else _no_graph(path)
    return Detected("onnx", version)


def _no_graph(path: Path) -> Detected:
    raise _invalid(path, "is an ONNX model without a graph, perhaps cut off")


def _default_opset(message: bytes) -> str:
    """The version in an OperatorSetIdProto (1: domain, 2: version) whose domain is the default one."""
    file = io.BytesIO(message)
    domain, version = b"", ""
    while (key := _varint(file)) is not None and (value := _varint(file)) is not None:
        if key == 1 << 3 | _LENGTH:
            domain = file.read(value)
        elif key == 2 << 3 | _VARINT:
            version = str(value)
    return version if domain in (b"", b"ai.onnx") else ""


def _varint(file: IO[bytes]) -> int | None:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None


def _invalid(path: Path, what: str) -> LoadFailed:
    return LoadFailed(Reason.ARTIFACT_INVALID, f"{path.name} {what}; save or copy it again")

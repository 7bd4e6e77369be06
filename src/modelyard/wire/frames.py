"""Frames between a server and the worker that runs a model: texts and tensors, little endian, eight-byte aligned.

Every frame has the same shape, so that a worker in any language needs one reader and one writer; the page for their
authors is `spec/worker-protocol.md`. No JSON: base R and C have no parser for it.
"""

import math
import re
import struct
from collections.abc import Sequence
from enum import IntEnum

import msgspec

from modelyard.base.errors import UserError
from modelyard.wire.work import TensorSpec

PROTOCOL = "1"
HEADER_BYTES = 16
MAX_BODY_BYTES = 512 * 2**20
MAX_TEXTS = 16_384
MAX_TENSORS = 4096
MAX_KEY_BYTES = 64
MAX_TEXT_BYTES = 65_536
MAX_NAME_BYTES = 1024
MAX_DIMENSIONS = 8

_HEADER = struct.Struct("<QIB3x")
_COUNTS = struct.Struct("<II")
_TENSOR = struct.Struct("<HBB4xQ")
_LENGTH = struct.Struct("<I")
_SIZE = "(?:-1|[0-9]{1,15})"
_SIZES_TEXT = f"(?:{_SIZE}(?:,{_SIZE}){{0,{MAX_DIMENSIONS - 1}}})?"
_SPEC = re.compile(f"(?P<datatype>[A-Z0-9]+) (?P<sizes>{_SIZES_TEXT}) (?P<name>.+)", re.DOTALL)

DATATYPES = ("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64")
"""Datatypes of fixed size, in the order of their numbers on the wire, which count from 1."""
BYTES_NUMBER = 13
_NUMBERS = {**{name: number for number, name in enumerate(DATATYPES, start=1)}, "BYTES": BYTES_NUMBER}
_NAMES = {number: name for name, number in _NUMBERS.items()}
_SIZES = dict(zip(DATATYPES, (1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8), strict=True))


class Kind(IntEnum):
    """What a frame says."""

    HELLO = 1
    """Server to worker, once: the model to load."""
    READY = 2
    """Worker to server, once: the model is loaded, and this is its signature."""
    INFER = 3
    """Server to worker: score these inputs."""
    RESULT = 4
    """Worker to server: the outputs."""
    ERROR = 5
    """Worker to server, in place of READY or RESULT."""


class FrameError(UserError):
    """A peer broke the protocol; nothing more can be read from it."""


Buffer = bytes | bytearray | memoryview
Texts = tuple[tuple[str, str], ...]
"""Key and text, in order; a key may repeat."""


class Tensor(msgspec.Struct, frozen=True):
    """One array. data: its elements in row-major order; BYTES elements each follow their length as a u32."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Buffer


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """number: of the request; an answer repeats it."""

    kind: Kind
    number: int = 0
    texts: Texts = ()
    tensors: tuple[Tensor, ...] = ()

    def text(self, key: str) -> str:
        """The first text under a key, or "" without one."""
        return next((text for name, text in self.texts if name == key), "")


class Header(msgspec.Struct, frozen=True):
    """The first 16 bytes of a frame; `size` bytes of body follow."""

    kind: Kind
    number: int
    size: int


def encode(frame: Frame) -> list[Buffer]:
    """The pieces of a frame, in order; large tensors are not copied. Raises FrameError above a limit."""
    pieces: list[Buffer] = [_COUNTS.pack(len(frame.texts), len(frame.tensors))]
    for key, text in frame.texts:
        name, value = key.encode(), text.encode()
        pieces += [_COUNTS.pack(len(name), len(value)), _padded(name + value)]
    for tensor in frame.tensors:
        name = tensor.name.encode()
        size = memoryview(tensor.data).nbytes
        pieces.append(_TENSOR.pack(len(name), _NUMBERS[tensor.datatype], len(tensor.shape), size))
        pieces.append(struct.pack(f"<{len(tensor.shape)}q", *tensor.shape))
        pieces += [_padded(name), tensor.data, bytes(-size % 8)]
    size = sum(memoryview(piece).nbytes for piece in pieces)
    if size > MAX_BODY_BYTES or len(frame.texts) > MAX_TEXTS or len(frame.tensors) > MAX_TENSORS:
        raise FrameError(f"a frame of {size} bytes is too large, at most {MAX_BODY_BYTES} are sent: send fewer rows")
    return [_HEADER.pack(size, frame.number, frame.kind), *pieces]


def decode_header(data: Buffer) -> Header:
    """Read HEADER_BYTES bytes; raises FrameError."""
    size, number, kind = _HEADER.unpack(data)
    if any(data[13:HEADER_BYTES]) or kind not in Kind.__members__.values():
        raise FrameError(f"bytes that are no frame: {bytes(data)!r}")
    if size > MAX_BODY_BYTES or size < _COUNTS.size:
        raise FrameError(f"a frame says it has {size} bytes; expected {_COUNTS.size} to {MAX_BODY_BYTES}")
    return Header(Kind(kind), number, size)


def decode(header: Header, body: Buffer) -> Frame:
    """Read a body of `header.size` bytes; tensors are views into it. Raises FrameError on anything but a frame."""
    try:
        reader = _Reader(memoryview(body).toreadonly())
        text_count, tensor_count = _COUNTS.unpack(reader.take(_COUNTS.size))
        if text_count > MAX_TEXTS or tensor_count > MAX_TENSORS:
            raise FrameError(f"a frame with {text_count} texts and {tensor_count} tensors is refused")
        texts = tuple(reader.text() for _ in range(text_count))
        tensors = tuple(reader.tensor() for _ in range(tensor_count))
    except UnicodeDecodeError as error:
        raise FrameError(f"a frame holds text that is not UTF-8: {error}") from error
    if reader.left:
        raise FrameError(f"a frame has {reader.left} bytes after its last tensor")
    return Frame(kind=header.kind, number=header.number, texts=texts, tensors=tensors)


class _Reader:
    """A position in a body."""

    def __init__(self, body: memoryview) -> None:
        self._body = body
        self._position = 0

    @property
    def left(self) -> int:
        return len(self._body) - self._position

    def take(self, count: int) -> memoryview:
        """The next bytes, and past the padding behind them."""
        padded = count + -count % 8
        if padded > self.left:
            raise FrameError(f"a frame ends {padded - self.left} bytes early")
        piece = self._body[self._position : self._position + count]
        self._position += padded
        return piece

    def text(self) -> tuple[str, str]:
        key_size, text_size = _COUNTS.unpack(self.take(_COUNTS.size))
        if key_size > MAX_KEY_BYTES or text_size > MAX_TEXT_BYTES:
            raise FrameError(f"a frame holds a text of {key_size} + {text_size} bytes")
        both = bytes(self.take(key_size + text_size))
        return both[:key_size].decode(), both[key_size:].decode()

    def tensor(self) -> Tensor:
        name_size, number, dimensions, size = _TENSOR.unpack(self.take(_TENSOR.size))
        datatype = _NAMES.get(number)
        if datatype is None or name_size > MAX_NAME_BYTES or dimensions > MAX_DIMENSIONS:
            raise FrameError(f"a tensor with datatype {number}, {dimensions} dimensions and {name_size} bytes of name")
        shape = struct.unpack(f"<{dimensions}q", self.take(8 * dimensions))
        name = bytes(self.take(name_size)).decode()
        data = self.take(size)
        if any(length < 0 for length in shape):
            raise FrameError(f"tensor {name!r} has shape {list(shape)}")
        count = math.prod(shape)
        if datatype == "BYTES":
            split(data, count, name)
        elif size != count * _SIZES[datatype]:
            raise FrameError(
                f"tensor {name!r} has {size} bytes, not {count * _SIZES[datatype]} as {datatype}{list(shape)}"
            )
        return Tensor(name, datatype, shape, data)


def split(data: Buffer, count: int, name: str = "") -> list[bytes]:
    """The elements of a BYTES tensor; raises FrameError unless there are exactly `count`."""
    view = memoryview(data)
    found: list[bytes] = []
    position = 0
    while position < len(view) and len(found) <= count:
        start = position + _LENGTH.size
        if start > len(view):
            break
        position = start + _LENGTH.unpack_from(view, position)[0]
        found.append(bytes(view[start:position]))
    if len(found) != count or position != len(view):
        raise FrameError(f"tensor {name!r} of BYTES does not hold exactly {count} elements")
    return found


def join(elements: Sequence[bytes]) -> bytes:
    """The inverse of `split`."""
    return b"".join(piece for element in elements for piece in (_LENGTH.pack(len(element)), element))


def spec_text(spec: TensorSpec) -> str:
    """One input or output as a text: `FP64 -1,4 X`. The name comes last, for it may hold spaces."""
    return f"{spec.datatype} {','.join(map(str, spec.shape))} {spec.name}"


def parse_spec(text: str) -> TensorSpec:
    """The inverse of `spec_text`; raises FrameError."""
    match = _SPEC.fullmatch(text)
    if match is None or match["datatype"] not in _NUMBERS:
        raise FrameError(f"{text[:200]!r} is no input or output; expected such as `FP64 -1,4 X`")
    sizes = match["sizes"].split(",") if match["sizes"] else ()
    return TensorSpec(name=match["name"], datatype=match["datatype"], shape=tuple(map(int, sizes)))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)

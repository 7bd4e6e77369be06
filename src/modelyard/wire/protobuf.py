"""The wire form of protobuf messages, without descriptors: tags, lengths and varints, both ways.

Source: protobuf.dev, "Encoding". Groups, which proto3 does not have, are refused.
"""

from collections.abc import Iterator, Sequence

from modelyard.base.errors import UserError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
KINDS = {VARINT: "an integer", FIXED64: "8 bytes", BYTES: "a string, message or packed list", FIXED32: "4 bytes"}

MAX_FIELDS = 4096
"""In one message; `strings` may give more."""

Field = tuple[int, int, int | memoryview]
"""Number, wire type and value: an integer for VARINT, else the bytes, which are not copied."""

_WIDTH = {FIXED64: 8, FIXED32: 4}
_MAX_NUMBER = 2**29 - 1


def fields(where: str, data: memoryview, limit: int = MAX_FIELDS) -> Iterator[Field]:
    """The fields of a message as they come. Raises UserError, which calls the message `where`."""
    position, end, count = 0, len(data), 0
    while position < end:
        count += 1
        if count > limit:
            raise UserError(f"{where}: has more than {limit} fields")
        key, position = _varint(where, data, position)
        number, wire = key >> 3, key & 7
        if not 0 < number <= _MAX_NUMBER:
            raise UserError(f"{where}: is not a protobuf message: no field has the number {number}")
        if wire == VARINT:
            value, position = _varint(where, data, position)
            yield number, wire, value
            continue
        if wire == BYTES:
            size, position = _varint(where, data, position)
        elif wire in _WIDTH:
            size = _WIDTH[wire]
        else:
            raise UserError(f"{where}: is not a protobuf message: field {number} has the wire type {wire}")
        start, position = position, position + size
        if position > end:
            raise UserError(f"{where}: is cut off in field {number}")
        yield number, wire, data[start:position]


def strings(where: str, number: int, data: memoryview, limit: int) -> list[bytes]:
    """The elements of a message that has nothing but this repeated field of bytes, quickly.

    Raises UserError where there is anything else, or more than `limit`.
    """
    found: list[bytes] = []
    tag = number << 3 | BYTES
    whole = bytes(data)
    position, end = 0, len(whole)
    while position < end:
        if whole[position] != tag:
            raise UserError(f"{where}: has elements of another kind, or is not a protobuf message")
        size = whole[position + 1] if position + 1 < end else 0x80
        if size < 0x80:
            start = position + 2
        else:
            size, start = _varint(where, data, position + 1)
        position = start + size
        if position > end:
            raise UserError(f"{where}: is cut off in element {len(found)}")
        found.append(whole[start:position])
        if len(found) > limit:
            raise UserError(f"{where}: has more than {limit} elements; send fewer rows")
    return found


def signed(value: int) -> int:
    """An int64 from its varint."""
    return value - 2**64 if value >= 2**63 else value


def integers(where: str, data: memoryview, limit: int) -> list[int]:
    """A packed list of a few varints."""
    found: list[int] = []
    position = 0
    while position < len(data):
        if len(found) == limit:
            raise UserError(f"{where}: has more than {limit} elements")
        value, position = _varint(where, data, position)
        found.append(value)
    return found


def _varint(where: str, data: memoryview, position: int) -> tuple[int, int]:
    """A varint of at most 64 bits, and where it ends."""
    value = shift = 0
    end = len(data)
    while position < end:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position
        shift += 7
        if shift > 63:
            raise UserError(f"{where}: is not a protobuf message: an integer has more than ten bytes")
    raise UserError(f"{where}: is cut off")


def varint(value: int) -> bytes:
    """An integer of up to 64 bits; a negative one takes ten bytes."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def flag(number: int, value: bool) -> bytes:
    """A bool; false is not written."""
    return varint(number << 3 | VARINT) + b"\x01" if value else b""


def chunk(number: int, data: bytes | memoryview) -> bytes:
    """A string, message or packed list as a field, present though it may be empty."""
    return b"".join((varint(number << 3 | BYTES), varint(len(data)), data))


def text(number: int, value: str) -> bytes:
    """A string; an empty one is not written."""
    return chunk(number, value.encode()) if value else b""


def packed(number: int, values: Sequence[int]) -> bytes:
    """A packed list of varints; an empty one is not written."""
    return chunk(number, b"".join(map(varint, values))) if values else b""

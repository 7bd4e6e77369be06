"""Names that Envoy takes for others: XXH64 run backwards."""

import string
from collections.abc import Iterator
from itertools import product

from modelyard.control.gateway.scope_key import xxh64

IRIS_TWIN = "xd1tjld3xuyxvvku"
READY_TWIN = "hmwgll7vdbt1aqar"
"""Their hashes are those of `iris` and of `ready`, each found in a second: of sixteen bytes the first eight were drawn
by lot, the others followed from the hash, and about every millionth time these were such as a name may have."""

_BITS = 2**64 - 1
_P1, _P2, _P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P4, _P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def header_for(public_id: str, element: str) -> str:
    """With what a scope whose key is one id is found by who looks for a key of two parts: a header and an element."""
    pair = _other_half(xxh64(bytes(8) + _packed(xxh64(public_id.encode()))), last=_packed(xxh64(element.encode())))
    wanted = _unpacked(_other_half(_unpacked(pair), first=bytes(8)))
    for first in _drawn():
        last = _other_half(wanted, first=first)
        if all(33 <= each <= 126 for each in last):
            return (first + last).decode()
    raise AssertionError("no header has that hash")


def _drawn() -> Iterator[bytes]:
    return ("".join(each).encode() for each in product(string.ascii_lowercase, repeat=8))


def _other_half(value: int, *, first: bytes = b"", last: bytes = b"") -> bytes:
    """Of sixteen bytes that have this hash, the eight that are not given."""
    start = _P5 + 16
    value ^= value >> 32
    value = _halved(value * pow(_P3, -1, 2**64) & _BITS, 29)
    value = _halved(value * pow(_P2, -1, 2**64) & _BITS, 33)
    value = _turned((value - _P4) * pow(_P1, -1, 2**64) & _BITS, 64 - 27)
    if first:
        return _unmixed(value ^ (_turned(start ^ _mixed(first), 27) * _P1 + _P4) & _BITS)
    value = ((value ^ _mixed(last)) - _P4) * pow(_P1, -1, 2**64) & _BITS
    return _unmixed(_turned(value, 64 - 27) ^ start)


def _mixed(word: bytes) -> int:
    return _turned(_unpacked(word) * _P2 & _BITS, 31) * _P1 & _BITS


def _unmixed(value: int) -> bytes:
    return _packed(_turned(value * pow(_P1, -1, 2**64) & _BITS, 33) * pow(_P2, -1, 2**64) & _BITS)


def _halved(value: int, count: int) -> int:
    """What gives a value when it is mixed with itself, shifted by more than a quarter of its bits."""
    return value ^ value >> count ^ value >> 2 * count


def _turned(value: int, count: int) -> int:
    return (value << count | value >> 64 - count) & _BITS


def _packed(value: int) -> bytes:
    return value.to_bytes(8, "little")


def _unpacked(word: bytes) -> int:
    return int.from_bytes(word, "little")

"""Where Envoy keeps a scope: under the XXH64 of its key, which it takes for the key itself.

XXH64 is no secret and is easily run backwards: whoever may choose a name of sixteen characters can choose one whose
hash is that of somebody else's.
Source: the xxHash specification (xxhash_spec.md 0.2.0), of which this is written anew; Envoy, `router/scopes.h`.
"""

_BITS = 2**64 - 1
_P1, _P2, _P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P4, _P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def hashed(public_id: str) -> int:
    """Equal where Envoy takes keys of one part for equal. Some microseconds.

    It hashes the hash again, which changes nothing about what is equal: XXH64 of eight bytes is one to one.
    """
    return xxh64(public_id.encode())


def xxh64(data: bytes) -> int:
    """With seed 0."""
    left = len(data) % 32
    stripes, tail = data[: len(data) - left], data[len(data) - left :]
    value = _striped(stripes) if stripes else _P5
    value = (value + len(data)) & _BITS
    while len(tail) >= 8:
        value = (_turned(value ^ _round(0, _number(tail[:8])), 27) * _P1 + _P4) & _BITS
        tail = tail[8:]
    if len(tail) >= 4:
        value = (_turned(value ^ (_number(tail[:4]) * _P1 & _BITS), 23) * _P2 + _P3) & _BITS
        tail = tail[4:]
    for each in tail:
        value = _turned(value ^ (each * _P5 & _BITS), 11) * _P1 & _BITS
    value = (value ^ value >> 33) * _P2 & _BITS
    value = (value ^ value >> 29) * _P3 & _BITS
    return value ^ value >> 32


def _striped(stripes: bytes) -> int:
    lanes = [(_P1 + _P2) & _BITS, _P2, 0, -_P1 & _BITS]
    for start in range(0, len(stripes), 8):
        lane = start // 8 % 4
        lanes[lane] = _round(lanes[lane], _number(stripes[start : start + 8]))
    value = sum(_turned(lane, count) for lane, count in zip(lanes, (1, 7, 12, 18), strict=True)) & _BITS
    for lane in lanes:
        value = ((value ^ _round(0, lane)) * _P1 + _P4) & _BITS
    return value


def _round(lane: int, number: int) -> int:
    return _turned((lane + number * _P2) & _BITS, 31) * _P1 & _BITS


def _turned(value: int, count: int) -> int:
    return (value << count | value >> 64 - count) & _BITS


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")

"""Kubernetes quantities (`500m`, `1Gi`, `1e3`) as exact integers.

Source: k8s.io/apimachinery/pkg/api/resource/quantity.go (the serialization format).
"""

import re
from decimal import Decimal

PATTERN = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
    r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
_PARTS = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?\d+))?$")
_SCALE = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10) ** 3,
    "M": Decimal(10) ** 6,
    "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15,
    "E": Decimal(10) ** 18,
    **{f"{prefix}i": Decimal(1024) ** power for power, prefix in enumerate("KMGTPE", start=1)},
}


def parse(text: str | int) -> Decimal:
    """The exact value; raises ValueError with what was expected."""
    match = _PARTS.fullmatch(str(text))
    if match is None or len(str(text)) > 64:
        raise ValueError(f"{text!r} is not a quantity; expected a number with an optional unit, such as 500m, 2 or 1Gi")
    number, unit, exponent = match.groups()
    if exponent is not None and abs(int(exponent)) > 30:
        raise ValueError(f"{text!r} is out of range")
    scale = _SCALE[unit] if unit else Decimal(10) ** int(exponent) if exponent else Decimal(1)
    return Decimal(number) * scale


def millis(text: str | int) -> int:
    """Thousandths, rounded up: CPU `500m` -> 500, `2` -> 2000."""
    return _ceil(parse(text) * 1000)


def whole(text: str | int) -> int:
    """Whole units, rounded up: memory `1Gi` -> 1073741824 bytes."""
    return _ceil(parse(text))


def bytes_text(count: int) -> str:
    """For people: 1536 -> `1.5 KiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _ceil(value: Decimal) -> int:
    floor = int(value)
    return floor + 1 if value > floor else floor

"""Go-like durations (`60s`, `1m30s`, `250ms`) in seconds. Source: Gateway API GEP-2257."""

import re

PATTERN = r"^([0-9]{1,8}(ms|s|m|h)){1,4}$"
_PART = re.compile(r"([0-9]{1,8})(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse(text: str) -> float:
    """Seconds; raises ValueError with what was expected."""
    if re.fullmatch(PATTERN, text) is None:
        raise ValueError(f"{text!r} is not a duration; expected numbers with units ms, s, m or h, such as 30s or 1m30s")
    return sum(int(number) * _SECONDS[unit] for number, unit in _PART.findall(text))


def text(seconds: float) -> str:
    """The shortest exact spelling down to milliseconds: 90.0 -> `1m30s`."""
    rest = round(seconds * 1000)
    parts = []
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def age(seconds: float) -> str:
    """As kubectl shows an age: `45s`, `5m12s`, `3h`, `2d`."""
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole}s"
    if whole < 600:
        return f"{whole // 60}m{whole % 60}s" if whole % 60 else f"{whole // 60}m"
    if whole < 10_800:
        return f"{whole // 60}m"
    if whole < 172_800:
        return f"{whole // 3600}h"
    return f"{whole // 86_400}d"

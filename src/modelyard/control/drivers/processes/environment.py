"""The environment of a process: an allow-listed part of ours, what the unit declares, and its Place."""

from collections.abc import Mapping

from modelyard.wire.place import Place

ALLOWED = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV"}
)
"""Nothing else of the server's environment reaches a process: models are untrusted code."""


def environment(place: Place, declared: Mapping[str, str], ours: Mapping[str, str]) -> dict[str, str]:
    """What a process sees. A declared variable wins over ours, the Place over everything."""
    seen = {name: value for name, value in ours.items() if name in ALLOWED or name.startswith("LC_")}
    seen |= {"PYTHONUNBUFFERED": "1", "TMPDIR": place.scratch}
    return seen | dict(declared) | place.environment()

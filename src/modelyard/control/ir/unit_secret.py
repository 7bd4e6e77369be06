"""What the gateway shows to the replicas of a unit, and to no others: they answer nobody else."""

import hashlib
import hmac
from collections.abc import Callable

UnitSecret = Callable[[str], str]
"""Name of a unit -> its secret, or "" where replicas answer everybody who reaches their socket."""


def unit_secret(key: bytes, unit: str) -> str:
    """64 hexadecimal digits. Whoever learns that of one unit learns nothing of another one's, nor of the key."""
    return hmac.new(key, f"gateway:{unit}".encode(), hashlib.sha256).hexdigest()


def none(_unit: str) -> str:
    """No unit has one."""
    return ""

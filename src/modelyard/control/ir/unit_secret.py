"""What the gateway shows to the replicas of a unit, and to no others: they answer nobody else."""

import hashlib
import hmac
from collections.abc import Callable

UnitSecret = Callable[[str], str]
"""Name of a unit -> its secret, or "" where replicas answer everybody who reaches their socket."""


def unit_secret(key: bytes, unit: str) -> str:
    """64 hexadecimal digits. Whoever learns that of one unit learns nothing of another one's, nor of the key."""
    return hmac.new(key, f"gateway:{unit}".encode(), hashlib.sha256).hexdigest()


def digest(secret: str) -> str:
    """What replicas are told of it: they can tell it when they see it. 64 hexadecimal digits; of "" it is ""."""
    return hashlib.sha256(secret.encode()).hexdigest() if secret else ""


def none(_unit: str) -> str:
    """No unit has one."""
    return ""

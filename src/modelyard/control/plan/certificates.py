"""When certificates between operator and gateway are made anew: decisions only. Times are seconds since 1970.

An authority is changed in steps, so that both sides always trust what the other one shows: the next one is trusted
everywhere for a while before it signs, and the former one for a while after it signed last. Envoy and the kubelet need
minutes to take up a change; the steps are hours apart.
"""

from dataclasses import dataclass
from enum import Enum

DAY = 24 * 3600.0
AUTHORITY_SECONDS = 3650 * DAY
LEAF_SECONDS = 90 * DAY
OVERLAP_SECONDS = DAY
"""Between two steps."""
_RENEWED_AT = 2 / 3
"""Of its life."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Life:
    """Of a certificate. id: of the certificate; issuer: id of the authority that signed it."""

    id: str
    begins: float
    ends: float
    issuer: str = ""
    names: tuple[str, ...] = ()

    def is_due(self, now: float) -> bool:
        """Whether it should be replaced. One that begins later belongs to a clock that was wrong."""
        return now < self.begins or now >= self.begins + _RENEWED_AT * (self.ends - self.begins)


@dataclass(frozen=True, kw_only=True, slots=True)
class Authorities:
    """current signs. next will; former did, until `switched`. None: there is none that can be used."""

    current: Life | None = None
    next: Life | None = None
    former: Life | None = None
    switched: float = 0.0


class Change(Enum):
    """What is to be done about authorities; one at a time."""

    BEGIN = "begin"
    """Make a current one, whatever there was."""
    PREPARE = "prepare"
    """Make a next one."""
    SWITCH = "switch"
    """The next one signs from now on."""
    FORGET = "forget"
    """Trust the former one no more."""


def change(known: Authorities, now: float) -> Change | None:
    """None: nothing. One that has ended signs nothing that anybody believes: then there is no time for steps."""
    current = known.current
    if current is None or not current.begins <= now < current.ends:
        return Change.BEGIN
    if known.next is not None and now >= known.next.begins + OVERLAP_SECONDS:
        return Change.SWITCH
    if known.former is not None and now >= known.switched + OVERLAP_SECONDS:
        return Change.FORGET
    if known.next is None and current.is_due(now):
        return Change.PREPARE
    return None


def must_renew(leaf: Life | None, authority: Life, names: tuple[str, ...], now: float) -> bool:
    """Whether a leaf is to be made anew."""
    return leaf is None or leaf.issuer != authority.id or set(leaf.names) != set(names) or leaf.is_due(now)


def next_look(known: Authorities, leaves: tuple[Life | None, ...], now: float) -> float:
    """Seconds until something may be due, an hour at most: clocks are set, and nobody announces it."""
    moments = [life.begins + _RENEWED_AT * (life.ends - life.begins) for life in (*leaves, known.current) if life]
    if known.next is not None:
        moments.append(known.next.begins + OVERLAP_SECONDS)
    if known.former is not None:
        moments.append(known.switched + OVERLAP_SECONDS)
    return min(3600.0, max(1.0, min(moments, default=now) - now))

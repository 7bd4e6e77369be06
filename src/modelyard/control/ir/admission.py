"""What an Access decides about one caller: the meaning that every gateway gives it."""

from collections.abc import Mapping
from typing import Any

from modelyard.control.ir.access import ANONYMOUS, Access, Caller, Claim

_NO_CLAIMS: Mapping[str, Any] = {}


def admits(access: Access, issuer: str = "", claims: Mapping[str, Any] = _NO_CLAIMS) -> bool:
    """Whether who bears a token of an issuer (its name) with these claims may call.

    issuer "": there is no token, or none that is in order.
    """
    if access.authentication == "none":
        return True
    if not issuer:
        return access.authentication == "optional" and ANONYMOUS in access.callers
    return any(is_meant(each, issuer, claims) for each in access.callers)


def narrows(old: Access, new: Access) -> bool:
    """Whether somebody whom the old one admits may be refused by the new one, if only for calling too often.

    In doubt it does: a caller whom another one of the new callers includes counts as lost.
    """
    if old.authentication != "none" and not _callers(old):
        return False
    if not set(new.limits) <= set(old.limits):
        return True
    if new.authentication == "none":
        return False
    return old.authentication == "none" or _some_lost(_callers(old), _callers(new))


def _callers(access: Access) -> tuple[Caller, ...]:
    if access.authentication == "optional":
        return access.callers
    return tuple(each for each in access.callers if each.issuer)


def _some_lost(old: tuple[Caller, ...], new: tuple[Caller, ...]) -> bool:
    """Whether one of the old ones is none of the new ones. Most are the same objects, and comparing costs much more."""
    same = set(map(id, new))
    others = [each for each in old if id(each) not in same]
    return bool(others) and not set(new).issuperset(others)


def is_meant(caller: Caller, issuer: str, claims: Mapping[str, Any]) -> bool:
    """Whether a caller stands for who bears a token of an issuer with these claims. issuer "": for who bears none."""
    return caller.issuer == issuer and all(_says(claims, each) for each in caller.claims)


def _says(claims: Mapping[str, Any], claim: Claim) -> bool:
    found: Any = claims
    for step in claim.path:
        found = found.get(step) if isinstance(found, Mapping) else None
    if claim.listed and isinstance(found, list | tuple):
        return any(_same(each, claim.value) for each in found)
    return _same(found, claim.value)


def _same(found: object, wanted: str | bool) -> bool:
    """True is not 1."""
    return type(found) is type(wanted) and found == wanted

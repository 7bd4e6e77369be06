"""Environment variables that a unit or task declares, with the values of the Secrets that they name."""

from collections.abc import Callable

from modelyard.base.conditions import Reason
from modelyard.base.errors import RetryLater
from modelyard.control.ir.unit import SecretKey, Variable

Secrets = Callable[[str, SecretKey], str | None]
"""Namespace and key -> the value, None if there is none."""


class CannotStart(RetryLater):
    """A process was not started. reason: a `Reason`."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def values(variables: tuple[Variable, ...], namespace: str, secrets: Secrets) -> dict[str, str]:
    """Name -> value; an absent optional Secret leaves its variable out.

    Raises CannotStart with every missing Secret key, or every impossible variable, at once.
    """
    found, missing = {}, []
    for variable in variables:
        value: str | None = variable.value
        if variable.secret is not None:
            value = secrets(namespace, variable.secret)
            if value is None and not variable.secret.optional:
                missing.append(f"{variable.name} needs key {variable.secret.key} of Secret {variable.secret.secret}")
        if value is not None:
            found[variable.name] = value
    if missing:
        raise CannotStart(
            Reason.SECRET_NOT_FOUND,
            f"env: {'; '.join(missing)}, which does not exist in namespace {namespace}: create it, or correct the name",
        )
    bad = sorted(name for name, value in found.items() if not name or "=" in name or "\0" in name + value)
    if bad:
        names = ", ".join(map(repr, bad))
        raise CannotStart(Reason.INVALID, f"env: {names} cannot be passed on: a NUL byte in it, or '=' in its name")
    return found

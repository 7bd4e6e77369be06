"""The environment of a process: an allow-listed part of ours, what the unit declares, and its Place."""

import os
from collections.abc import Mapping

from modelyard.base.conditions import Reason
from modelyard.base.errors import RetryLater
from modelyard.control.drivers.processes.site import Secrets
from modelyard.control.ir.unit import Variable
from modelyard.wire.work import Place

ALLOWED = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV"}
)
"""Nothing else of the server's environment reaches a process: models are untrusted code."""


class CannotStart(RetryLater):
    """A process was not started. reason: a `Reason`."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def environment(
    place: Place, variables: tuple[Variable, ...], namespace: str, secrets: Secrets, *, ours: Mapping[str, str]
) -> dict[str, str]:
    """What a process sees. A declared variable wins over ours, the Place over everything.

    Raises CannotStart with SecretNotFound and every missing Secret key at once.
    """
    seen = {name: value for name, value in ours.items() if name in ALLOWED or name.startswith("LC_")}
    seen |= {"PYTHONUNBUFFERED": "1", "TMPDIR": place.scratch}
    missing = []
    for variable in variables:
        value: str | None = variable.value
        if variable.secret is not None:
            value = secrets(namespace, variable.secret)
            if value is None and not variable.secret.optional:
                missing.append(f"{variable.name} needs key {variable.secret.key} of Secret {variable.secret.secret}")
        if value is not None:
            seen[variable.name] = value
    if missing:
        raise CannotStart(
            Reason.SECRET_NOT_FOUND,
            f"env: {'; '.join(missing)}, which does not exist in namespace {namespace}: create it, or correct the name",
        )
    clear = {name: value for name, value in seen.items() if "\0" not in value and "=" not in name and name}
    if len(clear) < len(seen):
        names = ", ".join(sorted(repr(name) for name in seen.keys() - clear.keys()))
        raise CannotStart(Reason.INVALID, f"env: {names} cannot be an environment variable: a NUL byte or '=' in it")
    return clear | place.environment()


def of_this_process() -> Mapping[str, str]:
    """The server's own."""
    return os.environ

"""What a unit or task gets of Secrets: values of environment variables, and files."""

import re
from collections.abc import Callable, Mapping

from modelyard.base.conditions import Reason
from modelyard.base.errors import RetryLater
from modelyard.control.ir.unit import Credential, SecretKey, Variable

Secrets = Callable[[str, SecretKey], str | None]
"""Namespace and key -> the value, None if there is none."""

SecretFiles = Callable[[str, str], Mapping[str, bytes] | None]
"""Namespace and name of a Secret -> all its keys with their bytes, None if there is none."""

_FILE_NAME = re.compile(r"[-._a-zA-Z0-9]+")


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


def files(credentials: tuple[Credential, ...], namespace: str, secret_files: SecretFiles) -> dict[str, bytes]:
    """`<role>/<key>` -> bytes, of all keys of the Secrets that credentials name.

    Raises CannotStart with every missing Secret, or every key that cannot be the name of a file, at once.
    """
    found, missing, bad = {}, [], []
    for credential in credentials:
        keys = secret_files(namespace, credential.secret)
        if keys is None:
            missing.append(f"{credential.role} needs Secret {credential.secret}")
            continue
        for key, content in keys.items():
            if _FILE_NAME.fullmatch(key) is None or key in (".", ".."):
                bad.append(f"key {key[:100]!r} of Secret {credential.secret}")
            else:
                found[f"{credential.role}/{key}"] = content
    if missing:
        raise CannotStart(
            Reason.SECRET_NOT_FOUND,
            f"credentials: {'; '.join(missing)}, which does not exist in namespace {namespace}: create it, or correct "
            "the name",
        )
    if bad:
        raise CannotStart(
            Reason.INVALID, f"credentials: {', '.join(bad)}: keys become file names; use letters, digits, '-', '_', '.'"
        )
    return found

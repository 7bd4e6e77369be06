"""Keys of stores: the files of a role's folder, and what a store makes of them.

The keys of a Secret are the names that each cloud's own tools use. Nothing is taken from the environment of the
process, and no metadata service is asked: without keys a store is read as anybody may. In a pod whose ServiceAccount a
manifest names, the cloud identity of that account takes the place of keys (`identity`).
"""

import errno
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from modelyard.base.conditions import Reason
from modelyard.storage.errors import StoreRefused
from modelyard.storage.identity import Identity

_MOST_BYTES = 64 * 2**10
_KNOWN: Mapping[str, Mapping[str, str]] = {
    "s3": {
        "AWS_ACCESS_KEY_ID": "access_key_id",
        "AWS_SECRET_ACCESS_KEY": "secret_access_key",
        "AWS_SESSION_TOKEN": "token",
        "AWS_REGION": "region",
        "AWS_ENDPOINT_URL": "endpoint",
        "AWS_ENDPOINT_URL_STS": "endpoint_url_sts",
    },
    "gs": {"GOOGLE_SERVICE_ACCOUNT_KEY": "service_account_key", "GOOGLE_ENDPOINT_URL": "base_url"},
    "az": {
        "AZURE_STORAGE_ACCOUNT_NAME": "account_name",
        "AZURE_STORAGE_ACCOUNT_KEY": "account_key",
        "AZURE_STORAGE_SAS_TOKEN": "sas_key",
        "AZURE_STORAGE_ENDPOINT": "endpoint",
    },
    "https": {"token": "token"},
    "http": {"token": "token"},
    "file": {},
}
_SIGNING = frozenset({"secret_access_key", "service_account_key", "account_key", "sas_key"})
_TOGETHER = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_UNCHANGEABLE = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.EBUSY})
_TEXT = re.compile(r"[!-~]+")
_REGION = re.compile(r"[A-Za-z0-9-]{1,64}")


def read(folder: Path) -> dict[str, str]:
    """Key -> value, one file each; {} without such a folder. One line break at the end is not part of a value.

    Raises StoreRefused for a file that no key can be.
    """
    return {each.name: _value(each) for each in _files(folder)}


def take(folder: Path) -> dict[str, str]:
    """As `read`, and the files are gone, whatever is in them: what loads a model later finds no keys.

    A Secret that is mounted cannot be changed, and stays: who mounts it sees to it that no model is loaded beside it.
    """
    try:
        return read(folder)
    finally:
        for each in _files(folder):
            _remove(each)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in _UNCHANGEABLE:
            raise


def _files(folder: Path) -> Iterator[Path]:
    """A mounted Secret has folders and links of its own, whose names begin with two dots."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return (each for each in found if not each.name.startswith("..") and not each.is_dir())


def _value(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise StoreRefused(Reason.INVALID, f"key {path.name} of the Secret is larger than {_MOST_BYTES >> 10} KiB")
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise StoreRefused(Reason.INVALID, f"key {path.name} of the Secret is not text in UTF-8") from None


def ambient(scheme: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The keys for a store in somebody's own environment, for commands of people; processes of models never ask."""
    aliases = {"AWS_REGION": "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL": "AWS_ENDPOINT_URL_S3"}
    found = {name: environment.get(name) or environment.get(aliases.get(name, ""), "") for name in _KNOWN[scheme]}
    return {name: value for name, value in found.items() if value}


def signs(scheme: str, keys: Mapping[str, str]) -> bool:
    """Whether requests bear a key of the Secret."""
    return any(keys.get(name) for name, option in _KNOWN[scheme].items() if option in _SIGNING)


def options(scheme: str, keys: Mapping[str, str], identity: Identity | None = None) -> dict[str, Any]:
    """The configuration of a store. identity: in place of keys that sign.

    Raises StoreRefused for keys that it does not know, or that cannot be right.
    """
    known = _KNOWN[scheme]
    unknown = sorted(keys.keys() - known.keys())
    if unknown and scheme != "file":
        raise StoreRefused(
            Reason.INVALID,
            f"the Secret holds {', '.join(unknown)}, which {scheme}:// does not know; known are {', '.join(known)}",
        )
    for name in known:
        _check(name, keys.get(name, ""))
    if scheme == "s3" and (missing := [name for name in _TOGETHER if not keys.get(name)]) and len(missing) == 1:
        raise StoreRefused(
            Reason.INVALID, f"the Secret lacks {missing[0]}; {' and '.join(_TOGETHER)} are used together, or none"
        )
    found: dict[str, Any] = {option: keys[name] for name, option in known.items() if keys.get(name)}
    if scheme not in ("s3", "gs", "az") or signs(scheme, keys):
        return found
    given = identity.options(scheme) if identity else None
    return {**found, "skip_signature": True} if given is None else {**given, **found}


def _check(name: str, value: str) -> None:
    """obstore puts values into headers and addresses, and panics where that cannot be. They are never repeated."""
    if not value or name == "GOOGLE_SERVICE_ACCOUNT_KEY":
        return
    if not _TEXT.fullmatch(value):
        raise StoreRefused(
            Reason.INVALID, f"{name} in the Secret has spaces, line breaks or letters beyond ASCII; write the key alone"
        )
    if name.endswith(("_URL", "_ENDPOINT")) and not _is_endpoint(value):
        raise StoreRefused(
            Reason.INVALID, f"{name} in the Secret is no endpoint; expected https://HOST or http://HOST:PORT"
        )
    if name == "AWS_ENDPOINT_URL_STS" and not (value.startswith("https://") and _is_endpoint(value)):
        raise StoreRefused(Reason.INVALID, f"{name} in the Secret is no endpoint; expected https://HOST")
    if name == "AWS_REGION" and not _REGION.fullmatch(value):
        raise StoreRefused(Reason.INVALID, f"{name} in the Secret is no region; expected one such as us-east-1")


def _is_endpoint(value: str) -> bool:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        return False
    rest = parts.query or parts.fragment or "@" in parts.netloc
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not rest

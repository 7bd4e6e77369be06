"""Keys of stores: the files of a role's folder, and what a store makes of them.

The keys of a Secret are the names that each cloud's own tools use. Nothing is taken from the environment of the
process, and no metadata service is asked: without keys a store is read as anybody may.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelyard.base.conditions import Reason
from modelyard.storage.errors import StoreRefused

_MOST_BYTES = 64 * 2**10
_KNOWN: Mapping[str, Mapping[str, str]] = {
    "s3": {
        "AWS_ACCESS_KEY_ID": "access_key_id",
        "AWS_SECRET_ACCESS_KEY": "secret_access_key",
        "AWS_SESSION_TOKEN": "token",
        "AWS_REGION": "region",
        "AWS_ENDPOINT_URL": "endpoint",
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


def read(folder: Path) -> dict[str, str]:
    """Key -> value, one file each; {} without such a folder. One line break at the end is not part of a value."""
    if not folder.is_dir():
        return {}
    found = {}
    for each in sorted(folder.iterdir()):
        data = each.read_bytes()
        if len(data) > _MOST_BYTES:
            raise StoreRefused(Reason.INVALID, f"key {each.name} of the Secret is larger than {_MOST_BYTES >> 10} KiB")
        try:
            found[each.name] = data.decode().removesuffix("\n")
        except UnicodeDecodeError:
            raise StoreRefused(Reason.INVALID, f"key {each.name} of the Secret is not text in UTF-8") from None
    return found


def take(folder: Path) -> dict[str, str]:
    """As `read`, and the files are gone: what loads a model later finds no keys."""
    found = read(folder)
    for name in found:
        (folder / name).unlink(missing_ok=True)
    return found


def options(scheme: str, keys: Mapping[str, str]) -> dict[str, Any]:
    """The configuration of a store. Raises StoreRefused for a key that it does not know."""
    known = _KNOWN[scheme]
    unknown = sorted(keys.keys() - known.keys())
    if unknown and scheme != "file":
        raise StoreRefused(
            Reason.INVALID,
            f"the Secret holds {', '.join(unknown)}, which {scheme}:// does not know; known are {', '.join(known)}",
        )
    found: dict[str, Any] = {option: keys[name] for name, option in known.items() if keys.get(name)}
    if scheme in ("s3", "gs", "az") and not _SIGNING & found.keys():
        found["skip_signature"] = True
    return found

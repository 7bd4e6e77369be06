"""Content hashes and public model ids."""

import hashlib
import re

DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
"""RFC 1123 label: names contain no dots, so that `<name>.<namespace>` is unambiguous."""
DEFAULT_NAMESPACE = "default"


def short_hash(content: bytes, characters: int = 8) -> str:
    """Lower-case hexadecimal characters of BLAKE2s; for names and versions, not for integrity."""
    return hashlib.blake2s(content, digest_size=16).hexdigest()[:characters]


def is_digest(text: str) -> bool:
    """Whether text is spelled `sha256:` and 64 hexadecimal characters."""
    return re.fullmatch(DIGEST_PATTERN, text) is not None


def public_ids(namespace: str, name: str) -> tuple[str, ...]:
    """The ids under which callers reach a model, the full one first.

    `<name>.<namespace>` always; bare `<name>` in the default namespace.
    """
    full = f"{name}.{namespace}"
    return (full, name) if namespace == DEFAULT_NAMESPACE else (full,)

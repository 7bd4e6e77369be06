"""From a `uri` to a path."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from modelyard.base.conditions import Reason
from modelyard.runtime.backends.port import LoadFailed

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):")


def locate(uri: str, root: str) -> Path:
    """The file or folder that a uri names: a path relative to `root`, an absolute path or `file://`.

    Raises LoadFailed (Unsupported) for anything else. Whether something is there is not looked at.
    """
    scheme = _SCHEME.match(uri)
    if scheme is None or (scheme[1].lower() != "file" and not uri[scheme.end() :].startswith("//")):
        path = Path(uri)
    elif scheme[1].lower() == "file":
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise LoadFailed(Reason.UNSUPPORTED, f"{uri} names no file of this machine; write file:///absolute/path")
        path = Path(unquote(parts.path))
    else:
        raise LoadFailed(
            Reason.UNSUPPORTED,
            f"{scheme[1]}:// cannot be read yet; copy the artifact to this machine and give its path: absolute, as "
            f"file:///absolute/path, or relative to {root or 'the project root'}",
        )
    if "\0" in str(path) or not str(path):
        raise LoadFailed(Reason.ARTIFACT_NOT_FOUND, f"{uri!r} is not a path")
    if not path.is_absolute() and not root:
        raise LoadFailed(
            Reason.ARTIFACT_NOT_FOUND, f"{uri} is relative, and there is no project root here; use an absolute path"
        )
    return Path(root) / path

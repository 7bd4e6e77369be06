"""The key from which the secrets of units are made: `gateway.key` in the server's folder, for this user alone."""

import re
import secrets
from pathlib import Path

from modelyard.base.errors import UserError
from modelyard.server.folder import write_whole

NAME = "gateway.key"
_BYTES = 32
_HEX = re.compile(r"[0-9a-f]{64}\n?")


def read(folder: Path) -> bytes:
    """Made when there is none. Raises UserError when there is something else."""
    path = folder / NAME
    try:
        if not path.exists():
            write_whole(path, secrets.token_hex(_BYTES) + "\n")
        path.chmod(0o600)
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be used: {error}; remove it to have a new one made") from error
    if not _HEX.fullmatch(text):
        raise UserError(f"{path} is no key: expected 64 hexadecimal digits; remove it to have a new one made")
    return bytes.fromhex(text)

"""Who a server answers: what comes through its gateway, which shows a secret that the server knows a hash of."""

import hashlib
import hmac
import re

from modelyard.base.errors import UserError

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Gateway:
    """digest: the SHA-256 of the secret, 64 hexadecimal digits. Raises UserError for anything else."""

    def __init__(self, digest: str) -> None:
        if not _DIGEST.fullmatch(digest):
            raise UserError("the digest of the gateway's secret must be 64 hexadecimal digits, in lower case")
        self._digest = bytes.fromhex(digest)
        self._shown = b""

    def is_shown(self, value: bytes) -> bool:
        """Whether this is the secret, in constant time: one comparison when it has been shown before."""
        if self._shown and hmac.compare_digest(value, self._shown):
            return True
        if not hmac.compare_digest(hashlib.sha256(value).digest(), self._digest):
            return False
        self._shown = value
        return True

    @property
    def secret(self) -> str:
        """As it was shown; "" before."""
        return self._shown.decode("latin-1")

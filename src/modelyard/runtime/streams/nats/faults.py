"""What NATS and JetStream answer, in the words of `base.conditions.Reason`.

Source of the codes: nats-server `server/errors.json`; those that matter here were measured on 2.15.1.
"""

import re
import ssl
from collections.abc import Mapping
from typing import Any

from nats import errors

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.streams.port import Away

CONSUMER_NOT_FOUND = 10014
NO_MESSAGE = 10037
SEQUENCE_NOT_FOUND = 10043
STREAM_EXISTS = 10058
STREAM_NOT_FOUND = 10059
OVERLAP = 10065
WRONG_SEQUENCE = frozenset({10071, 10164})
CONSUMER_EXISTS = frozenset({10013, 10105, 10148})
BATCH_INCOMPLETE = 10176
BATCHES_IN_FLIGHT = 10210
NOT_ENABLED = frozenset({10039, 10076})
INVALID_CONFIG = 10052
FULL = frozenset({10002, 10023, 10026, 10027, 10028, 10047, 10077, 10122})
"""Resources of account or server, streams and consumers included; 10077 is also a disk or a limit of the stream."""

_STATUS_LATER = frozenset({408, 429})
_VIOLATION = re.compile(r"permissions violation for (publish|subscription) to \"([^\"]+)\"", re.IGNORECASE)
_CREDENTIALS = ("authorization", "authentication", "account", "revoked", "nonce", "credentials")


class ApiError(Exception):
    """An error of JetStream. code: its `err_code`; status: as of HTTP."""

    def __init__(self, code: int, status: int, description: str) -> None:
        super().__init__(f"{description} ({code})")
        self.code = code
        self.status = status
        self.description = description

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "ApiError | None":
        """The error in an answer of the API, or in the acknowledgement of a message."""
        found = answer.get("error")
        if not found:
            return None
        return cls(int(found.get("err_code", 0)), int(found.get("code", 0)), str(found.get("description", "")))


def translate(error: ApiError, doing: str) -> Away | Refused:
    """doing: what was asked for, such as `reading stream payments`."""
    if error.code in NOT_ENABLED:
        return Refused(
            Reason.BROKER_REFUSED,
            f"{doing}: JetStream is not enabled for this account; enable it there (`jetstream: enabled`, or `-js`)",
        )
    if error.code == STREAM_NOT_FOUND:
        return Refused(
            Reason.STREAM_NOT_FOUND, f"{doing}: the broker has no such stream; create it or correct its name"
        )
    if error.code in FULL:
        return Away(Reason.BROKER_FULL, f"{doing}: the broker has no room: {error.description}; it is tried again")
    if error.code == INVALID_CONFIG:  # which has status 500
        return Refused(Reason.STREAM_UNSUITABLE, f"{doing}: the broker does not take it: {error.description}")
    if error.status >= 500 or error.status in _STATUS_LATER:
        return Away(Reason.BROKER_UNREACHABLE, f"{doing}: {error.description}; it is tried again")
    return Refused(Reason.BROKER_REFUSED, f"{doing}: the broker refuses it: {error.description} ({error.code})")


def violation(error: Exception) -> tuple[str, str] | None:
    """(publish or subscription, the subject in lower case) of what a user may not do; None of other errors.

    nats-py gives what servers write in lower case. The server tells it asynchronously, and answers nothing else.
    """
    found = _VIOLATION.search(str(error))
    return (found[1].lower(), found[2].lower()) if found else None


def forbidden(operation: str, subject: str) -> Refused:
    """operation: as of `violation`."""
    verb = "publish to" if operation == "publish" else "subscribe to"
    return Refused(
        Reason.BROKER_REFUSED,
        f"these credentials may not {verb} {subject}; allow it in the permissions of the user at the broker",
    )


def not_connected(error: Exception, where: str, *, anonymous: bool) -> Away | Refused:
    """Why connecting failed. where: host and port. anonymous: no credentials are given."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Refused(
            Reason.BROKER_REFUSED,
            f"the certificate of {where} is not trusted: {error.verify_message}; put its CA into ca.crt of the Secret",
        )
    if isinstance(error, ssl.SSLError):
        return Refused(
            Reason.BROKER_REFUSED,
            f"no TLS with {where}: {error.reason}; check tls.crt, tls.key and ca.crt of the Secret",
        )
    if isinstance(error, errors.SecureConnWantedError):
        return Refused(
            Reason.BROKER_REFUSED, f"{where} does not ask for TLS, and credentials are not sent without; use nats://"
        )
    text = str(error).lower()
    if isinstance(error, errors.AuthorizationError) or (
        isinstance(error, errors.Error) and "maximum" not in text and any(word in text for word in _CREDENTIALS)
    ):
        if anonymous:
            return Refused(
                Reason.BROKER_REFUSED,
                f"{where} asks for credentials, and none are given; name a Secret in `credentials`",
            )
        return Refused(
            Reason.BROKER_REFUSED, f"{where} refuses these credentials; correct the Secret that `credentials` names"
        )
    detail = "it does not answer" if isinstance(error, TimeoutError) else str(error).removeprefix("nats: ")
    return Away(Reason.BROKER_UNREACHABLE, f"{where} cannot be reached: {detail}; it is tried again")

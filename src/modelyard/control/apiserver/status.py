"""Errors as Kubernetes words them: metav1.Status with reasons, causes and messages that clients know.

Source: k8s.io/apimachinery pkg/api/errors/errors.go and pkg/util/validation/field/errors.go.
"""

import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, NamedTuple, Self

from modelyard.control.apiserver.kinds import Kind

_LONGEST_VALUE = 512
"""Characters of an offending value that an error repeats."""


class Cause(NamedTuple):
    """One violated rule. field: `spec.replicas`; reason: a metav1.CauseType; message: what was found and expected."""

    field: str
    reason: str
    message: str

    @classmethod
    def invalid(cls, field: str, value: object, detail: str) -> Self:
        """A value that breaks a rule."""
        return cls(field, "FieldValueInvalid", f"Invalid value: {_shown(value)}: {detail}")

    @classmethod
    def wrong_type(cls, field: str, found: str, expected: str) -> Self:
        """A value of another JSON type than the schema's."""
        detail = f'{field} in body must be of type {expected}: "{found}"'
        return cls(field, "FieldValueTypeInvalid", f'Invalid value: "{found}": {detail}')

    @classmethod
    def required(cls, field: str, detail: str = "") -> Self:
        """A value that is missing."""
        return cls(field, "FieldValueRequired", f"Required value: {detail}" if detail else "Required value")

    @classmethod
    def unsupported(cls, field: str, value: object, supported: Iterable[object]) -> Self:
        """A value outside an enumeration."""
        values = ", ".join(_shown(each) for each in supported)
        return cls(field, "FieldValueNotSupported", f"Unsupported value: {_shown(value)}: supported values: {values}")

    @classmethod
    def duplicate(cls, field: str, value: object) -> Self:
        """A value that must be unique and is not."""
        return cls(field, "FieldValueDuplicate", f"Duplicate value: {_shown(value)}")

    @classmethod
    def forbidden(cls, field: str, detail: str) -> Self:
        """A value that must not be set, or not changed."""
        return cls(field, "FieldValueForbidden", f"Forbidden: {detail}")

    @classmethod
    def too_long(cls, field: str, most: int) -> Self:
        """A text that is too long; it is not repeated."""
        return cls(field, "FieldValueTooLong", f"Too long: may not be more than {most} bytes")

    @classmethod
    def too_many(cls, field: str, found: int, most: int) -> Self:
        """A list or map with too many items."""
        return cls(field, "FieldValueTooMany", f"Too many: {found}: must have at most {most} items")


class StatusError(Exception):
    """An answer other than success. code: HTTP status; reason: a metav1.StatusReason; retry_after: seconds."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: dict[str, Any] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = dict(details or {})
        self.retry_after = retry_after

    @property
    def causes(self) -> tuple[Cause, ...]:
        """Every violated rule."""
        return tuple(Cause(each["field"], each["reason"], each["message"]) for each in self.details.get("causes", ()))

    def status(self) -> dict[str, Any]:
        """The body of the answer: a metav1.Status."""
        details = {**self.details, **({"retryAfterSeconds": self.retry_after} if self.retry_after is not None else {})}
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            **({"details": details} if details else {}),
            "code": self.code,
        }


def bad_request(message: str, causes: Iterable[Cause] = ()) -> StatusError:
    """400: the request cannot be understood."""
    found = _causes(causes)
    return StatusError(HTTPStatus.BAD_REQUEST, "BadRequest", message, {"causes": found} if found else None)


def unauthorized() -> StatusError:
    """401: no or a wrong token."""
    return StatusError(HTTPStatus.UNAUTHORIZED, "Unauthorized", "Unauthorized")


def forbidden(kind: Kind, name: str, message: str) -> StatusError:
    """403: known, and not allowed."""
    text = f'{kind.resource_name} "{name}" is forbidden: {message}'
    return StatusError(HTTPStatus.FORBIDDEN, "Forbidden", text, _object(kind, name))


def denied(group: str, resource: str, name: str, message: str) -> StatusError:
    """403: the caller may not do it. resource "": the question was about a path."""
    if not resource:
        return StatusError(HTTPStatus.FORBIDDEN, "Forbidden", f"forbidden: {message}")
    qualified = f"{resource}.{group}" if group else resource
    subject = f'{qualified} "{name}"' if name else qualified
    details = _without_empty({"name": name, "group": group, "kind": resource})
    return StatusError(HTTPStatus.FORBIDDEN, "Forbidden", f"{subject} is forbidden: {message}", details)


def not_found(kind: Kind, name: str) -> StatusError:
    """404: no such object."""
    text = f'{kind.resource_name} "{name}" not found'
    return StatusError(HTTPStatus.NOT_FOUND, "NotFound", text, _object(kind, name))


def unknown_path() -> StatusError:
    """404: no such resource at all."""
    return StatusError(HTTPStatus.NOT_FOUND, "NotFound", "the server could not find the requested resource")


def method_not_allowed(kind: Kind | None = None, verb: str = "") -> StatusError:
    """405: the resource exists and does not know the verb (`create`, `delete`, ...)."""
    subject = f"{verb} is not supported on resources of kind" if verb else "the server does not allow this method on"
    text = f'{subject} "{kind.resource_name}"' if kind else "the server does not allow this method on the resource"
    details = {"group": kind.group, "kind": kind.plural} if kind else None
    return StatusError(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", text, details)


def not_acceptable(message: str) -> StatusError:
    """406: none of the wanted formats can be produced."""
    return StatusError(HTTPStatus.NOT_ACCEPTABLE, "NotAcceptable", message)


def already_exists(kind: Kind, name: str) -> StatusError:
    """409: the name is taken."""
    text = f'{kind.resource_name} "{name}" already exists'
    return StatusError(HTTPStatus.CONFLICT, "AlreadyExists", text, _object(kind, name))


def conflict(
    kind: Kind,
    name: str,
    message: str = "the object has been modified; please apply your changes to the latest version and try again",
) -> StatusError:
    """409: decided on an older version of the object."""
    text = f'Operation cannot be fulfilled on {kind.resource_name} "{name}": {message}'
    return StatusError(HTTPStatus.CONFLICT, "Conflict", text, _object(kind, name))


def expired(message: str) -> StatusError:
    """410: the version asked for is no longer known; list again."""
    return StatusError(HTTPStatus.GONE, "Expired", message)


def too_large(message: str) -> StatusError:
    """413: more than this server takes."""
    return StatusError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "RequestEntityTooLarge", message)


def unsupported_media(message: str) -> StatusError:
    """415: a body in a format that the resource does not take."""
    return StatusError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)


def invalid(kind: Kind, name: str, causes: Iterable[Cause]) -> StatusError:
    """422: the object breaks rules; all of them are named."""
    found = tuple(dict.fromkeys(causes))
    sentences = [f"{cause.field}: {cause.message}" for cause in found]
    text = sentences[0] if len(sentences) == 1 else f"[{', '.join(sentences)}]"
    qualified = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    details = {"name": name, "group": kind.group, "kind": kind.kind, "causes": _causes(found)}
    return StatusError(
        HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid", f'{qualified} "{name}" is invalid: {text}', _without_empty(details)
    )


def unprocessable(message: str) -> StatusError:
    """422: understood, and impossible for this object."""
    return StatusError(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid", message)


def too_many_requests(message: str, retry_after: int) -> StatusError:
    """429: try again after that many seconds."""
    return StatusError(HTTPStatus.TOO_MANY_REQUESTS, "TooManyRequests", message, retry_after=retry_after)


def internal(message: str) -> StatusError:
    """500: a fault of the server. message must not contain a traceback."""
    text = f"Internal error occurred: {message}"
    return StatusError(HTTPStatus.INTERNAL_SERVER_ERROR, "InternalError", text)


def unavailable(message: str, retry_after: int) -> StatusError:
    """503: not now; try again after that many seconds."""
    return StatusError(HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailable", message, retry_after=retry_after)


def insufficient_storage(message: str) -> StatusError:
    """507: the disk is full. Kubernetes has no reason of its own for it."""
    return StatusError(HTTPStatus.INSUFFICIENT_STORAGE, "InsufficientStorage", message)


def _object(kind: Kind, name: str) -> dict[str, Any]:
    return _without_empty({"name": name, "group": kind.group, "kind": kind.plural})


def _causes(causes: Iterable[Cause]) -> list[dict[str, str]]:
    return [{"reason": each.reason, "message": each.message, "field": each.field} for each in causes]


def _without_empty(details: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in details.items() if value}


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."

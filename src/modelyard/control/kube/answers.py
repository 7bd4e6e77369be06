"""What an API server answers: refusals, lists and the events of a watch, checked as far as we rely on them."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, cast

import aiohttp
import msgspec

from modelyard.base.errors import ModelyardError, UserError

Object = dict[str, Any]
_MAX_LINE_BYTES = 16 * 2**20
_MAX_ERROR_BYTES = 2**20
_LONGEST_RETRY_AFTER = 30.0


class ApiError(ModelyardError):
    """The server refused. reason: as in metav1.Status; causes: (field, message) of an invalid object."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        causes: tuple[tuple[str, str], ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.causes = causes
        self.retry_after = retry_after

    @property
    def conflict(self) -> bool:
        """The object changed in the meantime: look at the new one and decide again."""
        return self.status == 409 and self.reason == "Conflict"


async def lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Split a stream at newlines, without the 64 KiB limit of stream readers but with one of our own.

    Raises ValueError on a longer line. What follows the last newline was cut off and is left out.
    """
    rest = bytearray()
    async for chunk in chunks:
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            line = bytes(rest) + chunk[start:end]
            rest.clear()
            start = end + 1
            if line.strip():
                yield line
        rest += chunk[start:]
        if len(rest) > _MAX_LINE_BYTES:
            raise ValueError(f"an event of more than {_MAX_LINE_BYTES} bytes")


def versioned(body: Any, *, named: bool = True) -> Object:
    """An object of a list or a watch: it has a version and, unless it is a bookmark, a name. Raises ValueError."""
    metadata = body.get("metadata") if isinstance(body, dict) else None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("resourceVersion"), str):
        raise ValueError("the API server sent an object without metadata.resourceVersion")
    if named and not (isinstance(metadata.get("name"), str) and isinstance(metadata.get("namespace", ""), str)):
        raise ValueError("the API server sent an object without metadata.name")
    return cast(Object, body)


def event(line: bytes) -> Object:
    """Of a watch. Raises ApiError for an ERROR, ValueError on what is no event."""
    found = parse(line)
    body = found.get("object") if isinstance(found, dict) else None
    if not isinstance(body, dict):
        raise ValueError("the watch sent something that is no event")
    kind = found.get("type")
    if kind == "ERROR":
        code = body.get("code")
        raise refusal(code if isinstance(code, int) else 500, str(body.get("reason") or ""), body)
    if kind not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK"):
        raise ValueError("the watch sent an event of an unknown type")
    versioned(body, named=kind != "BOOKMARK")
    return cast(Object, found)


def parse(text: bytes) -> Any:
    """JSON. Raises ValueError.

    What is often decoded is decoded fast, with one object for all equal short keys; what that refuses may still be
    what others take for JSON, such as half of a surrogate pair in a text.
    """
    try:
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            return json.loads(text)
    except RecursionError as error:
        raise ValueError("the API server sent JSON that is nested too deeply") from error


async def read(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body; what is longer is cut somewhere behind the limit."""
    parts = []
    size = 0
    async for chunk in answer.content.iter_any():
        size += len(chunk)
        parts.append(chunk)
        if size > limit:
            break
    return b"".join(parts)


async def check(answer: aiohttp.ClientResponse) -> None:
    """Raises what a refusal means."""
    if answer.status < 300:
        return
    if answer.status < 400:
        # A token must not follow wherever somebody points.
        where = answer.headers.get("Location", "")[:200]
        raise UserError(f"the API server redirects to {where!r}: put the address of the real one into the kubeconfig")
    try:
        body = parse(await read(answer, _MAX_ERROR_BYTES))
    except ValueError:
        body = None
    after = answer.headers.get("Retry-After", "")
    raise refusal(
        answer.status,
        answer.reason or "",
        body if isinstance(body, dict) else {},
        retry_after=min(float(after), _LONGEST_RETRY_AFTER) if after.isascii() and after.isdigit() else None,
    )


def refusal(code: int, reason: str, body: Object, *, retry_after: float | None = None) -> ApiError:
    """From a metav1.Status, as far as it is one."""
    details = body.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    return ApiError(
        code,
        str(body.get("reason") or reason),
        str(body.get("message") or f"the API server answered {code} {reason}".rstrip()),
        causes=tuple(
            (str(cause.get("field", "")), str(cause.get("message", "")))
            for cause in (causes if isinstance(causes, list) else ())
            if isinstance(cause, dict)
        ),
        retry_after=retry_after,
    )

"""The one API client: JSON over HTTP, retries where they are safe, errors in two families."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, cast

import aiohttp

from modelyard.base.errors import ModelyardError, RetryLater, UserError
from modelyard.control.kube.auth import ClientConfig
from modelyard.control.kube.resources import Resource

Object = dict[str, Any]
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
_MAX_ANSWER_BYTES = 256 * 2**20
_MAX_LINE_BYTES = 16 * 2**20
_MAX_ERROR_BYTES = 2**20
_LONGEST_RETRY_AFTER = 30.0
_AGAIN = frozenset({429, 502, 503, 504})


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


class Client:
    """One connection pool to one server. Use as an async context manager."""

    def __init__(self, config: ClientConfig, *, attempts: int = 4, pause: float = 0.2, timeout: float = 30.0) -> None:
        self.config = config
        self._attempts = attempts
        self._pause = pause
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=64, ssl=self.config.tls())
        self._session = aiohttp.ClientSession(connector=connector)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """One object."""
        return await self.request("GET", resource.path(namespace, name))

    async def list(self, resource: Resource, namespace: str | None = None, **parameters: str) -> Object:
        """One page of a list; `limit` and `continue` are parameters."""
        return await self.request("GET", resource.path(namespace), parameters=parameters)

    async def create(self, resource: Resource, body: Object) -> Object:
        """Create; `AlreadyExists` may also mean that an attempt whose answer was lost has created it."""
        return await self.request("POST", resource.path(body["metadata"].get("namespace")), body=body)

    async def replace_status(self, resource: Resource, body: Object) -> Object:
        """Replace the status of the version that body was read at. A conflict is RetryLater."""
        metadata = body["metadata"]
        try:
            path = resource.path(metadata.get("namespace"), metadata["name"], "status")
            return await self.request("PUT", path, body=body)
        except ApiError as error:
            if error.conflict or error.status == 404:
                raise RetryLater(f"{resource.kind} {metadata['name']} changed in the meantime") from error
            raise

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, body: Any, *, kind: str = MERGE_PATCH
    ) -> Object:
        """Merge or JSON patch."""
        return await self.request("PATCH", resource.path(namespace, name), body=body, content_type=kind)

    async def delete(
        self, resource: Resource, namespace: str | None, name: str, *, preconditions: Mapping[str, str] | None = None
    ) -> Object:
        """Delete; its finalizers and dependents may take longer.

        preconditions: the uid and resourceVersion that it must have; otherwise the answer is a conflict.
        """
        body = None
        if preconditions is not None:
            body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": dict(preconditions)}
        return await self.request("DELETE", resource.path(namespace, name), body=body)

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        parameters: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """Send until an answer is final. Raises ApiError, RetryLater when the server cannot be reached.

        A request is repeated after 429, 502, 503, 504 and lost connections: reads always, writes because each of ours
        is either a creation with a name or carries a version.
        """
        data = None if body is None else json.dumps(body).encode()
        for attempt in range(1, self._attempts + 1):
            try:
                return await self._once(method, path, data, parameters, content_type)
            except ApiError as error:
                # A token that expired is read again from its file by the next attempt.
                again = error.status in _AGAIN or (error.status == 401 and self.config.token_file is not None)
                if not again or attempt == self._attempts:
                    raise
                asked = error.retry_after or 0.0
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if attempt == self._attempts:
                    why = str(error) or type(error).__name__
                    raise RetryLater(f"the API server {self.config.server} cannot be reached: {why}") from error
                asked = 0.0
            await asyncio.sleep(max(asked, jittered(self._pause * 2**attempt)))
        raise AssertionError("unreachable")

    async def text(self, path: str, parameters: Mapping[str, str]) -> str:
        """What is at a path that is no resource, asked for once. Raises ApiError and RetryLater."""
        try:
            found = await self._bytes("GET", path, None, parameters, "text/plain")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = str(error) or type(error).__name__
            raise RetryLater(f"the API server {self.config.server} cannot be reached: {why}") from error
        return found.decode(errors="replace")

    async def watch(
        self, resource: Resource, namespace: str | None, parameters: Mapping[str, str], *, idle: float
    ) -> AsyncGenerator[Object, None]:
        """The changes and bookmarks of one watch request until the server ends it; an ERROR event is raised.

        idle: seconds of silence that mean a dead peer. Raises ApiError, ValueError on what is no event, TimeoutError
        and the errors of aiohttp when the connection fails. Leave it with `aclosing`.
        """
        async with asyncio.timeout(self._timeout):  # until the answer begins; then silence counts
            answer = await self._open().get(
                self.config.server + resource.path(namespace),
                params={"watch": "true", **parameters},
                headers=self._headers(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=idle),
                allow_redirects=False,
            )
        async with answer:
            await _check(answer)
            try:
                async with aclosing(lines(answer.content.iter_any())) as found:
                    async for line in found:
                        yield _event(line)
            finally:
                # Left in the middle: over TLS an orderly close waits for the peer, longer than the loop may live.
                if answer.connection is not None and answer.connection.transport is not None:
                    answer.connection.transport.abort()

    async def _once(
        self, method: str, path: str, data: bytes | None, parameters: Mapping[str, str] | None, content_type: str
    ) -> Object:
        text = await self._bytes(method, path, data, parameters, content_type)
        try:
            found = _parse(text)
        except ValueError as error:
            raise RetryLater(f"the API server answered {method} {path} with something that is not JSON") from error
        if not isinstance(found, dict):
            raise UserError(f"the API server answered {method} {path} with something that is no object")
        return found

    async def _bytes(
        self, method: str, path: str, data: bytes | None, parameters: Mapping[str, str] | None, content_type: str
    ) -> bytes:
        async with self._open().request(
            method,
            self.config.server + path,
            params=parameters,
            data=data,
            headers={"Content-Type": content_type, **self._headers()},
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            allow_redirects=False,
        ) as answer:
            await _check(answer)
            text = await _read(answer, _MAX_ANSWER_BYTES)
        if len(text) > _MAX_ANSWER_BYTES:
            raise UserError(f"the API server answered {method} {path} with more than {_MAX_ANSWER_BYTES} bytes")
        return text

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use the client as an async context manager")
        return self._session

    def _headers(self) -> dict[str, str]:
        token = self.config.bearer()
        return {"Authorization": f"Bearer {token}"} if token else {}


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


def jittered(seconds: float) -> float:
    """Half to one and a half of it: peers that failed together do not come back together."""
    return min(seconds, 30.0) * random.uniform(0.5, 1.5)  # noqa: S311  spreads load, hides nothing


def versioned(body: Any, *, named: bool = True) -> Object:
    """An object of a list or a watch: it has a version and, unless it is a bookmark, a name. Raises ValueError."""
    metadata = body.get("metadata") if isinstance(body, dict) else None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("resourceVersion"), str):
        raise ValueError("the API server sent an object without metadata.resourceVersion")
    if named and not (isinstance(metadata.get("name"), str) and isinstance(metadata.get("namespace", ""), str)):
        raise ValueError("the API server sent an object without metadata.name")
    return cast(Object, body)


def _event(line: bytes) -> Object:
    event = _parse(line)
    body = event.get("object") if isinstance(event, dict) else None
    if not isinstance(body, dict):
        raise ValueError("the watch sent something that is no event")
    kind = event.get("type")
    if kind == "ERROR":
        code = body.get("code")
        raise _refusal(code if isinstance(code, int) else 500, str(body.get("reason") or ""), body)
    if kind not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK"):
        raise ValueError("the watch sent an event of an unknown type")
    versioned(body, named=kind != "BOOKMARK")
    return cast(Object, event)


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("the API server sent JSON that is nested too deeply") from error


async def _read(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body; what is longer is cut somewhere behind the limit."""
    parts = []
    size = 0
    async for chunk in answer.content.iter_any():
        size += len(chunk)
        parts.append(chunk)
        if size > limit:
            break
    return b"".join(parts)


async def _check(answer: aiohttp.ClientResponse) -> None:
    """Raises what a refusal means."""
    if answer.status < 300:
        return
    if answer.status < 400:
        # A token must not follow wherever somebody points.
        where = answer.headers.get("Location", "")[:200]
        raise UserError(f"the API server redirects to {where!r}: put the address of the real one into the kubeconfig")
    try:
        body = _parse(await _read(answer, _MAX_ERROR_BYTES))
    except ValueError:
        body = None
    after = answer.headers.get("Retry-After", "")
    raise _refusal(
        answer.status,
        answer.reason or "",
        body if isinstance(body, dict) else {},
        retry_after=min(float(after), _LONGEST_RETRY_AFTER) if after.isascii() and after.isdigit() else None,
    )


def _refusal(code: int, reason: str, body: Object, *, retry_after: float | None = None) -> ApiError:
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

"""The one API client: JSON over HTTP, retries where they are safe, errors in two families."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp
import msgspec

from modelyard.base.errors import RetryLater, UserError
from modelyard.control.kube import answers
from modelyard.control.kube.answers import ApiError
from modelyard.control.kube.auth import ClientConfig
from modelyard.control.kube.credentials import Credentials, Shown
from modelyard.control.kube.guard import Guard, guarded, let_pass
from modelyard.control.kube.resources import PODS, Resource

__all__ = ["APPLY_PATCH", "JSON_PATCH", "MERGE_PATCH", "ApiError", "Client", "jittered"]

Object = dict[str, Any]
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
_MAX_ANSWER_BYTES = 256 * 2**20
_AGAIN = frozenset({429, 502, 503, 504})


class _Asked(NamedTuple):
    method: str
    path: str
    data: bytes | None
    parameters: Mapping[str, str] | None
    content_type: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Client:
    """One connection pool to one server. Use as an async context manager."""

    def __init__(
        self,
        config: ClientConfig,
        *,
        attempts: int = 4,
        pause: float = 0.2,
        timeout: float = 30.0,
        guard: Guard = let_pass,
    ) -> None:
        """guard: is asked at the moment that a request which may change something is sent, each time that it is.

        writes_sent: how many such requests were made.
        """
        self.config = config
        self.writes_sent = 0
        self._attempts = attempts
        self._pause = pause
        self._timeout = timeout
        self._guard = guard
        self._session: aiohttp.ClientSession | None = None
        self._credentials: Credentials | None = None

    async def __aenter__(self) -> Self:
        self._credentials = Credentials(self.config)
        connector = aiohttp.TCPConnector(limit=64)
        self._session = aiohttp.ClientSession(connector=connector, request_class=guarded(self._guard))
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
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Any,
        *,
        kind: str = MERGE_PATCH,
        subresource: str | None = None,
    ) -> Object:
        """Merge or JSON patch; of a subresource such as `scale` too."""
        return await self.request("PATCH", resource.path(namespace, name, subresource), body=body, content_type=kind)

    async def apply(self, resource: Resource, body: Object, manager: str, *, force: bool = False) -> Object:
        """Server-side apply: create it, or change of it what `manager` owns to what body says.

        A field of another manager is a conflict; force: take it over. Source:
        https://kubernetes.io/docs/reference/using-api/server-side-apply/
        """
        metadata = body["metadata"]
        return await self.request(
            "PATCH",
            resource.path(metadata.get("namespace"), metadata["name"]),
            body={"apiVersion": resource.api_version, "kind": resource.kind, **body},
            parameters={"fieldManager": manager, "force": "true" if force else "false"},
            content_type=APPLY_PATCH,
        )

    async def evict(self, namespace: str, name: str) -> None:
        """End a pod as a drain does. A disruption budget that forbids it now is RetryLater; one that is gone, success.

        Source: https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/
        """
        metadata = {"name": name, "namespace": namespace}
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
        try:
            await self.request("POST", PODS.path(namespace, name, "eviction"), body=body)
        except ApiError as error:
            if error.status == 429:
                raise RetryLater(f"pod {namespace}/{name}: {error.message}", error.retry_after) from error
            if error.status != 404:
                raise

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
        is either a creation with a name, carries a version, or says the same when it is said twice. After 401 once more
        with another credential, where there may be one.
        """
        data = None if body is None else _encoded(body)
        self.writes_sent += method != "GET"
        asked = _Asked(method, path, data, parameters, content_type)
        renewed = False
        for attempt in range(1, self._attempts + 1):
            shown = await self._prove()
            try:
                return await self._once(asked, shown)
            except ApiError as error:
                if error.status == 401:
                    again, renewed = self._refused(shown) and not renewed, True
                else:
                    again = error.status in _AGAIN
                if not again or attempt == self._attempts:
                    raise
                pause = error.retry_after or 0.0
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if attempt == self._attempts:
                    why = str(error) or type(error).__name__
                    raise RetryLater(f"the API server {self.config.server} cannot be reached: {why}") from error
                pause = 0.0
            await asyncio.sleep(max(pause, jittered(self._pause * 2**attempt)))
        raise AssertionError("unreachable")

    async def text(self, path: str, parameters: Mapping[str, str]) -> str:
        """What is at a path that is no resource, asked for once. Raises ApiError and RetryLater."""
        try:
            found = await self._bytes(_Asked("GET", path, None, parameters, "text/plain"), await self._prove())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = str(error) or type(error).__name__
            raise RetryLater(f"the API server {self.config.server} cannot be reached: {why}") from error
        return found.decode(errors="replace")

    async def stream(self, path: str, parameters: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        """What is at a path that is no resource, as it comes, until the server ends it.

        Raises ApiError and RetryLater. Leave it with `aclosing`.
        """
        shown = await self._prove()
        try:
            async with self._open().get(
                self.config.server + path,
                params=parameters,
                headers=shown.headers,
                ssl=shown.tls,
                server_hostname=self.config.server_name or None,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
                allow_redirects=False,
            ) as answer:
                await answers.check(answer)
                try:
                    async for chunk in answer.content.iter_any():
                        yield chunk
                finally:  # as of watches
                    if answer.connection is not None and answer.connection.transport is not None:
                        answer.connection.transport.abort()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = str(error) or type(error).__name__
            raise RetryLater(f"the API server {self.config.server} cannot be reached: {why}") from error

    async def watch(
        self, resource: Resource, namespace: str | None, parameters: Mapping[str, str], *, idle: float
    ) -> AsyncGenerator[Object, None]:
        """The changes and bookmarks of one watch request until the server ends it; an ERROR event is raised.

        idle: seconds of silence that mean a dead peer. Raises ApiError, ValueError on what is no event, TimeoutError
        and the errors of aiohttp when the connection fails. Leave it with `aclosing`.
        """
        shown = await self._prove()
        async with asyncio.timeout(self._timeout):  # until the answer begins; then silence counts
            answer = await self._open().get(
                self.config.server + resource.path(namespace),
                params={"watch": "true", **parameters},
                headers=shown.headers,
                ssl=shown.tls,
                server_hostname=self.config.server_name or None,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=idle),
                allow_redirects=False,
            )
        async with answer:
            if answer.status == 401:
                self._refused(shown)
            await answers.check(answer)
            try:
                async with aclosing(answers.lines(answer.content.iter_any())) as found:
                    async for line in found:
                        yield answers.event(line)
            finally:
                # Left in the middle: over TLS an orderly close waits for the peer, longer than the loop may live.
                if answer.connection is not None and answer.connection.transport is not None:
                    answer.connection.transport.abort()

    async def _once(self, asked: _Asked, shown: Shown) -> Object:
        text = await self._bytes(asked, shown)
        try:
            found = answers.parse(text)
        except ValueError as error:
            raise RetryLater(f"the API server answered {asked} with something that is not JSON") from error
        if not isinstance(found, dict):
            raise UserError(f"the API server answered {asked} with something that is no object")
        return found

    async def _bytes(self, asked: _Asked, shown: Shown) -> bytes:
        async with self._open().request(
            asked.method,
            self.config.server + asked.path,
            params=asked.parameters,
            data=asked.data,
            headers=[("Content-Type", asked.content_type), *shown.headers],
            ssl=shown.tls,
            server_hostname=self.config.server_name or None,
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            allow_redirects=False,
        ) as answer:
            await answers.check(answer)
            text = await answers.read(answer, _MAX_ANSWER_BYTES)
        if len(text) > _MAX_ANSWER_BYTES:
            raise UserError(f"the API server answered {asked} with more than {_MAX_ANSWER_BYTES} bytes")
        return text

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use the client as an async context manager")
        return self._session

    async def _prove(self) -> Shown:
        if self._credentials is None:
            raise RuntimeError("use the client as an async context manager")
        return await self._credentials.current()

    def _refused(self, shown: Shown) -> bool:
        return self._credentials is not None and self._credentials.refused(shown)


def _encoded(body: Any) -> bytes:
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:  # half of a surrogate pair, as of a file's name that is no UTF-8
        return json.dumps(body).encode()


def jittered(seconds: float) -> float:
    """Half to one and a half of it: peers that failed together do not come back together."""
    return min(seconds, 30.0) * random.uniform(0.5, 1.5)  # noqa: S311  spreads load, hides nothing

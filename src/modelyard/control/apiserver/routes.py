"""Requests to answers: one dispatcher over paths and verbs. Every error is a metav1.Status."""

import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from modelyard.base.clock import Clock
from modelyard.base.errors import RetryLater
from modelyard.control.apiserver import admission, discovery, openapi, patch, reading, requests, scale, status, watching
from modelyard.control.apiserver.access import Access, Caller, path_ask, resource_ask
from modelyard.control.apiserver.kinds import TOKEN_REQUEST
from modelyard.control.apiserver.objects import Objects, Written, decoded
from modelyard.control.apiserver.requests import Catalog, Target
from modelyard.control.apiserver.reviews import Reviews
from modelyard.control.apiserver.status import StatusError
from modelyard.control.apiserver.store import Closed, Store

log = logging.getLogger(__name__)
Object = dict[str, Any]
Answer = Callable[["_Call"], Awaitable[web.StreamResponse]]
Page = Callable[[Mapping[str, str]], Awaitable[str]]
"""Makes a plain text from a request's query. Raises RetryLater."""
_HEALTH = frozenset({"/healthz", "/livez", "/readyz"})
_MOST_WARNINGS = 20
_OPEN = _HEALTH | {"/version"}
"""What Kubernetes shows to everybody (the role system:public-info-viewer)."""


class _Call(NamedTuple):
    """A request for a resource by somebody who may make it."""

    request: web.Request
    target: Target
    caller: Caller


class Routes:
    """The API over one store. access: who may do what. pages: by path, for those whom a role allows `get` of it."""

    def __init__(
        self,
        store: Store,
        objects: Objects,
        catalog: Catalog,
        *,
        access: Access,
        reviews: Reviews,
        clock: Clock,
        pages: Mapping[str, Page],
    ) -> None:
        self._store = store
        self._objects = objects
        self._catalog = catalog
        self._access = access
        self._reviews = reviews
        self._clock = clock
        self._pages = pages
        self._documents: dict[str, bytes] = {}

    def application(self) -> web.Application:
        """The aiohttp application."""
        application = web.Application(client_max_size=requests.MAX_BODY_BYTES)
        application.router.add_route("*", "/{path:.*}", self.answer)
        return application

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer any request; never raises but for cancellation and lost connections."""
        try:
            return await self._answer(request)
        except StatusError as error:
            return _refusal(error)
        except web.HTTPRequestEntityTooLarge:
            return _refusal(status.too_large(f"the body is larger than {requests.MAX_BODY_BYTES} bytes"))
        except web.HTTPException as error:
            return _refusal(StatusError(error.status, HTTPStatus(error.status).phrase.replace(" ", ""), error.reason))
        except (Closed, sqlite3.Error) as error:
            log.warning("%s %s: the store failed: %s", request.method, request.path, str(error) or "closed")
            return _refusal(status.unavailable("the store cannot be used now; try again", 1))
        except ConnectionError:
            raise
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return _refusal(status.internal("see the server's log"))

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path in _HEALTH:
            return web.Response(text="ok")
        target = requests.locate(path, self._catalog)
        if path not in _OPEN:
            caller = self._access.caller(request.headers)
            if target is not None:
                return await self._resource(_Call(request, target, caller))
            self._access.require(caller.user, path_ask(request.method, path))
            if path in self._pages:
                return await self._page(request)
        if path == "/openapi/v3" or path.startswith("/openapi/v3/"):
            return self._openapi(request)
        found = discovery.answer(path, self._catalog, request.host)
        if found is None:
            raise status.unknown_path()
        return _json(found) if request.method in ("GET", "HEAD") else _refusal(status.method_not_allowed())

    async def _page(self, request: web.Request) -> web.Response:
        if request.method not in ("GET", "HEAD"):
            raise status.method_not_allowed()
        try:
            return web.Response(text=await self._pages[request.path](request.query), content_type="text/plain")
        except RetryLater as error:
            raise status.unavailable(f"{error.message}; try again", 1) from error

    def _openapi(self, request: web.Request) -> web.Response:
        path = request.path.rstrip("/")
        if not self._documents:
            self._documents["/openapi/v3"] = msgspec.json.encode(openapi.index(self._catalog.kinds))
            for version in dict.fromkeys(kind.api_version for kind in self._catalog.kinds):
                place = f"/openapi/v3/{'apis' if '/' in version else 'api'}/{version}"
                kinds = tuple(kind for kind in self._catalog.kinds if kind.api_version == version)
                self._documents[place] = msgspec.json.encode(openapi.document(kinds))
        if path not in self._documents:
            raise status.unknown_path()
        return web.Response(body=self._documents[path], content_type="application/json")

    async def _resource(self, call: _Call) -> web.StreamResponse:
        request, target, caller = call
        verb, answer = self._calls(target).get("GET" if request.method == "HEAD" else request.method, ("", None))
        asked = "watch" if verb == "list" and requests.is_watch(request.query) else verb
        ask = resource_ask(asked or request.method.lower(), target, request.query)
        self._access.require(caller.user, ask)
        nowhere = verb == "create" and target.kind.namespaced and target.namespace is None
        known = target.subresource == "token" or verb in discovery.verbs(target.kind)
        if answer is None or not known or nowhere or (target.subresource and verb == "delete"):
            raise status.method_not_allowed(target.kind, verb)
        if asked == "watch":
            return await self._watch(call, partial(self._access.still, caller, ask))
        return await answer(call)

    def _calls(self, target: Target) -> dict[str, tuple[str, Answer]]:
        if target.kind.question:
            return {"POST": ("create", self._review)}
        if target.subresource == "token":
            return {"POST": ("create", self._token)}
        if target.name is None:
            return {
                "GET": ("list", self._list),
                "POST": ("create", self._create),
                "DELETE": ("deletecollection", self._delete_all),
            }
        return {
            "GET": ("get", self._get),
            "PUT": ("update", self._update),
            "PATCH": ("patch", self._patch),
            "DELETE": ("delete", self._delete),
        }

    async def _review(self, call: _Call) -> web.Response:
        request, target, caller = call
        requests.form(request.headers.get("Accept", ""), request.query)
        options = requests.write_options(request.query)
        body = requests.body(request.content_type, await request.read())
        asked, warnings = admission.admit_question(target.kind, body, options.validation)
        answered = self._reviews.answer(target.kind, target.namespace, asked, caller.user)
        return _warned(_json(answered, HTTPStatus.CREATED), warnings)

    async def _token(self, call: _Call) -> web.Response:
        request, target, _ = call
        requests.form(request.headers.get("Accept", ""), request.query)
        options = requests.write_options(request.query)
        body = requests.body(request.content_type, await request.read())
        asked, warnings = admission.admit_question(TOKEN_REQUEST, body, options.validation)
        namespace, name = target.namespace or "", target.name or ""
        await self._objects.read(target.kind, namespace, name)
        answered = self._reviews.token(namespace, name, asked, dry_run=options.dry_run)
        return _warned(_json(answered, HTTPStatus.CREATED), warnings)

    async def _get(self, call: _Call) -> web.Response:
        request, target, _ = call
        form = requests.form(request.headers.get("Accept", ""), request.query)
        stored = await self._objects.read(target.kind, target.namespace, target.name or "")
        if target.subresource == "scale":
            return _json(scale.view(target.kind, decoded(stored)))
        if form.table:
            metadata = {"resourceVersion": str(stored.revision)}
            return _raw(reading.table_body(target.kind, [stored.body], form, self._clock.now(), metadata))
        return _raw(stored.body)

    async def _watch(self, call: _Call, allowed: Callable[[], bool]) -> web.StreamResponse:
        request, target, _ = call
        options = requests.list_options(request.query)
        form = requests.form(request.headers.get("Accept", ""), request.query)
        lines = watching.Lines(target.kind, options, form, self._clock, allowed)
        return await watching.serve(request, self._store, target.kind, target.namespace, options, lines)

    async def _list(self, call: _Call) -> web.Response:
        request, target, _ = call
        options = requests.list_options(request.query)
        form = requests.form(request.headers.get("Accept", ""), request.query)
        found = await reading.collect(self._store, target.kind, target.namespace, options)
        return _raw(await reading.list_body(target.kind, found, form, self._clock.now()))

    async def _create(self, call: _Call) -> web.Response:
        request, target, caller = call
        options = replace(requests.write_options(request.query), guard=self._access.guard(caller, target))
        body = requests.body(request.content_type, await request.read())
        written = await self._objects.create(target.kind, target.namespace, body, options)
        return self._written(request, target, written, written.body)

    async def _update(self, call: _Call) -> web.Response:
        request, target = call.request, call.target
        body = requests.body(request.content_type, await request.read())

        def propose(current: Object) -> Object:
            return scale.applied(target.kind, current, body) if target.subresource == "scale" else body

        return await self._propose(call, propose)

    async def _patch(self, call: _Call) -> web.Response:
        request, target = call.request, call.target
        data, kind = await request.read(), target.kind
        content_type = request.content_type
        if content_type == patch.APPLY_PATCH:
            patch.apply(kind, content_type, {}, data)  # refuses, whether or not the object exists

        def propose(current: Object) -> Object:
            if target.subresource != "scale":
                return patch.apply(kind, content_type, current, data)
            return scale.applied(kind, current, patch.apply(kind, content_type, scale.view(kind, current), data))

        return await self._propose(call, propose)

    async def _propose(self, call: _Call, propose: Callable[[Object], Object]) -> web.Response:
        request, target, caller = call
        options = replace(requests.write_options(request.query), guard=self._access.guard(caller, target))
        is_scale = target.subresource == "scale"
        written = await self._objects.update(
            target.kind,
            target.namespace,
            target.name or "",
            propose,
            replace(options, validation="Ignore") if is_scale else options,
            subresource="" if is_scale else target.subresource,
        )
        shown = scale.view(target.kind, written.body) if is_scale else written.body
        return self._written(request, target, written, shown)

    async def _delete(self, call: _Call) -> web.Response:
        request, target, _ = call
        options = requests.delete_options(request.query, await _optional_body(request))
        return _json(await self._objects.delete(target.kind, target.namespace, target.name or "", options))

    async def _delete_all(self, call: _Call) -> web.Response:
        request, target, _ = call
        options = requests.delete_options(request.query, await _optional_body(request))
        found = await reading.collect(self._store, target.kind, target.namespace, requests.list_options(request.query))
        for text in found.bodies:
            metadata = msgspec.json.decode(text)["metadata"]
            try:
                await self._objects.delete(target.kind, metadata.get("namespace"), metadata["name"], options)
            except StatusError as error:
                if error.code != HTTPStatus.NOT_FOUND:
                    raise
        return _raw(await reading.list_body(target.kind, found, requests.Form(), self._clock.now()))

    def _written(self, request: web.Request, target: Target, written: Written, shown: Object) -> web.Response:
        code = HTTPStatus.CREATED if written.created else HTTPStatus.OK
        form = requests.form(request.headers.get("Accept", ""), request.query)
        if form.table and target.subresource != "scale":
            body = reading.table_body(target.kind, [msgspec.json.encode(shown)], form, self._clock.now(), {})
        else:
            body = msgspec.json.encode(shown)
        return _warned(_raw(body, code), written.warnings)


async def _optional_body(request: web.Request) -> Object:
    data = await request.read()
    return requests.body(request.content_type, data) if data else {}


def _warned(answer: web.Response, warnings: Sequence[str]) -> web.Response:
    for warning in warnings[:_MOST_WARNINGS]:
        answer.headers.add("Warning", f'299 - "{_quoted(warning)}"')
    return answer


def _quoted(text: str) -> str:
    """A quoted-string of RFC 9110: no control characters, since a header ends at a line break."""
    visible = "".join(each if each.isprintable() else " " for each in text[:1024])
    return visible.replace("\\", "\\\\").replace('"', '\\"')


def _json(body: Object, code: int = 200) -> web.Response:
    return _raw(msgspec.json.encode(body), code)


def _raw(body: bytes, code: int = 200) -> web.Response:
    return web.Response(
        body=body, status=code, content_type="application/json", headers={"Cache-Control": "no-cache, private"}
    )


def _refusal(error: StatusError) -> web.Response:
    answer = _raw(json.dumps(error.status()).encode(), error.code)
    if error.retry_after is not None:
        answer.headers["Retry-After"] = str(error.retry_after)
    if error.code == HTTPStatus.UNAUTHORIZED:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer

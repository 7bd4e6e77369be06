"""The embedded API server in one object: start it, use its URL, and it ends without leftovers."""

import asyncio
import errno
import logging
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from cryptography.hazmat.primitives.asymmetric import ec

from modelyard.api.schema import SYSTEM_NAMESPACE
from modelyard.base.clock import Clock
from modelyard.base.errors import UserError
from modelyard.base.ids import DEFAULT_NAMESPACE
from modelyard.control.apiserver import defaults, definitions, kinds
from modelyard.control.apiserver.access import Access
from modelyard.control.apiserver.collector import Collector
from modelyard.control.apiserver.objects import Objects
from modelyard.control.apiserver.policies import Policies
from modelyard.control.apiserver.requests import Catalog
from modelyard.control.apiserver.reviews import Reviews
from modelyard.control.apiserver.routes import Page, Routes
from modelyard.control.apiserver.store import Store
from modelyard.control.apiserver.tokens import Tokens, made

_MAX_HEADER_BYTES = 16_384
_GRACE_SECONDS = 2.0


class _NoHeaders(logging.Filter):
    """What is no valid HTTP may be part of a token: say that it came, and not what it was."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            record.msg, record.args, record.exc_info = (
                "a request was not valid HTTP (%s)",
                (type(error).__name__,),
                None,
            )
        return True


_http_log = logging.getLogger(f"{__name__}.http")
_http_log.addFilter(_NoHeaders())


class ApiServer:
    """Serves a store over HTTP. crds: the definitions of our kinds; token: the owner's, who may do everything.

    tls None: plain HTTP for tests. key: signs the tokens of ServiceAccounts; None: one that ends with this server.
    pages: texts by path, such as `/metrics`; may grow while it serves.
    """

    def __init__(
        self,
        store: Store,
        crds: Sequence[Mapping[str, Any]],
        *,
        token: str,
        tls: ssl.SSLContext | None,
        clock: Clock,
        key: ec.EllipticCurvePrivateKey | None = None,
        pages: Mapping[str, Page] | None = None,
    ) -> None:
        self._store = store
        self._crds = [dict(crd) for crd in crds]
        self._tls = tls
        self._clock = clock
        served = (*kinds.builtin(), *(kinds.from_crd(crd) for crd in crds), definitions.KIND)
        self._objects = Objects(store, clock)
        self._collector = Collector(store, self._objects, Catalog(served), clock)
        self._served = served
        self._policies = Policies()
        tokens = Tokens(key or made(), clock)
        access = Access(token, tokens, self._policies, clock)
        reviews = Reviews(access, self._policies, tokens)
        catalog = Catalog((*served, *kinds.questions()))
        self._routes = Routes(
            store,
            self._objects,
            catalog,
            access=access,
            reviews=reviews,
            clock=clock,
            pages={} if pages is None else pages,
        )

    @asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[str]:
        """Serve until the block ends; yields the URL. port 0: any. Raises UserError when the address cannot be used.

        The store stays open.
        """
        await self._prepare()
        runner = web.AppRunner(
            self._routes.application(),
            access_log=None,
            logger=_http_log,
            handle_signals=False,
            handler_cancellation=True,
            shutdown_timeout=_GRACE_SECONDS,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port, ssl_context=self._tls)
            try:
                await site.start()
            except OSError as error:
                raise _cannot_listen(host, port, error) from error
            failed: Exception | None = None
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(self._collector.run()), tasks.create_task(self._collector.maintain())]
                try:
                    yield self._url(host, runner.addresses[0][1])
                except Exception as error:  # the caller's own failure, which must not arrive in a group
                    failed = error
                finally:
                    for task in running:
                        task.cancel()
            if failed is not None:
                raise failed
        finally:
            self._store.end_watches()
            await runner.cleanup()

    async def _prepare(self) -> None:
        await self._policies.follow(self._store)
        namespace = next(kind for kind in kinds.builtin() if kind.kind == "Namespace")
        for name in (DEFAULT_NAMESPACE, SYSTEM_NAMESPACE):
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            await self._objects.establish(namespace, body)
        await definitions.publish(self._store, self._objects, self._crds, self._clock)
        await defaults.publish(self._store, self._objects, self._served)

    def _url(self, host: str, port: int) -> str:
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104  shown, not bound
        shown = f"[{shown}]" if ":" in shown else shown
        return f"{'https' if self._tls else 'http'}://{shown}:{port}"


def _cannot_listen(host: str, port: int, error: OSError) -> UserError:
    if error.errno == errno.EADDRINUSE:
        return UserError(
            f"port {port} on {host} is used by another program; choose another with --listen, or stop that program"
        )
    return UserError(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another address with --listen")

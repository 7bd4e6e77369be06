"""What the operator answers over HTTP: whether it lives, whether it is ready, and its figures. It only tells."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from modelyard.base.errors import ModelyardError
from modelyard.control.kube.lease import Election, boottime

Page = Callable[[Mapping[str, str]], Awaitable[str]]
_ALIVE_SECONDS = 30.0
"""A turn of the election takes a few seconds at most."""
_METRICS_SECONDS = 10.0
_LARGEST_HEADER = 8190
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class Status:
    """Of the operator. decides: whether everything that the leader runs has begun. figures: its metrics."""

    election: Election
    decides: bool = False
    figures: Page | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the loop turns."""
        return boottime() - self.election.alive_at < _ALIVE_SECONDS

    @property
    def is_ready(self) -> bool:
        """Who waits for the lead is ready when it knows who has it."""
        return self.is_alive and (self.decides if self.election.leads.is_set() else self.election.holder != "")

    async def metrics(self, query: Mapping[str, str]) -> str:
        """Prometheus text."""
        meaning = "# HELP modelyard_leads Whether this operator decides.\n# TYPE modelyard_leads gauge\n"
        own = f"{meaning}modelyard_leads {int(self.election.holds())}\n"
        return own + (await self.figures(query) if self.figures else "")


@asynccontextmanager
async def serving(status: Status, host: str | None, port: int) -> AsyncIterator[int]:
    """-> the port. host None: all addresses. What is asked for too long or too much is refused."""
    app = web.Application(client_max_size=1024)
    app.router.add_get("/healthz", lambda _: _told(status.is_alive), allow_head=False)
    app.router.add_get("/readyz", lambda _: _told(status.is_ready), allow_head=False)

    async def metrics(request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(_METRICS_SECONDS):
                return web.Response(text=await status.metrics(request.query), headers={"Content-Type": _TEXT})
        except ModelyardError as error:
            return web.Response(text=f"{error.message}\n", status=503)
        except TimeoutError:
            return web.Response(text=f"no figures within {_METRICS_SECONDS:g} seconds\n", status=503)

    app.router.add_get("/metrics", metrics, allow_head=False)
    runner = web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=15.0,
        max_line_size=_LARGEST_HEADER,
        max_field_size=_LARGEST_HEADER,
        shutdown_timeout=1.0,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=64)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def _told(holds: bool) -> web.Response:
    return web.Response(text="ok\n" if holds else "no\n", status=200 if holds else 503)

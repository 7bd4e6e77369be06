"""`GET /metrics` on the Unix socket of a runner's place."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@asynccontextmanager
async def offered(socket: str, text: Callable[[], str]) -> AsyncIterator[None]:
    """Answer as long as this is open; only this user's processes reach the socket's folder. No socket: nothing."""
    if not socket:
        yield
        return

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=text().encode(), headers={"Content-Type": _TYPE})

    site = web.Application()
    site.router.add_get("/metrics", answer)
    runner = web.AppRunner(site, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.UnixSite(runner, socket).start()
        yield
    finally:
        await runner.cleanup()

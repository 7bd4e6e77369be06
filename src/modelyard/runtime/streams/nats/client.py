"""nats-py's client, held to what a stream needs of it. The only place that knows its insides.

The client never connects again by itself: it would keep what was published meanwhile, and what was cut off, in a buffer
and send it on the next connection, where pieces of an abandoned batch must never arrive. See `broker`.
"""

import asyncio
from typing import Any

from nats import errors
from nats.aio.client import Client as NatsClient

_CLOSE_SECONDS = 1.0


class Client(NatsClient):
    """One connection. must_tls: nothing is sent to a server that does not ask for TLS."""

    def __init__(self, *, must_tls: bool) -> None:
        super().__init__()
        self._must_tls = must_tls

    def _connect_command(self) -> bytes:
        # `tls://` is only a wish to nats-py: without this it would send the password in clear when a server, or
        # whoever answers in its place, does not ask for TLS.
        if self._must_tls and not self._server_info.get("tls_required"):
            raise errors.SecureConnWantedError
        return super()._connect_command()

    @property
    def server_info(self) -> dict[str, Any]:
        """What the server told when it was connected."""
        return self._server_info

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        # Writing what is left to a connection that is reset fails, and would end the task that reads without a word.
        try:
            await super()._close(status, do_cbs)
        except OSError as error:
            await self._error_cb(error)

    async def discard(self) -> None:
        """Close, and end what nats-py leaves behind where that fails."""
        left = list(self._subs.values())
        try:
            if self._reading_task is not None:  # else it never logged in, and may wait for a TLS that never began
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self.close()
        except TimeoutError:
            pass  # nobody answers; it is gone, which is what was wanted
        finally:
            for subscription in left:
                subscription._stop_processing()  # noqa: SLF001  unsubscribing does nothing once it is closed
            if self._transport:
                self._transport.close()  # type: ignore[no-untyped-call]

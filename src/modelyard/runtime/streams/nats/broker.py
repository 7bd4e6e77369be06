"""Where a broker is, how one logs in there, and the connection to it, made again whenever it is needed.

Nothing connects in the background: the first call after a loss does, but not before a pause that grows with failures,
and until then every call fails at once. So nothing can wait in a buffer for a connection to come back.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from nats import errors

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.streams.nats.client import Client
from modelyard.runtime.streams.nats.faults import not_connected
from modelyard.runtime.streams.nats.keys import Login, login
from modelyard.runtime.streams.nats.session import Session
from modelyard.runtime.streams.port import Away
from modelyard.wire.work import LOCAL_BROKER

_STEP_SECONDS = 2
_CONNECT_SECONDS = 5.0
_PING_SECONDS = 5
_PAUSE_SECONDS = 0.1
_MOST_PAUSE_SECONDS = 2.0


class _Local(msgspec.Struct, frozen=True):
    """What the server of a laptop writes about the broker that it has started."""

    url: str
    user: str = ""
    password: str = ""


@dataclass(slots=True)
class _Pause:
    """Grows from 0.1 s to 2 s, with jitter, so that many runners do not come at once."""

    failures: int = 0
    until: float = 0.0
    error: Away | Refused | None = None

    def failed(self, error: Away | Refused, now: float) -> None:
        seconds = min(_MOST_PAUSE_SECONDS, _PAUSE_SECONDS * 2**self.failures)
        self.failures = min(self.failures + 1, 10)
        self.until = now + seconds * random.uniform(0.5, 1)  # noqa: S311  no secret
        self.error = error


@dataclass(slots=True)
class Broker:
    """One broker as one user. `session` is its connection. Made by `connect`."""

    uri: str
    _login: Login
    _broker_file: str = ""
    _name: str = ""
    _session: Session | None = None
    _pause: _Pause = field(default_factory=_Pause)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def connected(self) -> bool:
        return self._session is not None and not self._session.lost

    @property
    def _anonymous(self) -> bool:
        return self.uri != LOCAL_BROKER and not self._login.options

    async def session(self) -> Session:
        """The connection, made if there is none. Raises Away, and Refused for credentials; both at once in a pause."""
        if self._session is not None and not self._session.lost:
            return self._session
        async with self._lock:
            if self._session is not None and not self._session.lost:
                return self._session
            loop = asyncio.get_running_loop()
            if self._pause.error is not None and loop.time() < self._pause.until:
                raise type(self._pause.error)(self._pause.error.reason, self._pause.error.message)
            await self._discard()
            try:
                self._session = await self._open()
            except (Away, Refused) as error:
                self._pause.failed(error, loop.time())
                raise
            self._pause = _Pause()
            return self._session

    async def _open(self) -> Session:
        url, options = self._target()
        where = urlsplit(url).netloc
        client = Client(must_tls=self._login.tls is not None)
        session = Session(client, where)
        seen: list[Exception] = []

        async def noted(error: Exception) -> None:
            if len(seen) < 3:
                seen.append(error)
            session.noted(error)

        async def lost() -> None:
            session.lose(str(client.last_error or "closed"))

        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await client.connect(
                    url,
                    name=self._name or None,
                    error_cb=noted,
                    disconnected_cb=lost,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,  # of the first connection; 0 would be forever
                    reconnect_time_wait=0,
                    connect_timeout=_STEP_SECONDS,
                    ping_interval=_PING_SECONDS,
                    tls=self._login.tls,
                    **options,
                )
            if not client.is_connected:  # to nats-py a connection that is closed while it logs in is none of its errors
                raise errors.UnexpectedEOF
            await session.open()
        except (errors.Error, OSError) as error:  # with TimeoutError
            await session.close()
            raise not_connected(_told(error, seen), where, anonymous=self._anonymous) from None
        except BaseException:
            await session.close()
            raise
        return session

    def _target(self) -> tuple[str, dict[str, Any]]:
        if self.uri != LOCAL_BROKER:
            return self.uri, dict(self._login.options)
        try:
            local = msgspec.json.decode(Path(self._broker_file).read_bytes(), type=_Local)
        except (OSError, msgspec.DecodeError):
            raise Away(Reason.BROKER_UNREACHABLE, "the local broker is being started") from None
        return local.url, {"user": local.user, "password": local.password} if local.user else {}

    async def _discard(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


@asynccontextmanager
async def connect(
    uri: str, credentials: Mapping[str, str], broker_file: str, scratch: Path, name: str = ""
) -> AsyncIterator[Broker]:
    """The broker at `nats://host:port`, `tls://host:port` or LOCAL_BROKER; its connection is closed at the end.

    credentials: key -> value of the Secret. broker_file: tells how LOCAL_BROKER is reached. name: shown at the broker.
    Raises Refused for credentials that cannot be used. The broker need not be there yet.
    """
    local = uri == LOCAL_BROKER
    broker = Broker(
        uri if local else _checked(uri),
        Login() if local else login(credentials, tls=uri.startswith("tls://"), scratch=scratch),
        broker_file,
        name,
    )
    try:
        yield broker
    finally:
        await broker._discard()  # noqa: SLF001  its own module


def _checked(uri: str) -> str:
    try:
        parts = urlsplit(uri)
        usable = parts.scheme in ("nats", "tls") and bool(parts.hostname) and "@" not in parts.netloc
        port = parts.port or 4222
    except ValueError:
        usable, port = False, 0
    if not usable:
        raise Refused(Reason.BROKER_REFUSED, "the uri of the broker must be nats://HOST:PORT or tls://HOST:PORT")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{port}"


def _told(error: Exception, seen: list[Exception]) -> Exception:
    """The cause, where nats-py tells only that no server was left."""
    return seen[-1] if isinstance(error, errors.NoServersError) and seen else error

"""What several Envoys count, asked of each of them over TLS, as the figures of one gateway."""

import asyncio
import logging
import os
import ssl
from collections.abc import Callable, Mapping
from types import MappingProxyType

import aiohttp
import yarl

from modelyard.base.clock import Clock
from modelyard.control.gateway import stats
from modelyard.control.gateway.ads import Node
from modelyard.control.gateway.listening import Identity
from modelyard.control.ir.observed import Load
from modelyard.control.render.xds_bootstrap import GATEWAY_SAN, STATS_PORT

_log = logging.getLogger(__name__)

_POLL_SECONDS = 2.0
_PAUSES = 10  # as long as a look took
_ANSWER_SECONDS = 5.0
_LARGEST_ANSWER_BYTES = 128 * 2**20
_AT_A_TIME = 8
_MISSED_SECONDS = 60.0
_REMEMBERED_SECONDS = 600.0


class _Member:
    """An Envoy that was met. seen: when it answered last (monotonic)."""

    def __init__(self, clock: Clock, at: float) -> None:
        self.loads = stats.Loads(_nobody, clock)
        self.seen = at


async def _nobody(path: str) -> str:
    raise AssertionError(path)


class Fleet:
    """Looks again and again while it runs. nodes: those that are connected. identity: what is shown to them.

    Totals go on when one of them ends: what it counted stays counted.
    """

    def __init__(self, nodes: Callable[[], tuple[Node, ...]], identity: Callable[[], Identity], clock: Clock) -> None:
        self._nodes = nodes
        self._identity = identity
        self._clock = clock
        self._members: dict[str, _Member] = {}
        self._gone: dict[str, Load] = {}
        self._known: dict[str, float] = {}
        self._now: dict[str, Load] = {}
        self._silent: set[str] = set()
        self._shown: tuple[Identity, ssl.SSLContext] | None = None
        self._few = asyncio.Semaphore(_AT_A_TIME)

    @property
    def now(self) -> Mapping[str, Load]:
        """As of the latest look, by unit; those that nobody has called yet are left out."""
        return MappingProxyType(self._now)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            began = self._clock.monotonic()
            for name, answer in (await self.ask(stats.ASK)).items():
                await self._take(name, answer)
            self._add_up(self._clock.monotonic())
            await self._clock.sleep(max(_POLL_SECONDS, _PAUSES * (self._clock.monotonic() - began)))

    async def ask(self, path: str) -> dict[str, str]:
        """What their admin interfaces answer, by name; who does not answer is left out, and that is logged once."""
        nodes = self._nodes()
        if not nodes:
            return {}
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_SECONDS)) as session:
            answers = await asyncio.gather(*(self._asked(session, each, path) for each in nodes))
        self._silent &= {each.name for each in nodes}
        return {node.name: answer for node, answer in zip(nodes, answers, strict=True) if answer is not None}

    async def _asked(self, session: aiohttp.ClientSession, node: Node, path: str) -> str | None:
        host = f"[{node.host}]" if ":" in node.host else node.host
        url = yarl.URL(f"https://{host}:{node.stats_port or STATS_PORT}{path}", encoded=True)
        try:
            async with (
                self._few,
                session.get(url, ssl=self._context(), server_hostname=GATEWAY_SAN, allow_redirects=False) as answer,
            ):
                answer.raise_for_status()
                found = await _read(answer)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            if node.name not in self._silent:
                self._silent.add(node.name)
                _log.warning(
                    "gateway %s at %s does not tell what it counts: %s", node.name, node.host, str(error) or "late"
                )
            return None
        self._silent.discard(node.name)
        return found

    def _context(self) -> ssl.SSLContext:
        """Of the latest identity. Its key never becomes a file: OpenSSL reads it from memory that has a name."""
        identity = self._identity()
        if self._shown is None or self._shown[0] != identity:
            context = ssl.create_default_context(cadata=identity.authority)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{identity.certificate}\n{identity.key}\n")
                file.flush()
                context.load_cert_chain(f"/proc/self/fd/{descriptor}")
            self._shown = identity, context
        return self._shown[1]

    async def _take(self, name: str, answer: str) -> None:
        try:
            found = await asyncio.to_thread(stats.counts, answer)
        except ValueError:
            _log.exception("the statistics of gateway %s cannot be read; the loads of units are older ones", name)
            return
        at = self._clock.monotonic()
        member = self._members.setdefault(name, _Member(self._clock, at))
        member.loads.take(found, at)
        member.seen = at

    def _add_up(self, at: float) -> None:
        connected = {each.name for each in self._nodes()}
        for name, member in list(self._members.items()):
            if name not in connected and at - member.seen > _MISSED_SECONDS:
                del self._members[name]
                for unit, load in member.loads.now.items():
                    self._gone[unit] = stats.together(self._gone.get(unit), stats.ended(load))
        parts: dict[str, list[Load]] = {}
        for name, member in self._members.items():
            for unit, load in member.loads.now.items():
                parts.setdefault(unit, []).append(load if name in connected else stats.ended(load))
        self._known.update(dict.fromkeys(parts, at))
        self._known = {unit: seen for unit, seen in self._known.items() if at - seen <= _REMEMBERED_SECONDS}
        self._gone = {unit: load for unit, load in self._gone.items() if unit in self._known}
        self._now = {
            unit: stats.together(self._gone.get(unit), *parts.get(unit, ())) for unit in {**parts, **self._gone}
        }


async def _read(answer: aiohttp.ClientResponse) -> str:
    """Raises ValueError where it has no end."""
    parts = []
    size = 0
    async for part in answer.content.iter_chunked(2**16):
        size += len(part)
        if size > _LARGEST_ANSWER_BYTES:
            raise ValueError("its answer is too large")
        parts.append(part)
    return b"".join(parts).decode(errors="replace")

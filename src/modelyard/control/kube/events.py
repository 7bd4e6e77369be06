"""core/v1 Events: what happened to an object, counted when it happens again."""

import asyncio
import logging
from collections import OrderedDict
from typing import Any

from modelyard.base.clock import Clock, timestamp
from modelyard.base.errors import ModelyardError
from modelyard.base.ids import short_hash
from modelyard.control.kube.client import ApiError, Client
from modelyard.control.kube.resources import EVENTS

log = logging.getLogger(__name__)
Object = dict[str, Any]
_WAITING = 1000
_REMEMBERED = 4096
_LONGEST_MESSAGE = 1024


class EventRecorder:
    """`record` never waits and never fails; `run` writes. An event repeated for an object is counted, not added."""

    def __init__(self, client: Client, component: str, clock: Clock) -> None:
        self.dropped = 0
        self._client = client
        self._component = component
        self._clock = clock
        self._waiting: asyncio.Queue[Object] = asyncio.Queue(maxsize=_WAITING)
        self._counts: OrderedDict[tuple[str, str], int] = OrderedDict()

    def record(self, about: Object, kind: str, reason: str, message: str) -> None:
        """Enqueue; dropped (and counted) when a thousand are waiting."""
        try:
            self._waiting.put_nowait(self._event(about, kind, reason, message))
        except asyncio.QueueFull:
            self.dropped += 1

    async def run(self) -> None:
        """Write until cancelled. A failure is logged: events are news, not state."""
        while True:
            event = await self._waiting.get()
            try:
                await self._write(event)
            except ModelyardError as error:
                log.info("an event could not be written: %s", error)
            except Exception:
                log.exception("an event could not be written: a defect of Modelyard")

    async def _write(self, event: Object) -> None:
        namespace, name = event["metadata"]["namespace"], event["metadata"]["name"]
        count = self._counts.pop((namespace, name), 0) + 1
        if count == 1:
            try:
                await self._client.create(EVENTS, event)
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise
                count = _count(await self._client.get(EVENTS, namespace, name)) + 1
        if count > 1:
            body = {"count": count, "lastTimestamp": event["lastTimestamp"]}
            try:
                await self._client.patch(EVENTS, namespace, name, body)
            except ApiError as error:
                if error.status != 404:
                    raise
                count = 1  # events are kept for a while only
                await self._client.create(EVENTS, event)
        self._counts[namespace, name] = count
        if len(self._counts) > _REMEMBERED:
            self._counts.popitem(last=False)

    def _event(self, about: Object, kind: str, reason: str, message: str) -> Object:
        metadata = about["metadata"]
        message = message if len(message) <= _LONGEST_MESSAGE else message[: _LONGEST_MESSAGE - 4] + " ..."
        identity = short_hash(f"{metadata.get('uid')}\n{kind}\n{reason}\n{message}".encode(), 16)
        now = timestamp(self._clock.now())
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata['name']}.{identity}", "namespace": metadata.get("namespace", "default")},
            "involvedObject": {
                "apiVersion": about.get("apiVersion"),
                "kind": about.get("kind"),
                "name": metadata["name"],
                "namespace": metadata.get("namespace"),
                "uid": metadata.get("uid"),
            },
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": self._component},
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
        }


def _count(stored: Object) -> int:
    count = stored.get("count")
    return count if isinstance(count, int) and count > 0 else 1

"""Leader election by a Lease: the shell around `plan.lease`."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from modelyard.base.clock import micro_timestamp
from modelyard.base.errors import ModelyardError, RetryLater
from modelyard.control.kube.client import ApiError, Client
from modelyard.control.kube.resources import LEASES
from modelyard.control.plan import lease as plan
from modelyard.control.plan.lease import Look, Lost, Record, Rest, State, Timing, Write

log = logging.getLogger(__name__)
Object = dict[str, Any]
REQUEST_SECONDS = 3.0
"""Longest time of a request about the Lease: there must be time for another one before the deadline."""


class LeaseLostError(ModelyardError):
    """We led, and must not go on."""


def boottime() -> float:
    """Seconds that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Election:
    """Waits for the lead and keeps it. client: without a guard, with short time-outs and one attempt.

    identity: of this process, not of its pod: one that was started anew has not decided what the former one did.
    `leads` is set while it leads. alive_at: when the loop turned last, on that clock.
    """

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        name: str,
        identity: str,
        timing: Timing | None = None,
        clock: Callable[[], float] = boottime,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.leads = asyncio.Event()
        self.alive_at = clock()
        self._client = client
        self._namespace = namespace
        self._name = name
        self._clock = clock
        self._wall = wall
        self._state = State(me=identity, timing=timing or Timing())

    def holds(self) -> bool:
        """Whether we lead at this moment, however long this process was stopped before it asks."""
        return plan.holds(self._state, self._clock())

    def guard(self) -> None:
        """For a client: nothing is written by one who does not lead. Raises RetryLater."""
        if not self.holds():
            raise RetryLater(f"nothing is written: {self._state.me} does not hold the Lease {self._place}")

    @property
    def holder(self) -> str:
        """Who leads, as far as seen; "" for nobody."""
        return self._state.record.holder if self._state.record else ""

    async def run(self) -> None:
        """Until cancelled. Raises LeaseLostError when the lead is lost."""
        while True:
            now = self.alive_at = self._clock()
            match plan.step(self._state, now):
                case Look():
                    await self._look()
                case Write() as write:
                    await self._write(write)
                case Rest(seconds):
                    await asyncio.sleep(seconds)
                case Lost(why):
                    self._state = State(me=self._state.me, timing=self._state.timing)
                    self.leads.clear()
                    raise LeaseLostError(f"the Lease {self._place} is lost: {why}")

    async def release(self) -> None:
        """Lead no more, and let somebody else do so at once. What has no answer is told and not repeated."""
        state, self._state = self._state, State(me=self._state.me, timing=self._state.timing)
        self.leads.clear()
        if state.held_from is None or state.record is None or state.record.holder != state.me:
            return
        body = self._body("", state.record.version, state.record.transitions, state.record.acquired)
        try:
            await self._client.request("PUT", LEASES.path(self._namespace, self._name), body=body)
        except ModelyardError as error:
            log.info("the Lease %s could not be released: %s", self._place, error)

    @property
    def _place(self) -> str:
        return f"{self._namespace}/{self._name}"

    async def _look(self) -> None:
        try:
            found = _record(await self._client.get(LEASES, self._namespace, self._name))
        except ApiError as error:
            if error.status != 404:
                self._doubt(error)
                return
            found = None
        except ModelyardError as error:
            self._doubt(error)
            return
        before, self._state = self._state, plan.saw(self._state, found, self._clock())
        if found is not None and found.holder != (before.record.holder if before.record else None):
            log.info("the Lease %s: %s leads", self._place, found.holder or "nobody")

    async def _write(self, write: Write) -> None:
        began = self._clock()
        acquired = self._now() if write.takes or self._state.record is None else self._state.record.acquired
        body = self._body(self._state.me, write.version, write.transitions, acquired)
        try:
            if write.version is None:
                stored = await self._client.create(LEASES, body)
            else:
                stored = await self._client.request("PUT", LEASES.path(self._namespace, self._name), body=body)
        except ModelyardError as error:
            self._doubt(error)
            return
        record = _record(stored)
        if record.holder != self._state.me:
            self._doubt(RetryLater("the answer names another holder"))
            return
        self._state = plan.wrote(self._state, record, began)
        if not self.leads.is_set():
            log.info("the Lease %s: %s leads from now on", self._place, self._state.me)
            self.leads.set()

    def _doubt(self, error: ModelyardError) -> None:
        self._state = plan.doubted(self._state, self._clock())
        log.info("the Lease %s: %s", self._place, error)

    def _body(self, holder: str, version: str | None, transitions: int, acquired: str) -> Object:
        metadata: Object = {"name": self._name, "namespace": self._namespace}
        if version is not None:
            metadata["resourceVersion"] = version
        spec: Object = {
            "holderIdentity": holder,
            "leaseDurationSeconds": max(1, round(self._state.timing.duration)) if holder else 1,
            "renewTime": self._now(),
            "leaseTransitions": transitions,
        }
        if acquired:
            spec["acquireTime"] = acquired
        return {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata, "spec": spec}

    def _now(self) -> str:
        return micro_timestamp(self._wall())


def _record(body: Object) -> Record:
    """What others wrote may be anything."""
    spec = body.get("spec") or {}
    holder, acquired = spec.get("holderIdentity"), spec.get("acquireTime")
    duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    return Record(
        holder=holder if isinstance(holder, str) else "",
        version=str(body["metadata"]["resourceVersion"]),
        duration=float(duration) if isinstance(duration, int) and duration > 0 else 0.0,
        transitions=transitions if isinstance(transitions, int) else 0,
        acquired=acquired if isinstance(acquired, str) else "",
    )

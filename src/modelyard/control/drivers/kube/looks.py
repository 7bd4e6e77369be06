"""What must be asked for, since no watch brings it: reports of pods that run, and complaints about what is stuck."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator
from typing import Any

import aiohttp
from msgspec import UNSET
from msgspec.structs import replace

from modelyard.base.clock import Clock
from modelyard.base.errors import ModelyardError, UserError
from modelyard.control.drivers.kube import observe
from modelyard.control.drivers.kube.index import Index
from modelyard.control.drivers.kube.observe import Facts
from modelyard.control.drivers.kube.trouble import Event, main_status, seconds, statuses
from modelyard.control.drivers.kube.used import Used
from modelyard.control.ir.observed import Usage
from modelyard.control.kube.client import Client
from modelyard.control.kube.resources import EVENTS
from modelyard.control.render.kube_container import REPORT_PORT, reports
from modelyard.wire import report as wire
from modelyard.wire.report import Report

log = logging.getLogger(__name__)
Object = dict[str, Any]
_LOOK_SECONDS = 2.0
_ANSWER_SECONDS = 1.5
_AT_ONCE = 32
_STUCK_SECONDS = 3.0
"""Nothing is asked about what is not older."""
_ASK_SECONDS = 10.0
_MOST_ASKED = 20
"""About so many objects in one round."""


class Looks:
    """Run `run`; `facts` tells what is known. first: set after the first round.

    compared: units that compare answers to copies; of others that serve there is nothing to know.
    """

    def __init__(
        self, client: Client, index: Index, clock: Clock, compared: Callable[[], Collection[str]] = frozenset
    ) -> None:
        self.first = asyncio.Event()
        self._client = client
        self._index = index
        self._clock = clock
        self._compared = compared
        self._reports: dict[str, Report] = {}
        self._usages: dict[str, Usage] = {}
        self._used = Used()
        self._events: dict[str, Event] = {}
        self._asked: dict[str, float] = {}
        self._late: set[str] = set()
        self._turns = asyncio.Semaphore(_AT_ONCE)

    def facts(self) -> Facts:
        """For an observation at this moment."""
        return Facts(
            now=self._clock.now(),
            reports=self._reports,
            events=self._events,
            words=self._index.words,
            used=self._used.sums,
        )

    async def run(self) -> None:
        """Until cancelled."""
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
        connector = aiohttp.TCPConnector(limit=_AT_ONCE, force_close=True)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session:
            while True:
                await self._read_reports(session)
                self._add_up()
                await self._ask()
                self._notice_time()
                self.first.set()
                await self._clock.sleep(_LOOK_SECONDS)

    async def _read_reports(self, session: aiohttp.ClientSession) -> None:
        asked = {each["metadata"]["uid"]: each for each in self._telling()}
        for uid in self._reports.keys() - asked.keys():
            del self._reports[uid]
            self._usages.pop(uid, None)
        async with asyncio.TaskGroup() as group:
            for uid, pod in asked.items():
                group.create_task(self._read(session, uid, pod))

    def _telling(self) -> Iterator[Object]:
        """Pods that run and can be asked."""
        compared = self._compared()
        for what, _, pods in self._index.all():
            if reports(what.work) and (what.work.serve is None or what.name in compared):
                yield from (pod for pod in pods if observe.tells(pod) and pod.get("status", {}).get("podIP"))

    async def _read(self, session: aiohttp.ClientSession, uid: str, pod: Object) -> None:
        """The latest report; one that cannot be had now leaves what was known."""
        ip = pod["status"]["podIP"]
        host = f"[{ip}]" if ":" in ip else ip
        async with self._turns:
            try:
                async with session.get(f"http://{host}:{REPORT_PORT}/report", allow_redirects=False) as answer:
                    data = await answer.content.read(wire.MAX_BYTES + 1) if answer.status == 200 else b""
                    while data and len(data) <= wire.MAX_BYTES and (more := await answer.content.read(wire.MAX_BYTES)):
                        data += more
                report = wire.decode(data) if data else None
            except (aiohttp.ClientError, TimeoutError, OSError, UserError) as error:
                log.debug("the report of pod %s: %s", pod["metadata"]["name"], error)
                return
        if report is None:
            return
        if used := observe.used(report):
            self._usages[uid] = used
        told = replace(report, usage=UNSET)  # which is another one at each look, and no news
        if told != self._reports.get(uid):
            self._reports[uid] = told
            self._index.tell_of(pod)

    def _add_up(self) -> None:
        """Those who serve are left out: too many would be asked for this alone."""
        workloads, standing = set(), set()
        for what, held, pods in self._index.all():
            if what.work.serve is not None:
                continue
            workload = held["metadata"]["uid"]
            workloads.add(workload)
            for pod in pods:
                uid = pod["metadata"]["uid"]
                standing.add(uid)
                for restarts, used in observe.usages(pod, self._usages.get(uid)):
                    self._used.tell(workload, uid, restarts, used)
        self._used.add_up(workloads, standing)

    async def _ask(self) -> None:
        """The latest warning about each thing that is stuck."""
        now = self._clock.now()
        stuck = {each["metadata"]["uid"]: each for each in self._stuck(now)}
        for known in (self._events, self._asked):
            for uid in known.keys() - stuck.keys():
                del known[uid]
        due = [uid for uid in stuck if now - self._asked.get(uid, 0.0) >= _ASK_SECONDS]
        for uid in sorted(due, key=lambda each: self._asked.get(each, 0.0))[:_MOST_ASKED]:
            self._asked[uid] = now
            try:
                event = await self._latest(stuck[uid], uid)
            except ModelyardError as error:
                log.info("events of %s: %s", stuck[uid]["metadata"]["name"], error)
                continue
            if event is not None and event != self._events.get(uid):
                self._events[uid] = event
                self._index.tell_of(stuck[uid])

    async def _latest(self, body: Object, uid: str) -> Event | None:
        selector = f"involvedObject.uid={uid},type=Warning"
        page = await self._client.list(EVENTS, body["metadata"]["namespace"], fieldSelector=selector, limit="50")
        found = [
            Event(
                message=str(each.get("message", "")), since=seconds(each.get("lastTimestamp") or each.get("eventTime"))
            )
            for each in page.get("items") or ()
            if each.get("reason") not in ("FailedScheduling", "BackOff", "Unhealthy", "Failed")
        ]
        return max(found, key=lambda each: each.since, default=None)

    def _stuck(self, now: float) -> Iterator[Object]:
        """Jobs that get no pod, and pods of which no container starts."""
        for _, job, pods in self._index.tasks():
            status = job.get("status", {})
            over = any(each.get("status") == "True" for each in status.get("conditions") or ())
            if not pods and not over and not job["spec"].get("suspend") and _age(job, now) > _STUCK_SECONDS:
                yield job
        for _, _, pods in self._index.all():
            yield from (pod for pod in pods if _age(pod, now) > _STUCK_SECONDS and _starts_nothing(pod))

    def _notice_time(self) -> None:
        """A stream's runner that is late is seen by nothing but the clock."""
        now = self._clock.now()
        late = set()
        for what, _, pods in self._index.units():
            if what.work.stream is None:
                continue
            for pod in pods:
                running = main_status(pod).get("state", {}).get("running")
                if running and now - seconds(running.get("startedAt")) >= what.startup_timeout_seconds:
                    uid = pod["metadata"]["uid"]
                    late.add(uid)
                    if uid not in self._late:
                        self._index.tell_of(pod)
        self._late = late


def _age(body: Object, now: float) -> float:
    return now - seconds(body["metadata"].get("creationTimestamp"))


def _starts_nothing(pod: Object) -> bool:
    """Placed, and all of its containers wait."""
    if pod.get("status", {}).get("phase") != "Pending" or not pod.get("spec", {}).get("nodeName"):
        return False
    return all("waiting" in each.get("state", {}) for each in statuses(pod))

"""Stored Deployments, ReplicaSets, Jobs and Pods -> what is observed. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import UNSET

from modelyard.base.conditions import Reason
from modelyard.control.drivers import rules
from modelyard.control.drivers.kube import trouble as troubles
from modelyard.control.drivers.kube.trouble import Event, condition, main_status, seconds
from modelyard.control.ir import names
from modelyard.control.ir.observed import (
    MemberState,
    ObservedMember,
    ObservedReplica,
    ObservedTask,
    ObservedUnit,
    ReplicaState,
    Trouble,
    Usage,
)
from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Unit
from modelyard.control.render.kube_container import HTTP_PORT, INDEX_ANNOTATION, MAIN, PROGRAM, PROGRESS
from modelyard.wire.report import Report, failure

Object = dict[str, Any]
_WORKERS = frozenset({MAIN, PROGRAM})
_NONE: Mapping[str, Any] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What no stored object says. reports: the latest of pods that run; events: complaints about objects; words: the
    latest trouble of a Job whose pods may be gone. used: by all pods of a workload. All by uid."""

    now: float
    reports: Mapping[str, Report] = field(default_factory=dict)
    events: Mapping[str, Event] = field(default_factory=dict)
    words: Mapping[str, Trouble] = field(default_factory=dict)
    used: Mapping[str, Usage] = field(default_factory=dict)


def unit(what: Unit, workload: Object, pods: Iterable[Object], facts: Facts) -> ObservedUnit:
    """A Deployment or ReplicaSet and its pods."""
    standing = sorted((pod for pod in pods if not _is_over(pod)), key=_age)
    members = [_replica(what, pod, facts) for pod in standing]
    asked = asked_for(workload)
    refused = condition(workload, "ReplicaFailure")
    if refused.get("status") == "True" and len(members) < (workload["spec"].get("replicas") or 0):
        told = troubles.refusal(refused.get("message", ""), seconds(refused.get("lastTransitionTime")))
        name = f"{workload['metadata']['name']}-missing"
        members.append(ObservedReplica(name=name, state=ReplicaState.PENDING, trouble=told))
    usage = facts.used.get(workload["metadata"].get("uid", ""), Usage())
    return ObservedUnit(unit=what, replicas=asked, begun=begun(workload), members=tuple(members), usage=usage)


def asked_for(workload: Object) -> int:
    """How many were last asked for: none of one that is being deleted."""
    if is_going(workload):
        return 0
    text = annotation(workload, names.ANNOTATION_ASKED)
    return int(text) if text.isdecimal() else 0


def begun(workload: Object) -> tuple[int, ...]:
    """As in `DesiredUnit`."""
    text = annotation(workload, names.ANNOTATION_BEGUN)
    return tuple(int(each) for each in text.split(",") if each.isdecimal())


def task(what: Task, job: Object, pods: Iterable[Object], facts: Facts) -> ObservedTask:
    """A Job and its pods."""
    known = sorted(pods, key=_age)
    uid = job["metadata"]["uid"]
    started = seconds(job["metadata"].get("creationTimestamp"))
    counted = 0 if what.gang else job.get("status", {}).get("failed") or 0
    end = end_of(job)
    if what.gang and end is not None and is_to_be_replaced(job, known):
        end, counted = None, int(not was_disrupted(job))
    known_by = ObservedTask(
        name=what.name,
        owner=what.owner,
        attempt=what.attempt,
        parallelism=asked_for(job) if what.restart else what.parallelism,
        started_at=started,
        failures=counted if what.restart else 0,
        usage=facts.used.get(uid, Usage()),
    )
    if end is None:
        members = () if is_going(job) else tuple(_members(what, job, known, facts))
        return msgspec.structs.replace(known_by, members=members)
    report, message = _result(what, end, known, facts.words.get(uid))
    finished_at = seconds(end.get("lastTransitionTime")) or facts.now
    # Nobody has looked yet since the last pod ended.
    left = rules.total(usage for pod in known for _, usage in usages(pod))
    usage = max(known_by.usage, left, key=lambda each: each.cpu_seconds)
    return msgspec.structs.replace(known_by, finished_at=finished_at, report=report, message=message, usage=usage)


def end_of(job: Object) -> Object | None:
    """The condition that says that it is over."""
    return next((found for kind in ("Complete", "Failed") if (found := _true(job, kind))), None)


def is_to_be_replaced(job: Object, pods: Iterable[Object]) -> bool:
    """Of a gang's Job that is over: whether all members are made anew, since one failed in a way that may heal."""
    end = end_of(job)
    if end is None or end["type"] == "Complete":
        return False
    reports = (_left(pod) for pod in pods if _is_over(pod))
    return not any(each and each.failure is not None and not each.failure.retry for each in reports)


def was_disrupted(job: Object) -> bool:
    """Whether it was the cluster that ended a member of a gang, so that nobody has failed: its rule says so, and the
    pods may be gone. Source: k8s.io/kubernetes pkg/controller/job/pod_failure_policy.go."""
    end = end_of(job) or {}
    return end.get("reason") == "PodFailurePolicy" and "condition DisruptionTarget" in end.get("message", "")


def task_trouble(pods: Iterable[Object], facts: Facts) -> Trouble | None:
    """The latest of a Job's pods."""
    found = [each for pod in pods if (each := troubles.of_pod(pod, event=facts.events.get(_uid(pod))))]
    return max(found, key=lambda each: each.since, default=None)


def annotation(body: Object, name: str) -> str:
    """ "" if there is none."""
    text = (body["metadata"].get("annotations") or {}).get(name, "")
    return text if isinstance(text, str) else ""


def is_going(body: Object) -> bool:
    """Whether it was deleted, and only what hangs on it is awaited."""
    return bool(body["metadata"].get("deletionTimestamp"))


def used(report: Report | None) -> Usage | None:
    """What a report says about that."""
    told = report.usage if report else UNSET
    if told is UNSET:
        return None
    return Usage(cpu_seconds=told.cpu_seconds, memory_byte_seconds=told.memory_byte_seconds)


def usages(pod: Object, latest: Usage | None = None) -> Iterator[tuple[int, Usage]]:
    """How often the container that works was started again, and what it used then, in order; as far as it is known.

    latest: what it has told while it runs.
    """
    status = main_status(pod)
    restarts = status.get("restartCount") or 0
    for state, count in (("lastState", restarts - 1), ("state", restarts)):
        left = used(troubles.last_report({"name": MAIN, "state": status.get(state, _NONE)}))
        if left is not None:
            yield count, left
    if latest is not None and runs(pod):
        yield restarts, latest


def runs(pod: Object) -> bool:
    """Whether its container works and may be asked."""
    return "running" in main_status(pod).get("state", _NONE)


def tells(pod: Object) -> bool:
    """Whether a container runs that gives the latest report: what does the work, or what stands beside a program."""
    known = ("running" in each.get("state", _NONE) for each in troubles.statuses(pod) if each["name"] == PROGRESS)
    return runs(pod) or any(known)


def _replica(what: Unit, pod: Object, facts: Facts) -> ObservedReplica:
    status = main_status(pod)
    running = status.get("state", _NONE).get("running")
    report = facts.reports.get(_uid(pod)) if running else None
    state = _state(what, pod, report)
    ready = state is ReplicaState.READY
    listens = ready and what.work.serve is not None
    started = seconds(running.get("startedAt")) if running else 0.0
    wrong = None if ready or state is ReplicaState.DRAINING else _replica_trouble(what, pod, facts, report)
    return ObservedReplica(
        name=pod["metadata"]["name"],
        state=state,
        address=_address(pod) if listens else "",
        zone=_zone(pod) if listens else "",
        started_at=started,
        restarts=status.get("restartCount") or 0,
        report=report if report and (what.work.serve is None or rules.compares(report)) else None,
        trouble=wrong,
    )


def _state(what: Unit, pod: Object, report: Report | None) -> ReplicaState:
    if is_going(pod):
        return ReplicaState.DRAINING
    if condition(pod, "PodScheduled").get("status") != "True":
        return ReplicaState.PENDING
    ready = condition(pod, "Ready").get("status") == "True"
    if what.work.stream is not None:
        ready = report is not None and report.stream is not None and report.stream.ready
    if ready:
        return ReplicaState.READY
    backs_off = any(
        (each.get("state", _NONE).get("waiting") or {}).get("reason")
        not in (None, "PodInitializing", "ContainerCreating")
        for each in troubles.statuses(pod)
    )
    return ReplicaState.PENDING if backs_off else ReplicaState.STARTING


def _replica_trouble(what: Unit, pod: Object, facts: Facts, report: Report | None) -> Trouble | None:
    """A stream's runner that is not ready in time is not ended: it says why, or this does."""
    follows = what.work.stream is not None
    startup = 0.0 if follows else what.startup_timeout_seconds
    found = troubles.of_pod(pod, startup_seconds=startup, event=facts.events.get(_uid(pod)))
    running = main_status(pod).get("state", _NONE).get("running")
    if found is None and follows and running and not rules.says_why(report):
        due = seconds(running.get("startedAt")) + what.startup_timeout_seconds
        if facts.now >= due:
            message = f"is not ready after {what.startup_timeout_seconds:g} s"
            return Trouble(reason=Reason.STARTUP_TIMEOUT, message=message, since=due)
    return found


def _members(what: Task, job: Object, pods: Sequence[Object], facts: Facts) -> Iterable[ObservedMember]:
    """One for each index, whether there is a pod for it now or not."""
    short = job["metadata"]["name"]
    active = {_index(pod): pod for pod in pods if not _is_over(pod)}
    failed = {_index(pod): pod for pod in pods if _is_over(pod)}
    waits = _waits(what, job, facts)
    for index in sorted({*range(asked_for(job)), *active}):
        name = f"{short}-{index}" if what.restart else short
        before = troubles.of_pod(failed[index]) if index in failed else None
        pod = active.get(index)
        if pod is None:
            yield ObservedMember(name=name, state=MemberState.PENDING, trouble=waits or before)
            continue
        own = troubles.of_pod(pod, event=facts.events.get(_uid(pod)))
        report = facts.reports.get(_uid(pod)) if tells(pod) else None
        yield ObservedMember(name=name, state=_member_state(pod), report=report, trouble=own or before)


def _member_state(pod: Object) -> MemberState:
    if is_going(pod):
        return MemberState.ENDING
    works = any("running" in each.get("state", _NONE) for each in troubles.statuses(pod) if each["name"] in _WORKERS)
    return MemberState.RUNNING if works else MemberState.PENDING


def _waits(what: Task, job: Object, facts: Facts) -> Trouble | None:
    """Why there is no pod."""
    event = facts.events.get(job["metadata"]["uid"])
    if event is not None:
        return troubles.refusal(event.message, event.since)
    suspended = _true(job, "Suspended")
    if suspended and what.pod.queue:
        told = f"waits until Kueue has room in queue {what.pod.queue}"
        return Trouble(reason=Reason.UNSCHEDULABLE, message=told, since=seconds(suspended.get("lastTransitionTime")))
    return None


def _result(what: Task, end: Object, pods: Sequence[Object], words: Trouble | None) -> tuple[Report | None, str]:
    """What an ended Job has left: a report, or why there is none."""
    good = end["type"] == "Complete"
    phase = "Succeeded" if good else "Failed"
    left = [_left(pod) for pod in reversed(pods) if pod.get("status", {}).get("phase") == phase]
    found = [each for each in left if each is not None]
    if what.gang and good:
        first = min((pod for pod in pods if _left(pod)), key=_index, default=None)
        report = _left(first) if first else None
    elif good or not what.restart:
        report = next((each for each in found if each.failure is None or not good), None)
    else:
        report = next((each for each in found if each.failure is not None and not each.failure.retry), None)
    if report is not None:
        return report, ""
    if good:
        return None, "it ended well and left no report"
    if end.get("reason") == "DeadlineExceeded":
        told = f"; {words.reason}: {words.message}" if words else ""
        return None, f"took longer than {what.deadline_seconds:g} s and was ended{told}"
    trouble = next((each for pod in reversed(pods) if (each := troubles.of_pod(pod))), words)
    if trouble is not None:
        return failure(trouble.reason, trouble.message, retry=not what.restart), ""
    return None, end.get("message") or "it failed, and Kubernetes does not say why"


def _left(pod: Object) -> Report | None:
    return next((found for each in troubles.statuses(pod) if (found := troubles.last_report(each))), None)


def _index(pod: Object) -> int:
    text = annotation(pod, INDEX_ANNOTATION)
    return int(text) if text.isdecimal() else 0


def _is_over(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def _age(pod: Object) -> tuple[str, str]:
    return pod["metadata"].get("creationTimestamp") or "", pod["metadata"]["name"]


def _uid(pod: Object) -> str:
    return str(pod["metadata"].get("uid", ""))


def _zone(pod: Object) -> str:
    """Of its node, as the API server tells each pod from Kubernetes 1.35 on (PodTopologyLabelsAdmission)."""
    label = (pod["metadata"].get("labels") or {}).get(names.LABEL_ZONE, "")
    return label if isinstance(label, str) else ""


def _true(body: Object, kind: str) -> Object | None:
    found = condition(body, kind)
    return found if found.get("status") == "True" else None


def _address(pod: Object) -> str:
    ip = pod.get("status", {}).get("podIP", "")
    host = f"[{ip}]" if ":" in ip else ip
    return f"{host}:{HTTP_PORT}" if ip else ""

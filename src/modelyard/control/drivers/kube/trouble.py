"""What is wrong with a pod, or with making one, in the words of Kubernetes' own parts. Pure.

Source: k8s.io/kubernetes pkg/kubelet/images/types.go, pkg/kubelet/container/sync_result.go (waiting reasons);
pkg/quota and plugin/pkg/admission (refusals).
"""

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from modelyard.base import clock, quantities
from modelyard.base.conditions import Reason
from modelyard.base.errors import UserError
from modelyard.control.drivers.outcome import known
from modelyard.control.ir.observed import Trouble
from modelyard.control.render.kube_container import MAIN, PROGRAM, PROGRESS, WORKER
from modelyard.wire import report as reports
from modelyard.wire.report import Report

Object = dict[str, Any]
_IMAGE = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreStartHookError"})
_NO_SECRET = re.compile(r"secret \"?[^ \"]+\"? not found|couldn't find key \S+ in Secret", re.IGNORECASE)
_QUOTA = re.compile(r"exceeded quota|failed quota|(?:maximum|minimum) \S+ (?:usage|limit|request)|must specify limits")
_EARLY_SECONDS = 2.0
_SLACK_SECONDS = 20.0
"""A kubelet counts periods of a probe, and what it ends has time to drain."""
_LONGEST_LOG = 1500
_ENDED_BY_KUBELET = frozenset({0, 137, 143})
_USERS = frozenset({PROGRAM, WORKER})
"""Containers of users' images: what they say is no report of ours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What somebody complained of. since: seconds since 1970."""

    message: str
    since: float


def of_pod(pod: Object, *, startup_seconds: float = 0.0, event: Event | None = None) -> Trouble | None:
    """What keeps it from working, or has ended it. startup_seconds: how long its start may take, 0: not limited."""
    unplaced = _unplaced(pod)
    if unplaced is not None:
        return unplaced
    for status in statuses(pod):
        found = _waits(status, pod) or _ended(status, pod, startup_seconds)
        if found is not None:
            return found
    if event is not None:
        reason = Reason.SECRET_NOT_FOUND if _NO_SECRET.search(event.message) else Reason.UNSCHEDULABLE
        return Trouble(reason=reason, message=event.message, since=event.since)
    return _thrown_out(pod)


def refusal(message: str, since: float) -> Trouble:
    """Why the API server lets no pod be made."""
    reason = Reason.QUOTA_EXCEEDED if _QUOTA.search(message) else Reason.POD_REFUSED
    return Trouble(reason=reason, message=message.replace("Error creating: ", "", 1), since=since)


def statuses(pod: Object) -> Iterator[Object]:
    """Of all its containers, in the order in which they start."""
    status = pod.get("status", {})
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def main_status(pod: Object) -> Object:
    """Of the container that does the work."""
    found = pod.get("status", {}).get("containerStatuses") or ()
    return next((each for each in found if each.get("name") == MAIN), {})


def condition(body: Object, kind: str) -> Object:
    """Of a stored object, {} if there is none of that type."""
    return next((each for each in body.get("status", {}).get("conditions") or () if each.get("type") == kind), {})


def seconds(timestamp: str | None) -> float:
    """Since 1970; 0 for none."""
    return clock.seconds_since_epoch(timestamp) if timestamp else 0.0


def last_report(status: Object) -> Report | None:
    """What a container left when it ended, if that is a report: it comes from untrusted code."""
    if status.get("name") in _USERS:
        return None
    for state in ("state", "lastState"):
        text = status.get(state, {}).get("terminated", {}).get("message", "")
        if text.startswith("{"):
            try:
                return reports.decode(text.encode())
            except UserError:
                return None
    return None


def _unplaced(pod: Object) -> Trouble | None:
    placed = condition(pod, "PodScheduled")
    if placed.get("status") != "False":
        return None
    message = placed.get("message") or "it waits for a machine"
    return Trouble(reason=Reason.UNSCHEDULABLE, message=message, since=seconds(placed.get("lastTransitionTime")))


def _waits(status: Object, pod: Object) -> Trouble | None:
    waiting = status.get("state", {}).get("waiting", {})
    why, message = waiting.get("reason", ""), waiting.get("message", "")
    since = seconds(pod.get("status", {}).get("startTime") or pod["metadata"].get("creationTimestamp"))
    if why in _IMAGE:
        told = f"image {status.get('image', '')}: {message or why}"
        return Trouble(reason=Reason.IMAGE_PULL_FAILED, message=told, since=since)
    if why in _CONFIG:
        reason = Reason.SECRET_NOT_FOUND if _NO_SECRET.search(message) else Reason.CRASHED
        return Trouble(reason=reason, message=f"container {status['name']}: {message or why}", since=since)
    return None


def _ended(status: Object, pod: Object, startup_seconds: float) -> Trouble | None:
    """How it ended last, unless it works again."""
    state = status.get("state", {})
    ended = state.get("terminated") or status.get("lastState", {}).get("terminated")
    works = status.get("ready") and status.get("started", True)
    if works or not ended:
        return None
    name, code, since = status["name"], ended.get("exitCode", 0), seconds(ended.get("finishedAt"))
    if code == 0 and (name != MAIN or "terminated" in state):
        return None
    if _went_along(name, state, ended):
        return None
    report = last_report(status)
    if report is not None and report.failure is not None:
        why = report.failure
        return Trouble(reason=known(why.reason, Reason.LOAD_FAILED), message=why.message, since=since)
    if ended.get("reason") == "OOMKilled":
        return Trouble(reason=Reason.OUT_OF_MEMORY, message=_too_much(name, pod), since=since)
    reason, told = Reason.PROGRAM_FAILED if name == PROGRAM else Reason.CRASHED, ending(code)
    if startup_seconds and name == MAIN and code in _ENDED_BY_KUBELET:
        reason, told = _by_kubelet(code, since - seconds(ended.get("startedAt")), startup_seconds)
    where = {MAIN: "", PROGRAM: "the program ", WORKER: "the worker "}.get(name, f"container {name}: ")
    return Trouble(reason=reason, message=f"{where}{told}{_said(ended)}", since=since)


def _went_along(name: str, state: Object, ended: Object) -> bool:
    """Whether it was ended since the container that does the work had ended, and will not be started again."""
    beside = name in (WORKER, PROGRESS) and "terminated" in state
    return beside and ended.get("exitCode") in _ENDED_BY_KUBELET and ended.get("reason") != "OOMKilled"


def _by_kubelet(code: int, lived: float, startup_seconds: float) -> tuple[Reason, str]:
    """It ended in a way in which kubelets end what fails its probes; which it was, its age tells."""
    if lived < startup_seconds - _EARLY_SECONDS:
        return Reason.CRASHED, ending(code)
    if lived <= startup_seconds + _SLACK_SECONDS:
        return Reason.STARTUP_TIMEOUT, f"was not ready within {startup_seconds:g} s and was ended"
    return Reason.CRASHED, f"{ending(code)}, perhaps by the kubelet, since it did not answer any more"


def _thrown_out(pod: Object) -> Trouble | None:
    """A pod that a kubelet has given up, for example since its disk is full."""
    status = pod.get("status", {})
    if status.get("phase") != "Failed" or not status.get("reason"):
        return None
    when = condition(pod, "DisruptionTarget").get("lastTransitionTime") or status.get("startTime")
    return Trouble(
        reason=Reason.CRASHED,
        message=f"{status['reason']}: {status.get('message', 'the machine has ended it')}",
        since=seconds(when),
    )


def _too_much(name: str, pod: Object) -> str:
    spec = pod.get("spec", {})
    containers = (*spec.get("containers", ()), *spec.get("initContainers", ()))
    own: Object = next((each for each in containers if each["name"] == name), {})
    limit = own.get("resources", {}).get("limits", {}).get("memory")
    size = f" of {quantities.bytes_text(quantities.whole(limit))}" if limit else ""
    return f"used more than its memory limit{size} and was killed"


def _said(ended: Object) -> str:
    """The end of a sentence: its last lines, which the kubelet has taken from its log."""
    text = (ended.get("message") or "").strip()
    if not text or text.startswith("{"):
        return ""
    if len(text) > _LONGEST_LOG:
        text = "... " + text[-_LONGEST_LOG:]
    return f"; its log ends with:\n{text}"


def ending(status: int) -> str:
    """For people: how a container ended."""
    if status <= 128:
        return f"ended with exit status {status}"
    try:
        return f"was ended by {signal.Signals(status - 128).name}"
    except ValueError:
        return f"ended with exit status {status}"

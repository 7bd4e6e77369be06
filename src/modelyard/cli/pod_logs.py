"""`modelyard logs --context`: what the pods of a cluster wrote, with the rights of whoever asks."""

import asyncio
import re
import sys
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import click

from modelyard.base.errors import UserError
from modelyard.cli.session import Session
from modelyard.control.ir import names
from modelyard.control.kube import resources
from modelyard.control.kube.client import ApiError
from modelyard.control.kube.resources import Resource
from modelyard.sdk import objects

Object = dict[str, Any]
_LABELS = {
    resources.MODELSERVICES: names.LABEL_SERVICE,
    resources.MODELJOBS: names.LABEL_JOB,
    resources.MODELSTREAMS: names.LABEL_STREAM,
    resources.MODELS: names.OWNER_LABELS["Model"],
}
_CONTAINERS = ("fetch", "program", "main", "commit", "worker")
"""Of Modelyard, or of the user's program; sidecars have logs of their own: kubectl logs."""
_PAUSE_SECONDS = 2.0
_MOST_LINE_BYTES = 64 * 2**10


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Whose logs. kind: None for whichever there is; revision: "" for the newest; tail: lines of each container."""

    name: str
    kind: Resource | None = None
    revision: str = ""
    tail: int | None = None
    follow: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One container. previous: its last process, since there is none now."""

    pod: str
    container: str
    previous: bool = False

    @property
    def title(self) -> str:
        """`digits-svc-00001-7d9f-x2x/main`."""
        return f"{self.pod}/{self.container}"


async def show(session: Session, wanted: Wanted) -> None:
    """Print them. Raises UserError where there are none."""
    pods = await _pods(session, wanted)
    sources = [source for pod in pods for source in containers(pod)]
    if not sources:
        raise UserError(_nothing(session, wanted, pods))
    if not wanted.follow:
        width = max(len(each.title) for each in sources)
        for each in sources:
            await _print(session, each, wanted, each.title.ljust(width) if len(sources) > 1 else "")
        return
    await _follow(session, wanted, sources)


async def _follow(session: Session, wanted: Wanted, sources: list[Source]) -> None:
    """Pods come and go."""
    async with asyncio.TaskGroup() as group:
        known: set[Source] = set()
        while True:
            for each in sources:
                if each not in known:
                    known.add(each)
                    group.create_task(_print(session, each, wanted, each.title))
            await asyncio.sleep(_PAUSE_SECONDS)
            sources = [source for pod in await _pods(session, wanted) for source in containers(pod)]


async def _pods(session: Session, wanted: Wanted) -> list[Object]:
    """Of the newest revision, run or reading."""
    for resource in (wanted.kind,) if wanted.kind else _LABELS:
        found = await _labelled(session, resource, wanted.name)
        if found:
            return newest(found, wanted.revision)
    return newest(await _reading(session, wanted))


async def _labelled(session: Session, resource: Resource, name: str) -> list[Object]:
    selector = f"{_LABELS[resource]}={name}"
    found, _ = await objects.list_all(session.client, resources.PODS, session.namespace, labelSelector=selector)
    return found


async def _reading(session: Session, wanted: Wanted) -> list[Object]:
    """Nobody has chosen the name of the Model behind an inline artifact, whose pods come before all others."""
    for resource in (wanted.kind,) if wanted.kind else _LABELS:
        body = await objects.get(session.client, resource, session.namespace, wanted.name)
        model = await objects.model_of(session.client, body) if body and resource is not resources.MODELS else None
        if model is not None:
            return await _labelled(session, resources.MODELS, model["metadata"]["name"])
    return []


def newest(pods: list[Object], revision: str = "") -> list[Object]:
    """Those of one revision or task: of the named one, or of that which was made last; sorted by name."""

    def of(pod: Object) -> str:
        labels = pod["metadata"].get("labels") or {}
        return str(labels.get(names.LABEL_UNIT) or labels.get(names.LABEL_TASK) or "")

    def age(pod: Object) -> tuple[int, str]:
        number = of(pod).rpartition("-")[2]
        isnumber = bool(re.fullmatch(r"[0-9]{5}", number))
        return int(number) if isnumber else -1, str(pod["metadata"].get("creationTimestamp") or "")

    if not pods:
        return []
    chosen = revision or of(max(pods, key=age))
    return sorted((pod for pod in pods if of(pod) == chosen), key=lambda pod: str(pod["metadata"]["name"]))


def containers(pod: Mapping[str, Any]) -> list[Source]:
    """Those that have written something, or have begun, in their order."""
    status = pod.get("status") or {}
    found = []
    for each in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        if each.get("name") not in _CONTAINERS:
            continue
        state = each.get("state") or {}
        if "running" in state or "terminated" in state:
            found.append(Source(pod=str(pod["metadata"]["name"]), container=str(each["name"])))
        elif each.get("restartCount"):
            found.append(Source(pod=str(pod["metadata"]["name"]), container=str(each["name"]), previous=True))
    return found


async def _print(session: Session, source: Source, wanted: Wanted, prefix: str) -> None:
    path = resources.PODS.path(session.namespace, source.pod, "log")
    asked = {"container": source.container}
    asked |= {"tailLines": str(wanted.tail)} if wanted.tail is not None else {}
    asked |= {"previous": "true"} if source.previous else {"follow": "true"} if wanted.follow else {}
    rest = b""
    try:
        async with aclosing(session.client.stream(path, asked)) as chunks:
            async for chunk in chunks:
                *whole, rest = (rest + chunk).split(b"\n")
                if len(rest) > _MOST_LINE_BYTES:
                    whole, rest = [*whole, rest], b""
                _echo(whole, prefix)
    except ApiError as error:
        if error.status not in (400, 404):  # 400: it has not begun or is gone; 404: the pod is gone
            raise
        click.echo(f"{source.title}: {error.message}", err=True)
    _echo([rest] if rest else [], prefix)


def _echo(lines: list[bytes], prefix: str) -> None:
    for line in lines:
        text = line.rstrip(b"\r").decode(errors="replace")
        click.echo(f"{prefix}  {text}" if prefix else text)
    sys.stdout.flush()


def _nothing(session: Session, wanted: Wanted, pods: list[Object]) -> str:
    where = f"in namespace {session.namespace}"
    if pods:
        return f"no pod of {wanted.name} {where} has begun; 'modelyard why {wanted.name}' says more"
    return (
        f"there is no pod of {wanted.name} {where}: none was made, or it is gone, and its log with it; "
        f"'modelyard why {wanted.name}' says more"
    )

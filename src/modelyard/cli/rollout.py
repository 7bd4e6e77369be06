"""Waiting until the Deployments of an installation are rolled out, with news and the causes of delays."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import click

from modelyard.base.errors import ModelyardError, RetryLater, UserError
from modelyard.cli.session import Session
from modelyard.control.kube import resources
from modelyard.control.render.install_options import GATEWAY, NAMESPACE, OPERATOR, Object
from modelyard.sdk import objects, watching

_QUIET_SECONDS = 3.0
_NEXT = {"ContainerCreating": "it waits for a volume or an image; gateways wait for the operator to make certificates"}
_NEXT_IMAGE = "build the images and load them into the nodes, or name their registry with --image-prefix"


async def wait(session: Session, seconds: float) -> None:
    """Until operator and gateway run in the version that was applied, all replicas of them.

    Raises RetryLater that says what the pods wait for when the time is over.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_until_rolled_out(session, name, seconds)) for name in (OPERATOR, GATEWAY)]
    errors = [error for task in tasks if (error := task.result()) is not None]
    if errors:
        raise type(errors[0])("\n".join(each.message for each in errors))


async def _until_rolled_out(session: Session, name: str, seconds: float) -> ModelyardError | None:
    news = _News(name)
    try:
        async with asyncio.timeout(seconds):
            following = watching.follow(session.client, resources.DEPLOYMENTS, NAMESPACE, name)
            async with aclosing(following) as changes:
                async for kind, body in changes:
                    if kind == "DELETED":
                        return UserError(f"deployment/{name} was deleted meanwhile: install again")
                    if kind != watching.SYNCED:
                        news.told(body)
                        if rolled_out(body):
                            click.echo(f"deployment/{name} is ready")
                            return None
    except TimeoutError:
        causes = await _causes(session, news.body)
        told = "\n".join(f"  {each}" for each in causes) or f"  kubectl describe pods -n {NAMESPACE} says more"
        return RetryLater(f"deployment/{name} is not ready after {seconds:g} s: {progress(news.body)}\n{told}")
    raise AssertionError("unreachable: following ends only by an exception")


class _News:
    """Says how far it is, after a while and whenever that changes."""

    def __init__(self, name: str) -> None:
        self.body: Object = {}
        self._name = name
        self._said = ""
        self._quiet_until = asyncio.get_running_loop().time() + _QUIET_SECONDS

    def told(self, body: Object) -> None:
        self.body = body
        now = progress(body)
        if now != self._said and asyncio.get_running_loop().time() > self._quiet_until:
            click.echo(f"deployment/{self._name}  {now}", err=True)
            self._said = now


def rolled_out(body: Object) -> bool:
    """Whether all replicas are of the template that was asked for, and ready, and no others are left."""
    wanted, status = int(body["spec"].get("replicas", 1)), body.get("status") or {}
    if int(status.get("observedGeneration") or 0) < int(body["metadata"].get("generation") or 0):
        return False
    counts = [int(status.get(each) or 0) for each in ("replicas", "updatedReplicas", "availableReplicas")]
    return counts == [wanted] * 3


def progress(body: Object) -> str:
    """`1 of 2 replicas are ready`."""
    if not body:
        return "nothing has been seen of it"
    wanted, status = int(body["spec"].get("replicas", 1)), body.get("status") or {}
    new, ready = int(status.get("updatedReplicas") or 0), int(status.get("availableReplicas") or 0)
    old = max(0, int(status.get("replicas") or 0) - new)
    rest = f", {old} of the version before still run{'s' if old == 1 else ''}" if old else ""
    return f"{min(ready, wanted)} of {wanted} replicas are ready{rest}"


async def _causes(session: Session, deployment: Object) -> list[str]:
    """What its pods wait for, as far as that can be seen."""
    if not deployment:
        return []
    wanted = deployment["spec"]["selector"]["matchLabels"]
    selector = ",".join(f"{key}={value}" for key, value in wanted.items())
    pods, _ = await objects.list_all(session.client, resources.PODS, NAMESPACE, labelSelector=selector)
    return [f"pod {pod['metadata']['name']}: {cause}" for pod in pods for cause in causes(pod)]


def causes(pod: Object) -> Iterator[str]:
    """Why a pod is not ready, in the words of scheduler and kubelet."""
    status: dict[str, Any] = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            yield f"{condition.get('reason')}: {condition.get('message')}"
    for container in status.get("containerStatuses") or ():
        state, last = container.get("state") or {}, container.get("lastState") or {}
        waiting, ended = state.get("waiting"), state.get("terminated") or last.get("terminated")
        if ended:
            told = (ended.get("message") or "").strip()[-500:]
            yield f"{ended.get('reason')} with status {ended.get('exitCode')}" + (f": {told}" if told else "")
        if waiting:
            reason = str(waiting.get("reason"))
            told = waiting.get("message") or _NEXT.get(reason, "")
            yield reason + (f": {told}" if told else "")
            if "ImagePull" in reason:
                yield _NEXT_IMAGE

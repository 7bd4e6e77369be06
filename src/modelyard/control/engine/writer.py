"""What the loop writes to the API server: revisions, owned Models, statuses and events."""

from collections.abc import Callable
from typing import Any

from modelyard.api import API_VERSION
from modelyard.base.errors import RetryLater
from modelyard.control.ir import names
from modelyard.control.ir.revision import Recorded
from modelyard.control.kube.client import ApiError, Client
from modelyard.control.kube.events import EventRecorder
from modelyard.control.kube.resources import (
    ACCESSPOLICIES,
    CONTROLLERREVISIONS,
    MODELJOBS,
    MODELS,
    MODELSERVICES,
    MODELSTREAMS,
    RUNTIMES,
    Resource,
)
from modelyard.control.plan.views import Event, MadeModel, Outcome
from modelyard.control.render import kube as render

Object = dict[str, Any]
RESOURCES: dict[str, Resource] = {
    "Runtime": RUNTIMES,
    "Model": MODELS,
    "ModelService": MODELSERVICES,
    "ModelJob": MODELJOBS,
    "ModelStream": MODELSTREAMS,
    "AccessPolicy": ACCESSPOLICIES,
}


class Writer:
    """Every write is a creation that may already have happened, or carries the version it was decided on.

    rendered: the pod template to record with a revision; None where there are no pods.
    """

    def __init__(
        self, client: Client, recorder: EventRecorder, *, rendered: Callable[[Recorded], Object | None] | None = None
    ) -> None:
        self._client = client
        self._rendered = rendered or _unrendered
        self._recorder = recorder
        self._written: dict[tuple[str, str, str], int] = {}

    async def write_children(self, owner: Object, outcome: Outcome) -> None:
        """Hold the owner, record new revisions and Models; forget obsolete ones, and an owner whose time is over."""
        namespace = owner["metadata"]["namespace"]
        if outcome.held:
            await self._hold(owner)
        for model in outcome.models:
            spec = model.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
            await self._create(MODELS, render.owned("Model", API_VERSION, model.name, spec, owner))
        for revision in outcome.desired.records:
            body = render.controller_revision(revision, owner, self._rendered(revision))
            await self._create(CONTROLLERREVISIONS, body)
        for name in outcome.desired.obsolete:
            await self._delete(CONTROLLERREVISIONS, namespace, name)
        for name in outcome.obsolete_models:
            await self._delete(MODELS, namespace, name)
        if outcome.made is not None:
            await self._make(namespace, outcome.made)
        if outcome.expired:
            await self._expire(owner)

    async def release(self, owner: Object) -> None:
        """Take our finalizer off an object that is being deleted. One that is gone already needs nothing."""
        kept = [each for each in _finalizers(owner) if each != names.FINALIZER_CLEAN]
        try:
            await self._finalize(owner, kept)
        except ApiError as error:
            if error.status != 404:
                raise

    async def write_status(self, owner: Object, outcome: Outcome) -> bool:
        """Write the status when it differs, and tell whether it did.

        A conflict is a RetryLater: the decision was made on an older object.
        """
        if outcome.status is None or outcome.status == owner.get("status"):
            return False
        resource = RESOURCES[owner["kind"]]
        stored = await self._client.replace_status(resource, {**owner, "status": outcome.status})
        self._written[_place(owner)] = _version(stored)
        return True

    def is_behind(self, owner: Object) -> bool:
        """Whether the watch has not yet brought our own last write: a status decided now would only be a conflict.

        Source: KEP-5504, versions of one kind can be compared.
        """
        place = _place(owner)
        if _version(owner) < self._written.get(place, 0):
            return True
        self._written.pop(place, None)
        return False

    def tell(self, owner: Object, event: Event) -> None:
        """Record an event; never waits and never fails."""
        self._recorder.record(owner, event.type, event.reason, event.message)

    async def _hold(self, owner: Object) -> None:
        if names.FINALIZER_CLEAN not in _finalizers(owner):
            await self._finalize(owner, [*_finalizers(owner), names.FINALIZER_CLEAN])

    async def _finalize(self, owner: Object, finalizers: list[str]) -> None:
        """The list as a whole, for the very version that it was decided on: others keep finalizers there, too."""
        metadata = owner["metadata"]
        resource = RESOURCES[owner["kind"]]
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"], "finalizers": finalizers}}
        try:
            stored = await self._client.patch(resource, metadata["namespace"], metadata["name"], body)
        except ApiError as error:
            if error.conflict:
                raise RetryLater(f"{resource.kind} {metadata['name']} changed in the meantime") from error
            raise
        self._written[_place(owner)] = _version(stored)

    async def _make(self, namespace: str, model: MadeModel) -> None:
        """A Model of a job's output: one that the same job has made is it, one of somebody else is left alone."""
        spec = model.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
        try:
            await self._client.create(MODELS, render.made(model.name, namespace, spec, model.annotations))
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            found = await self._client.get(MODELS, namespace, model.name)
            mine = model.annotations[names.ANNOTATION_JOB_UID]
            if (found["metadata"].get("annotations") or {}).get(names.ANNOTATION_JOB_UID) != mine:
                raise RetryLater(f"Model {model.name} exists already and is not of this job") from error

    async def _create(self, resource: Resource, body: Object) -> None:
        metadata = body["metadata"]
        try:
            await self._client.create(resource, body)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            found = await self._client.get(resource, metadata["namespace"], metadata["name"])
            if _owners(found) != _owners(body):
                # As a rule that of an earlier owner of the same name, which is about to be collected.
                raise RetryLater(f"{resource.kind} {metadata['name']} belongs to another object") from error

    async def _expire(self, owner: Object) -> None:
        """Delete the very version that was decided on: not one that was made anew under its name, nor one whose time
        was prolonged.
        """
        metadata = owner["metadata"]
        version = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        resource = RESOURCES[owner["kind"]]
        try:
            await self._client.delete(resource, metadata["namespace"], metadata["name"], preconditions=version)
        except ApiError as error:
            if error.conflict:
                raise RetryLater(f"{resource.kind} {metadata['name']} changed in the meantime") from error
            if error.status != 404:
                raise

    async def _delete(self, resource: Resource, namespace: str, name: str) -> None:
        try:
            await self._client.delete(resource, namespace, name)
        except ApiError as error:
            if error.status != 404:
                raise


def _unrendered(_revision: Recorded) -> None:
    return None


def _place(body: Object) -> tuple[str, str, str]:
    return body["kind"], body["metadata"]["namespace"], body["metadata"]["name"]


def _version(body: Object) -> int:
    """0 for a server that does not keep to the convention: then nothing is ever behind."""
    text = body["metadata"]["resourceVersion"]
    return int(text) if text.isdecimal() else 0


def _finalizers(body: Object) -> list[str]:
    return list(body["metadata"].get("finalizers") or ())


def _owners(body: Object) -> set[str]:
    return {each["uid"] for each in body["metadata"].get("ownerReferences") or ()}

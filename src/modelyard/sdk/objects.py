"""Objects on a server: apply, look, delete, and asking for a model to be read or started again."""

from collections.abc import Mapping
from typing import Any

from modelyard.base.clock import SystemClock, micro_timestamp
from modelyard.base.errors import UserError
from modelyard.control.ir import names
from modelyard.control.kube import resources
from modelyard.control.kube.client import MERGE_PATCH, ApiError, Client
from modelyard.control.kube.resources import Resource
from modelyard.sdk import merge

Object = dict[str, Any]
CREATED, CONFIGURED, UNCHANGED = "created", "configured", "unchanged"
_PAGE = "500"
_CLOCK = SystemClock()
_ACCOUNT = "serviceAccountName"
"""Of an owned Model: it is its owner's, and no part of the reference."""


def resource_of(body: Mapping[str, Any]) -> Resource:
    """Where objects of this apiVersion and kind live. Raises UserError for a kind that is not served."""
    for each in resources.ALL:
        if (body.get("apiVersion"), body.get("kind")) == (each.api_version, each.kind):
            return each
    known = ", ".join(f"{each.kind} ({each.api_version})" for each in resources.ALL)
    raise UserError(f"{body.get('apiVersion')} {body.get('kind')} is not a kind that is served; there are: {known}")


def place(body: Mapping[str, Any], default: str) -> tuple[str | None, str]:
    """Namespace (None for kinds without) and name."""
    metadata = body.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(name, str) or not name:
        raise UserError(f"{body.get('kind')}: metadata.name is required")
    if not resource_of(body).namespaced:
        return None, name
    return str(metadata.get("namespace") or default), name


async def apply(client: Client, body: Object, *, namespace: str, dry_run: bool = False) -> tuple[Object, str]:
    """Make the object as the manifest says; `namespace` where it names none. -> (stored, created|configured|unchanged).

    Fields that others set stay, fields that the last manifest had and this one has not are removed. dry_run: the server
    checks everything and stores nothing.
    """
    resource = resource_of(body)
    where, name = place(body, namespace)
    if where is not None:
        body = {**body, "metadata": {**body["metadata"], "namespace": where}}
    parameters = {"fieldValidation": "Strict", "fieldManager": "modelyard"} | ({"dryRun": "All"} if dry_run else {})
    live = await get(client, resource, where, name)
    if live is None:
        try:
            path = resource.path(where)
            return await client.request("POST", path, body=merge.annotated(body), parameters=parameters), CREATED
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            live = await client.get(resource, where, name)  # made meanwhile by somebody, or by a lost answer of ours
    change = merge.patch(live, body)
    if not change:
        return live, UNCHANGED
    path = resource.path(where, name)
    stored = await client.request("PATCH", path, body=change, parameters=parameters, content_type=MERGE_PATCH)
    return stored, CONFIGURED


async def get(client: Client, resource: Resource, namespace: str | None, name: str) -> Object | None:
    """One object, None if there is none."""
    try:
        return await client.get(resource, namespace, name)
    except ApiError as error:
        if error.status == 404:
            return None
        raise


async def list_all(
    client: Client, resource: Resource, namespace: str | None, **parameters: str
) -> tuple[list[Object], str]:
    """-> (all objects over all pages, resourceVersion to watch from)."""
    found: list[Object] = []
    token: dict[str, str] = {}
    while True:
        page = await client.list(resource, namespace, limit=_PAGE, **parameters, **token)
        for item in page.get("items") or ():
            item.setdefault("apiVersion", resource.api_version)
            item.setdefault("kind", resource.kind)
            found.append(item)
        metadata = page.get("metadata") or {}
        if not metadata.get("continue"):
            return found, str(metadata.get("resourceVersion", ""))
        token = {"continue": metadata["continue"]}


async def events(client: Client, body: Object) -> list[Object]:
    """What was told about an object, oldest first."""
    metadata = body["metadata"]
    selector = f"involvedObject.name={metadata['name']},involvedObject.kind={body['kind']}"
    listed, _ = await list_all(client, resources.EVENTS, metadata.get("namespace", "default"), fieldSelector=selector)
    mine = [
        event for event in listed if (event.get("involvedObject") or {}).get("uid") in (metadata.get("uid"), None, "")
    ]
    return sorted(mine, key=when)


def when(event: Object) -> tuple[str, int]:
    """Orders events. Time stamps have whole seconds; within one, versions tell what was written later."""
    version = str(event["metadata"].get("resourceVersion", ""))
    return str(event.get("lastTimestamp") or ""), int(version) if version.isdecimal() else 0


async def revisions(client: Client, body: Object) -> list[Object]:
    """The recorded revisions of a service or stream, oldest first."""
    metadata = body["metadata"]
    label = f"{names.LABEL_STREAM if body['kind'] == 'ModelStream' else names.LABEL_SERVICE}={metadata['name']}"
    namespace = metadata.get("namespace", "default")
    listed, _ = await list_all(client, resources.CONTROLLERREVISIONS, namespace, labelSelector=label)
    return sorted(listed, key=lambda each: int(each.get("revision", 0)))


async def delete(client: Client, resource: Resource, namespace: str | None, name: str) -> str | None:
    """Ask for the deletion. -> the uid that is going; None if there was no such object."""
    live = await get(client, resource, namespace, name)
    if live is None:
        return None
    try:
        await client.request(
            "DELETE",
            resource.path(namespace, name),
            body={
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "propagationPolicy": "Background",
                "preconditions": {"uid": live["metadata"].get("uid")},
            },
        )
    except ApiError as error:
        if error.status != 404:
            raise
    return str(live["metadata"].get("uid"))


async def restart(client: Client, resource: Resource, namespace: str, name: str) -> Object:
    """Start every process of a service or stream again, as a new revision. -> the object as it was asked."""
    return await _annotate(client, resource, namespace, name, names.ANNOTATION_RESTART)


async def refresh(client: Client, namespace: str, model: str) -> Object:
    """Read a Model's artifact again. -> the Model as it was asked; `status.prepared.refresh` will answer."""
    return await _annotate(client, resources.MODELS, namespace, model, names.ANNOTATION_REFRESH)


async def _annotate(client: Client, resource: Resource, namespace: str, name: str, annotation: str) -> Object:
    # Microseconds: two requests in one second are two.
    stamp = micro_timestamp(_CLOCK.now())
    return await client.patch(resource, namespace, name, {"metadata": {"annotations": {annotation: stamp}}})


async def suspend(client: Client, resource: Resource, namespace: str, name: str, *, suspended: bool) -> Object:
    """Stop the runners of a job or stream, or let them go on. -> the object as it was asked."""
    return await client.patch(resource, namespace, name, {"spec": {"suspend": suspended}})


def model_reference(body: Mapping[str, Any]) -> Object | None:
    """What a service, stream or scoring job says about its model: a name, or an inline `uri`; None if it has none."""
    spec = body.get("spec") or {}
    found = (spec.get("score") or {}).get("model") if body.get("kind") == "ModelJob" else spec.get("model")
    return found if isinstance(found, dict) else None


async def model_of(client: Client, body: Object) -> Object | None:
    """The Model behind a service, job or stream: the one it names, or the owned one that has its inline `uri`."""
    reference = model_reference(body)
    if reference is None:
        return None
    namespace = body["metadata"].get("namespace", "default")
    if reference.get("name"):
        return await get(client, resources.MODELS, namespace, reference["name"])
    listed, _ = await list_all(client, resources.MODELS, namespace)
    inline = {key: value for key, value in reference.items() if value is not None}
    for model in listed:
        spec = {key: value for key, value in model["spec"].items() if value is not None and key != _ACCOUNT}
        if spec == inline and owned_by(model, body):
            return dict(model)
    return None


def owned_by(body: Object, owner: Object) -> bool:
    """Whether the controller of an object is this owner."""
    uid = owner["metadata"].get("uid")
    references = body["metadata"].get("ownerReferences") or ()
    return any(each.get("controller") and each.get("uid") == uid for each in references)


def main_condition(kind: str | None) -> str:
    """The type of the condition that says whether an object of a kind is as it should be."""
    return "Complete" if kind == "ModelJob" else "Ready"


def condition(body: Mapping[str, Any] | None, kind: str | None = None) -> Object:
    """That condition of an object, its main one by default; {} where nobody has said anything yet."""
    kind = kind or main_condition((body or {}).get("kind"))
    found = ((body or {}).get("status") or {}).get("conditions") or ()
    return next((each for each in found if each.get("type") == kind), {})


def is_ready(body: Mapping[str, Any] | None, generation: int = 0) -> bool:
    """Ready, or a job that is Complete; for that generation of the spec or a later one."""
    found = condition(body)
    return found.get("status") == "True" and int(found.get("observedGeneration") or 0) >= generation


def is_settled(body: Mapping[str, Any] | None, generation: int = 0) -> bool:
    """The same, or a stream that is paused as it is declared."""
    if is_ready(body, generation):
        return True
    found = condition(body, "Suspended") if (body or {}).get("kind") == "ModelStream" else {}
    return found.get("status") == "True" and int(found.get("observedGeneration") or 0) >= generation


def has_failed(body: Mapping[str, Any] | None) -> bool:
    """Whether a job has ended badly. It is never run again."""
    return condition(body, "Failed").get("status") == "True"

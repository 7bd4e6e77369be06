"""From a declared service and a prepared model to the revision that is recorded.

A revision is made when the user's inputs change: the model's content, the Runtime, resources, environment or a restart.
Not by scaling and not by the time-out, which change no process.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from modelyard.api import fields
from modelyard.api.model import Model
from modelyard.api.service import ModelService
from modelyard.base import ids
from modelyard.control.ir import names
from modelyard.control.ir.observed import Capabilities
from modelyard.control.ir.pod import PLAIN, Pod
from modelyard.control.ir.revision import Revision
from modelyard.control.ir.unit import Credential, Unit, Variable
from modelyard.control.ir.values import Key
from modelyard.control.plan import compute, local_path, pods, reference
from modelyard.control.plan.model import credentials, tensor_specs
from modelyard.control.plan.reference import Referrer
from modelyard.control.plan.runtimes import Refusal, Selection
from modelyard.control.plan.views import ServiceView
from modelyard.wire.work import ModelWork, ServeWork, WorkSpec

KIND = "ModelService"


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """Everything that a revision is made from, resolved. fetches: as in `Capabilities`."""

    model: Model
    selection: Selection
    resources: fields.Resources | None
    variables: tuple[Variable, ...]
    restart: str
    fetches: bool = False
    pod: Pod = PLAIN


def key(service: ModelService) -> Key:
    """The owner of everything that is made for a service."""
    return Key(kind=KIND, namespace=service.metadata.namespace, name=service.metadata.name)


def resolve(view: ServiceView) -> Inputs | Refusal:
    """The inputs, or the first thing that is missing."""
    spec, owner = view.service.spec, key(view.service)
    referrer = Referrer(
        namespace=owner.namespace,
        name=owner.name,
        path="spec.model",
        runtime=spec.runtime,
        account=spec.service_account_name,
        template=spec.pod_template,
    )
    wrong = refused(view.service, view.capabilities)
    found = wrong or reference.resolve(referrer, spec.model, view.models, view.runtimes)
    if isinstance(found, Refusal):
        return found
    model, selection = found
    refusal = pods.runtime_refusal(selection, spec, view.capabilities)
    if refusal is not None:
        return refusal
    account = model.spec.service_account_name or ""
    return Inputs(
        model=model,
        selection=selection,
        resources=spec.resources or selection.resources,
        variables=compute.variables(selection.env, spec.env or ()),
        restart=view.service.metadata.annotations.get(names.ANNOTATION_RESTART, ""),
        fetches=view.capabilities.fetches,
        pod=pods.pod(pods.of(spec), view.capabilities, account=account, image=selection.image),
    )


def refused(service: ModelService, capabilities: Capabilities) -> Refusal | None:
    """What the service itself says that cannot be done in this place."""
    spec = service.spec
    return pods.refusal(spec, capabilities) or local_path.of_reference(spec.model, "spec.model", capabilities)


def declared(inputs: Inputs) -> dict[str, Any]:
    """The inputs as recorded: their hash decides whether a new revision is needed.

    What only pods have is left out where there are none.
    """
    status, spec = inputs.model.status, inputs.model.spec
    return {
        "model": {
            "name": inputs.model.metadata.name,
            "digest": status.digest,
            "format": status.format,
            "trust": inputs.model.spec.trust,
            "inputs": [each.model_dump(mode="json") for each in status.inputs or ()],
            "outputs": [each.model_dump(mode="json") for each in status.outputs or ()],
        },
        "runtime": {
            "name": inputs.selection.runtime,
            "command": list(inputs.selection.command),
            "startupTimeoutSeconds": inputs.selection.startup_timeout_seconds,
        },
        "resources": inputs.resources.model_dump(mode="json", exclude_none=True) if inputs.resources else {},
        "env": [names.canonical(variable).decode() for variable in inputs.variables],
        "restart": inputs.restart,
        **({"fetch": {"uri": spec.uri, "credentials": spec.credentials}} if inputs.fetches else {}),
        **({"pod": msgspec.to_builtins(inputs.pod)} if inputs.pod is not PLAIN else {}),
    }


def record(service: ModelService, inputs: Inputs, number: int) -> Revision:
    """The revision of that number, with the unit that its processes will be."""
    owner = key(service)
    body = declared(inputs)
    name = names.revision(owner.name, number)
    resources = compute.resources(inputs.resources)
    canonical, *aliases = ids.public_ids(owner.namespace, owner.name)
    more = {"aliases": tuple(aliases), "version": str(number), "uri": fetched_from(inputs.model, inputs.fetches)}
    work = model_work(canonical, inputs.model, inputs.selection, **more)
    unit = Unit(
        name=names.unit(owner.namespace, name),
        owner=owner,
        revision=name,
        work=WorkSpec(serve=ServeWork(models=(work,), threads=compute.threads(resources))),
        variables=inputs.variables,
        credentials=keys_to(inputs.model, inputs.fetches),
        resources=resources,
        startup_timeout_seconds=inputs.selection.startup_timeout_seconds,
        pod=inputs.pod,
    )
    return Revision(name=name, owner=owner, number=number, inputs_hash=names.inputs_hash(body), inputs=body, unit=unit)


def fetched_from(model: Model, fetches: bool) -> str:
    """`ModelWork.uri`."""
    return model.spec.uri if fetches else ""


def keys_to(model: Model, fetches: bool) -> tuple[Credential, ...]:
    """What opens the place that the artifact is fetched from."""
    return credentials("model", model.spec.credentials) if fetches else ()


def model_work(name: str, model: Model, selection: Selection, **more: Any) -> ModelWork:
    """A prepared Model in the words of the runtime half. more: further fields of the work."""
    return ModelWork(
        name=name,
        digest=model.status.digest or "",
        format=model.status.format or "",
        trust=model.spec.trust or "",
        inputs=tensor_specs(model.status.inputs),
        outputs=tensor_specs(model.status.outputs),
        command=selection.command,
        **more,
    )

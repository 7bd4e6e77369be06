"""From a declared service and a prepared model to the revision that is recorded.

A revision is made when the user's inputs change: the model's content, the Runtime, resources, environment or a restart.
Not by scaling and not by the time-out, which change no process.
"""

from dataclasses import dataclass
from typing import Any

from modelyard.api import fields
from modelyard.api.model import Model
from modelyard.api.service import ModelService
from modelyard.base import ids
from modelyard.control.ir import names
from modelyard.control.ir.revision import Revision
from modelyard.control.ir.unit import Unit, Variable
from modelyard.control.ir.values import Key
from modelyard.control.plan import compute, reference
from modelyard.control.plan.model import tensor_specs
from modelyard.control.plan.reference import Referrer
from modelyard.control.plan.runtimes import Refusal, Selection
from modelyard.control.plan.views import ServiceView
from modelyard.wire.work import ModelWork, ServeWork, WorkSpec

KIND = "ModelService"


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """Everything that a revision is made from, resolved."""

    model: Model
    selection: Selection
    resources: fields.Resources | None
    variables: tuple[Variable, ...]
    restart: str


def key(service: ModelService) -> Key:
    """The owner of everything that is made for a service."""
    return Key(kind=KIND, namespace=service.metadata.namespace, name=service.metadata.name)


def resolve(view: ServiceView) -> Inputs | Refusal:
    """The inputs, or the first thing that is missing."""
    spec, owner = view.service.spec, key(view.service)
    referrer = Referrer(namespace=owner.namespace, name=owner.name, path="spec.model", runtime=spec.runtime)
    found = reference.resolve(referrer, spec.model, view.models, view.runtimes)
    if isinstance(found, Refusal):
        return found
    model, selection = found
    return Inputs(
        model=model,
        selection=selection,
        resources=spec.resources or selection.resources,
        variables=compute.variables(selection.env, spec.env or ()),
        restart=view.service.metadata.annotations.get(names.ANNOTATION_RESTART, ""),
    )


def declared(inputs: Inputs) -> dict[str, Any]:
    """The inputs as recorded: their hash decides whether a new revision is needed."""
    status = inputs.model.status
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
    }


def record(service: ModelService, inputs: Inputs, number: int) -> Revision:
    """The revision of that number, with the unit that its processes will be."""
    owner = key(service)
    body = declared(inputs)
    name = names.revision(owner.name, number)
    resources = compute.resources(inputs.resources)
    canonical, *aliases = ids.public_ids(owner.namespace, owner.name)
    work = model_work(canonical, inputs.model, inputs.selection, aliases=tuple(aliases), version=str(number))
    unit = Unit(
        name=names.unit(owner.namespace, name),
        owner=owner,
        revision=name,
        work=WorkSpec(serve=ServeWork(models=(work,), threads=compute.threads(resources))),
        variables=inputs.variables,
        resources=resources,
        startup_timeout_seconds=inputs.selection.startup_timeout_seconds,
    )
    return Revision(name=name, owner=owner, number=number, inputs_hash=names.inputs_hash(body), inputs=body, unit=unit)


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

"""From a declared service and a prepared model to the revision that is recorded.

A revision is made when the user's inputs change: the model's content, the Runtime, resources, environment or a restart.
Not by scaling and not by the time-out, which change no process.
"""

from dataclasses import dataclass
from typing import Any

from modelyard.api import fields
from modelyard.api.model import Model, ModelSpec
from modelyard.api.service import ModelService
from modelyard.base import ids, quantities
from modelyard.base.conditions import Reason
from modelyard.control.ir import names
from modelyard.control.ir.revision import Revision
from modelyard.control.ir.unit import Resources, SecretKey, Unit, Variable
from modelyard.control.ir.values import Key
from modelyard.control.plan.model import tensor_specs
from modelyard.control.plan.runtimes import Refusal, Selection, select
from modelyard.control.plan.views import OwnedModel, ServiceView
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


def owned_model(service: ModelService) -> OwnedModel | None:
    """The Model behind an inline `spec.model.uri`, None for a Model by name."""
    reference = service.spec.model
    if reference.uri is None:
        return None
    body = reference.model_dump(exclude_none=True, exclude={"name"})
    return OwnedModel(name=names.owned_model(service.metadata.name, body), spec=ModelSpec.model_validate(body))


def resolve(view: ServiceView) -> Inputs | Refusal:
    """The inputs, or the first thing that is missing; a Model that is being read again counts with its old content."""
    spec = view.service.spec
    owned = owned_model(view.service)
    name = owned.name if owned else spec.model.name or ""
    model = next((each for each in view.models if each.metadata.name == name), None)
    if model is None:
        if owned:
            return Refusal(reason=Reason.MODEL_NOT_READY, message=f"reading {owned.spec.uri}")
        return Refusal(
            reason=Reason.MODEL_NOT_FOUND,
            message=f"spec.model.name: there is no Model {name} in namespace {view.service.metadata.namespace}; "
            "apply it or correct the name",
        )
    if model.status.digest is None or model.status.format is None:
        return _not_ready(model)
    selection = select(model.status.format, spec.runtime, view.runtimes)
    if isinstance(selection, Refusal):
        return selection
    return Inputs(
        model=model,
        selection=selection,
        resources=spec.resources or selection.resources,
        variables=_variables(selection.env, spec.env or ()),
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
    resources = _resources(inputs.resources)
    canonical, *aliases = ids.public_ids(owner.namespace, owner.name)
    model = inputs.model
    work = ModelWork(
        name=canonical,
        aliases=tuple(aliases),
        version=str(number),
        digest=model.status.digest or "",
        format=model.status.format or "",
        trust=model.spec.trust or "",
        inputs=tensor_specs(model.status.inputs),
        outputs=tensor_specs(model.status.outputs),
        command=inputs.selection.command,
    )
    unit = Unit(
        name=names.unit(owner.namespace, name),
        owner=owner,
        revision=name,
        work=WorkSpec(serve=ServeWork(models=(work,), threads=_threads(resources))),
        variables=inputs.variables,
        resources=resources,
        startup_timeout_seconds=inputs.selection.startup_timeout_seconds,
    )
    return Revision(name=name, owner=owner, number=number, inputs_hash=names.inputs_hash(body), inputs=body, unit=unit)


def _threads(resources: Resources) -> int:
    """Whole cores of the CPU limit, at least one; one without a limit, so that replicas do not fight for cores."""
    return max(1, resources.cpu_limit_millis // 1000)


def _resources(declared_resources: fields.Resources | None) -> Resources:
    if declared_resources is None:
        return Resources()
    requests = declared_resources.requests or {}
    limits = declared_resources.limits or {}
    # As Kubernetes: a limit without a request is the request, too.
    return Resources(
        cpu_request_millis=quantities.millis(requests.get("cpu", limits.get("cpu", 0))),
        cpu_limit_millis=quantities.millis(limits.get("cpu", 0)),
        memory_request_bytes=quantities.whole(requests.get("memory", limits.get("memory", 0))),
        memory_limit_bytes=quantities.whole(limits.get("memory", 0)),
        gpus=sum(quantities.whole(limits.get(name, 0)) for name in fields.GPU_RESOURCES),
    )


def _variables(*layers: tuple[fields.EnvVar, ...]) -> tuple[Variable, ...]:
    """Later layers win; sorted by name."""
    merged = {each.name: each for layer in layers for each in layer}
    return tuple(_variable(merged[name]) for name in sorted(merged))


def _variable(declared_variable: fields.EnvVar) -> Variable:
    source = declared_variable.value_from
    if source is None:
        return Variable(name=declared_variable.name, value=declared_variable.value or "")
    selector = source.secret_key_ref
    return Variable(
        name=declared_variable.name,
        secret=SecretKey(secret=selector.name, key=selector.key, optional=bool(selector.optional)),
    )


def _not_ready(model: Model) -> Refusal:
    """The Model's own reason where it has failed: that is what its owner must mend."""
    ready = next((each for each in model.status.conditions or () if each.type == "Ready"), None)
    if ready is None or ready.status != "False":
        message = f"Model {model.metadata.name}: {ready.message if ready else 'is being read'}"
        return Refusal(reason=Reason.MODEL_NOT_READY, message=message)
    reason = Reason(ready.reason) if ready.reason in Reason.__members__.values() else Reason.MODEL_NOT_READY
    return Refusal(reason=reason, message=f"Model {model.metadata.name}: {ready.message}")

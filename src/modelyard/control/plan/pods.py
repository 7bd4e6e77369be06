"""What pods have that processes of one machine do not: what is recorded of it, and what is refused or has no effect."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from modelyard.api import fields
from modelyard.api.job import ModelJobSpec
from modelyard.api.model import ModelSpec
from modelyard.api.pod import PodTemplate
from modelyard.api.service import ModelServiceSpec
from modelyard.api.stream import ModelStreamSpec
from modelyard.base import quantities
from modelyard.base.conditions import Reason
from modelyard.base.errors import FieldError
from modelyard.control.ir.observed import Capabilities
from modelyard.control.ir.pod import PLAIN, Pod
from modelyard.control.plan import pod_template, runtimes
from modelyard.control.plan.runtimes import Refusal, Selection

Spec = ModelServiceSpec | ModelJobSpec | ModelStreamSpec | ModelSpec
POD = "pod"
"""Of `Capabilities.supports`."""
_LONGEST = 16_384
_TEMPLATE = "spec.podTemplate"
_COUNTED_HERE = ("cpu", "memory", *fields.GPU_RESOURCES)
_SELECTING = ("runtimeClassName", "resourceClaims")
"""Fields without which what is declared would run otherwise than its author thinks: unshielded, or without devices."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Demands:
    """What a spec says about pods. resources: of the spec itself, not of its Runtime."""

    account: str | None
    template: dict[str, Any]
    resources: fields.Resources | None


def of(spec: Spec) -> Demands:
    """From the fields that all kinds spell alike."""
    resources = None if isinstance(spec, ModelSpec) else spec.resources
    return Demands(account=spec.service_account_name, template=overlay(spec.pod_template), resources=resources)


def overlay(template: PodTemplate | None) -> dict[str, Any]:
    """As declared; {} where nothing is."""
    if template is None:
        return {}
    found = template.model_dump(mode="json", by_alias=True, exclude_none=True)
    if template.spec is not None:
        found["spec"] = template.spec  # its nulls included: they are refused
    return found


def forbidden_fields(spec: Spec) -> tuple[FieldError, ...]:
    """What `podTemplate` asks for that no pod may have."""
    run = spec.run if isinstance(spec, ModelJobSpec) else None
    has_program = bool(run and run.environment and run.environment.image)
    template = overlay(spec.pod_template)
    unnamed = pod_template.worker_faults(template, worker=False) if run else ()
    return (*pod_template.faults(template, program=has_program), *unnamed)


def refusal(spec: Spec, capabilities: Capabilities) -> Refusal | None:
    """Why pods cannot be so, in this place or in any. All fields at once."""
    demands = of(spec)
    forbidden = forbidden_fields(spec)
    if forbidden:
        return _refusal(Reason.OVERLAY_FORBIDDEN, forbidden)
    if POD not in capabilities.supports:
        return _refusal(Reason.UNSUPPORTED, _impossible(demands))
    return _refusal(Reason.INVALID, _unknown_claims(demands))


def worker_refusal(selection: Selection, template: dict[str, Any], capabilities: Capabilities) -> Refusal | None:
    """Why its worker cannot run in a container of its own, or why none can be spoken of. template: the overlay."""
    unnamed = pod_template.worker_faults(template, worker=bool(selection.image))
    return runtimes.image_refusal(selection, capabilities) or _refusal(Reason.OVERLAY_FORBIDDEN, unnamed)


def runtime_refusal(selection: Selection, spec: Spec, capabilities: Capabilities) -> Refusal | None:
    """The same for what the Runtime asks for: an image, and resources where the spec itself says nothing about them."""
    wrong = worker_refusal(selection, overlay(spec.pod_template), capabilities)
    if wrong is not None:
        return wrong
    if of(spec).resources is not None or POD in capabilities.supports:
        return None
    found = _devices(selection.resources, f"Runtime {selection.runtime}: spec.resources")
    return _refusal(Reason.UNSUPPORTED, found)


def pod(demands: Demands, capabilities: Capabilities, *, account: str = "", image: str = "", queue: str = "") -> Pod:
    """What is recorded. account: of the Model, where the spec names none.

    Nothing in a place that makes no pods, where a change of it must change no process.
    """
    if POD not in capabilities.supports:
        return PLAIN
    found = Pod(service_account=demands.account or account, overlay=demands.template, image=image, queue=queue)
    return PLAIN if found == PLAIN else found


def without_effect(spec: Spec, capabilities: Capabilities) -> tuple[str, ...]:
    """Paths of what is declared and changes nothing in this place."""
    if POD in capabilities.supports:
        return ()
    demands = of(spec)
    account = ("spec.serviceAccountName",) if demands.account else ()
    template = (_TEMPLATE,) if demands.template else ()
    queue = ("spec.queue",) if isinstance(spec, ModelJobSpec) and spec.queue else ()
    return (*account, *template, *queue)


def _refusal(reason: Reason, faults: Iterable[FieldError]) -> Refusal | None:
    """All of them, as far as a condition's message can hold them."""
    told, length = [str(each) for each in faults], 0
    for index, each in enumerate(told):
        length += len(each)
        if length > _LONGEST:
            told = [*told[:index], f"and {len(told) - index} more"]
            break
    return Refusal(reason=reason, message="; ".join(told), itself=True) if told else None


def _impossible(demands: Demands) -> Iterator[FieldError]:
    """What one machine cannot do."""
    inner = demands.template.get("spec") or {}
    for name in _SELECTING:
        if inner.get(name):
            yield FieldError(f"{_TEMPLATE}.spec.{name}", "needs Kubernetes; leave it out on one machine")
    yield from _devices(demands.resources)


def _devices(resources: fields.Resources | None, path: str = "spec.resources") -> Iterator[FieldError]:
    for name, count in ((resources and resources.limits) or {}).items():
        if name not in _COUNTED_HERE and quantities.parse(count):
            message = f"is a device that needs Kubernetes; one machine has {' and '.join(fields.GPU_RESOURCES)}"
            yield FieldError(f"{path}.limits[{name!r}]", message)
    if resources and resources.claims:
        yield FieldError(f"{path}.claims", "need Kubernetes; leave them out on one machine")


def _unknown_claims(demands: Demands) -> Iterator[FieldError]:
    inner = demands.template.get("spec") or {}
    known = [each.get("name") for each in inner.get("resourceClaims") or ()]
    for index, claim in enumerate((demands.resources and demands.resources.claims) or ()):
        if claim.name not in known:
            message = f"there is no claim {claim.name} in {_TEMPLATE}.spec.resourceClaims"
            yield FieldError(f"spec.resources.claims[{index}].name", message)

"""From a reference to a model, in a service, job or stream, to the prepared Model and the way to run it."""

from dataclasses import dataclass
from typing import Any

from modelyard.api.model import Model, ModelSpec
from modelyard.api.pod import PodTemplate
from modelyard.api.runtime import Runtime
from modelyard.api.service import ModelReference
from modelyard.base.conditions import Reason
from modelyard.control.ir import names
from modelyard.control.plan.runtimes import Refusal, Selection, select
from modelyard.control.plan.views import OwnedModel

_PLACING = (
    *("nodeSelector", "tolerations", "affinity", "schedulerName", "priorityClassName", "preemptionPolicy"),
    *("runtimeClassName", "securityContext", "hostUsers", "imagePullSecrets", "dnsPolicy", "dnsConfig"),
)
"""Fields of a template that say where and how shielded a pod runs, whatever is in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Referrer:
    """Who refers. path: of the reference in its spec, for messages. runtime: the Runtime it names, if it does.

    account: the ServiceAccount of its own, under which an inline artifact is fetched; template: of its pods.
    """

    namespace: str
    name: str
    path: str
    runtime: str | None
    account: str | None = None
    template: PodTemplate | None = None


def owned_model(
    owner: str, reference: ModelReference, account: str | None = None, template: PodTemplate | None = None
) -> OwnedModel | None:
    """The Model behind an inline `uri`, None for a Model by name. account: under which it is fetched. template: of the
    pods that run it."""
    if reference.uri is None:
        return None
    body = reference.model_dump(exclude_none=True, exclude={"name"})
    if account:
        body["service_account_name"] = account
    if (reading := _reading(template)) is not None:
        body["pod_template"] = reading
    return OwnedModel(name=names.owned_model(owner, body), spec=ModelSpec.model_validate(body))


def _reading(template: PodTemplate | None) -> dict[str, Any] | None:
    """What of it holds for the pod that reads the artifact, which loads it once and has no volumes of its own."""
    found = template.model_dump(mode="json", exclude_none=True) if template else {}
    spec = {name: value for name, value in found.pop("spec", {}).items() if name in _PLACING}
    found = {**found, **({"spec": spec} if spec else {})}
    return found or None


def resolve(
    referrer: Referrer, reference: ModelReference, models: tuple[Model, ...], runtimes: tuple[Runtime, ...]
) -> tuple[Model, Selection] | Refusal:
    """The Model and how it runs, or the first thing that is missing.

    A Model that is being read again counts with its old content.
    """
    owned = owned_model(referrer.name, reference, referrer.account, referrer.template)
    name = owned.name if owned else reference.name or ""
    model = next((each for each in models if each.metadata.name == name), None)
    if model is None:
        if owned:
            return Refusal(reason=Reason.MODEL_NOT_READY, message=f"reading {owned.spec.uri}")
        return Refusal(
            reason=Reason.MODEL_NOT_FOUND,
            message=f"{referrer.path}.name: there is no Model {name} in namespace {referrer.namespace}; "
            "apply it or correct the name",
        )
    if model.status.digest is None or model.status.format is None:
        return _not_ready(model)
    beside = f"{referrer.path.rpartition('.')[0]}.runtime"
    selection = select(model.status.format, referrer.runtime, runtimes, path=beside)
    return selection if isinstance(selection, Refusal) else (model, selection)


def obsolete_models(models: tuple[Model, ...], uid: str, needed: set[str]) -> tuple[str, ...]:
    """Names of those Models that belong to the object of that uid and that nothing of it names any more."""
    return tuple(
        model.metadata.name
        for model in models
        if model.metadata.name not in needed
        and any(each.controller and each.uid == uid for each in model.metadata.owner_references)
    )


def _not_ready(model: Model) -> Refusal:
    """The Model's own reason where it has failed: that is what its owner must mend."""
    ready = next((each for each in model.status.conditions or () if each.type == "Ready"), None)
    if ready is None or ready.status != "False":
        message = f"Model {model.metadata.name}: {ready.message if ready else 'is being read'}"
        return Refusal(reason=Reason.MODEL_NOT_READY, message=message)
    reason = Reason(ready.reason) if ready.reason in Reason.__members__.values() else Reason.MODEL_NOT_READY
    return Refusal(reason=reason, message=f"Model {model.metadata.name}: {ready.message}")

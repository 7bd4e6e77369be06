"""Our CustomResourceDefinitions as objects that can be read, listed and watched, and never written by a client."""

from collections.abc import Sequence
from typing import Any

from modelyard.base.clock import Clock, timestamp
from modelyard.control.apiserver.database import Range
from modelyard.control.apiserver.kinds import Column, Kind
from modelyard.control.apiserver.objects import Objects, decoded
from modelyard.control.apiserver.store import Store

Object = dict[str, Any]
KIND = Kind(
    group="apiextensions.k8s.io",
    version="v1",
    kind="CustomResourceDefinition",
    plural="customresourcedefinitions",
    singular="customresourcedefinition",
    list_kind="CustomResourceDefinitionList",
    short_names=("crd", "crds"),
    categories=("api-extensions",),
    namespaced=False,
    schema=None,
    columns=(Column("Created At", "string", ".metadata.creationTimestamp"),),
)


async def publish(store: Store, objects: Objects, crds: Sequence[Object], clock: Clock) -> None:
    """Make the stored definitions those of this release."""
    served = {crd["metadata"]["name"]: _established(crd, timestamp(clock.now())) for crd in crds}
    page = await store.page(Range(KIND.resource_name))
    for stored in page.items:
        current = decoded(stored)
        wanted = served.pop(stored.key.name, None)
        if wanted is None:
            gone = {**current["metadata"], "deletionTimestamp": timestamp(clock.now())}
            await objects.put(KIND, stored, {**current, "metadata": gone})
        elif wanted["spec"] != current["spec"]:
            await objects.put(KIND, stored, {**current, "spec": wanted["spec"]})
    for body in served.values():
        await objects.establish(KIND, body)


def _established(crd: Object, now: str) -> Object:
    def condition(kind: str, reason: str, message: str) -> Object:
        return {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now}

    names, versions = crd["spec"]["names"], crd["spec"]["versions"]
    return {
        **crd,
        "status": {
            "acceptedNames": names,
            "storedVersions": [each["name"] for each in versions if each.get("storage")],
            "conditions": [
                condition("NamesAccepted", "NoConflicts", "no conflicts found"),
                condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
            ],
        },
    }

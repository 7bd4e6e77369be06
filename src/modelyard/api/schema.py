"""The CustomResourceDefinitions, from the one definition of each kind."""

from functools import cache
from typing import Any

from pydantic import BaseModel

from modelyard.api import GROUP, VERSION, structural
from modelyard.api.access import AccessPolicy
from modelyard.api.columns import COLUMNS
from modelyard.api.job import JOB_NAME_RULES, ModelJob
from modelyard.api.model import Model
from modelyard.api.runtime import Runtime
from modelyard.api.service import NAME_RULES, ModelService
from modelyard.api.stream import STREAM_NAME_RULES, ModelStream

Definition = dict[str, Any]

KINDS: tuple[type[BaseModel], ...] = (Runtime, Model, ModelService, ModelJob, ModelStream, AccessPolicy)
SYSTEM_NAMESPACE = "modelyard-system"


LABEL_NAME_RULES = (
    ("self.metadata.name.size() <= 63", "metadata.name is at most 63 characters"),
    ("!self.metadata.name.contains('.')", "metadata.name must not contain dots: public ids are <name>.<namespace>"),
)
_SCALE = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.selector",
}


@cache
def crds() -> tuple[Definition, ...]:
    """All definitions, sorted by kind. Treat them as constants."""
    return (
        _definition(AccessPolicy, short="acp", rules=LABEL_NAME_RULES),
        _definition(Model, short="mdl", rules=LABEL_NAME_RULES),
        _definition(ModelJob, short="mjob", rules=JOB_NAME_RULES),
        _definition(ModelService, short="msvc", rules=NAME_RULES, subresources={"scale": _SCALE}),
        _definition(ModelStream, short="mstr", rules=STREAM_NAME_RULES, subresources={"scale": _SCALE}),
        _definition(Runtime, short="rt", rules=LABEL_NAME_RULES),
    )


def _definition(
    kind: type[BaseModel],
    *,
    short: str,
    rules: tuple[tuple[str, str], ...] = (),
    subresources: dict[str, Any] | None = None,
) -> Definition:
    name = kind.__name__
    plural = _plural(name)
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _root(kind, rules)},
        "subresources": {"status": {}, **(subresources or {})},
        "additionalPrinterColumns": list(COLUMNS[name]),
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": name,
                "listKind": f"{name}List",
                "plural": plural,
                "singular": name.lower(),
                "shortNames": [short],
                "categories": ["modelyard"],
            },
            "versions": [version],
        },
    }


def _plural(kind: str) -> str:
    return (kind[:-1] + "ies" if kind.endswith("y") else kind + "s").lower()


def _root(kind: type[BaseModel], rules: tuple[tuple[str, str], ...]) -> structural.Schema:
    parts = {name: _part(kind, name) for name in ("spec", "status")}
    root: structural.Schema = {
        "type": "object",
        "description": kind.__doc__,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of this representation: modelyard.dev/v1alpha1."},
            "kind": {"type": "string", "description": f"Kind of this object: {kind.__name__}."},
            "metadata": {"type": "object"},
            **{name: structural.from_model(part) for name, part in parts.items()},
        },
    }
    if rules:
        root["x-kubernetes-validations"] = [{"rule": rule, "message": message} for rule, message in rules]
    return root


def _part(kind: type[BaseModel], name: str) -> type[BaseModel]:
    part = kind.model_fields[name].annotation
    if not (isinstance(part, type) and issubclass(part, BaseModel)):
        raise TypeError(f"{kind.__name__}.{name} must be a model")
    return part

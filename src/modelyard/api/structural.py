"""pydantic's JSON Schema -> Kubernetes structural schema.

Source: KEP-2337 / CustomResourceDefinition "structural schema" rules. pydantic's own output breaks them in many ways
(`$ref`, `anyOf` with null, numeric `exclusiveMinimum`, `const`, titles); whatever has no structural form is refused
here, at build time, rather than by an API server later.
"""

from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

_KEPT = frozenset(
    {
        "type", "format", "description", "default", "enum", "minimum", "maximum", "exclusiveMinimum",
        "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern", "minItems", "maxItems",
        "minProperties", "maxProperties", "required",
    }
)  # fmt: skip
_RULES = "x-kubernetes-validations"
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]


class Unstructured(TypeError):
    """A type that no structural schema can express; the message says where."""


def from_model(model: type[BaseModel]) -> Schema:
    """The schema of a part of a kind (spec or status)."""
    raw = model.model_json_schema(by_alias=True)
    return _convert(raw, raw.get("$defs", {}), model.__name__)


def _convert(raw: Schema, definitions: Schema, path: str) -> Schema:
    raw = _resolve(raw, definitions)
    if "anyOf" in raw:
        return _int_or_string(raw, path)
    if "const" in raw:
        raw = {**raw, "enum": [raw["const"]]}
    if "oneOf" in raw or "allOf" in raw:
        raise Unstructured(f"{path}: unions are written as optional members and a CEL rule")
    out = {key: value for key, value in raw.items() if key in _KEPT or key.startswith("x-kubernetes-")}
    if "default" in out:
        out["default"] = _without_nulls(out["default"])
        if out["default"] is None:
            del out["default"]
    if "description" in out:
        out["description"] = " ".join(out["description"].split())
    if isinstance(raw.get("exclusiveMinimum"), int | float) or isinstance(raw.get("exclusiveMaximum"), int | float):
        raise Unstructured(f"{path}: use ge and le, exclusive bounds are booleans in Kubernetes")
    if "items" in raw:
        out["items"] = _convert(raw["items"], definitions, f"{path}[]")
        _refuse_defaults(out["items"], f"{path}[]")
        out.setdefault("x-kubernetes-list-type", "atomic")
    if "properties" in raw:
        out["properties"] = {
            name: _convert(value, definitions, f"{path}.{name}") for name, value in raw["properties"].items()
        }
    elif isinstance(raw.get("additionalProperties"), dict):
        out["additionalProperties"] = _convert(raw["additionalProperties"], definitions, path + "{}")
    if "type" not in out:
        raise Unstructured(f"{path}: has no single type")
    return out


def _resolve(raw: Schema, definitions: Schema) -> Schema:
    """Follow references and drop the `null` of an optional field: absent is not null in Kubernetes."""
    while True:
        if "$ref" in raw:
            target = definitions[raw["$ref"].rsplit("/", 1)[1]]
            raw = _over(target, {key: value for key, value in raw.items() if key != "$ref"})
            continue
        members = [member for member in raw.get("anyOf", ()) if member.get("type") != "null"]
        if len(members) == 1:
            raw = _over(members[0], {key: value for key, value in raw.items() if key != "anyOf"})
            continue
        if members and len(members) != len(raw["anyOf"]):
            raw = {**raw, "anyOf": members}
        return raw


def _over(kind: Schema, field: Schema) -> Schema:
    """A field says more than the type that it has; the rules of both hold."""
    both = [*kind.get(_RULES, ()), *field.get(_RULES, ())]
    return {**kind, **field, **({_RULES: both} if both else {})}


def _int_or_string(raw: Schema, path: str) -> Schema:
    if sorted(member.get("type", "") for member in raw["anyOf"]) != ["integer", "string"]:
        raise Unstructured(f"{path}: only int | str has a structural form")
    kept = {
        key: value for key, value in raw.items() if key in ("description", "pattern", "default") and value is not None
    }
    return {"anyOf": _INT_OR_STRING, "x-kubernetes-int-or-string": True, **kept}


def _without_nulls(value: Any) -> Any:
    """A default as an API server stores it: what is absent is absent. It refuses a CRD whose default holds a null."""
    if not isinstance(value, dict):
        return value
    return {name: _without_nulls(member) for name, member in value.items() if member is not None}


def _refuse_defaults(item: Schema, path: str) -> None:
    """Client-side apply would see a difference for ever where list items have defaults."""
    for name, value in item.get("properties", {}).items():
        if "default" in value and value["default"] not in ("", None):
            raise Unstructured(f"{path}.{name}: list items must not have defaults")
        value.pop("default", None)

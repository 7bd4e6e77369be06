"""OpenAPI v3 of the served kinds: what `kubectl explain` prints and `kubectl apply` and `diff` look at.

Source: KEP-2896 (OpenAPI v3): an index of group versions at /openapi/v3, each document with schemas marked by
x-kubernetes-group-version-kind. kubectl looks for the parameters fieldValidation and dryRun of the patch operations.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from modelyard.control.apiserver import core
from modelyard.control.apiserver.kinds import TOKEN_REQUEST, Kind

Object = dict[str, Any]

_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_OBJECT_META = f"{_META}.ObjectMeta"
_LIST_META = f"{_META}.ListMeta"
_GVK = "x-kubernetes-group-version-kind"
_NOT_IN_OPENAPI = "x-kubernetes-validations"
_LIST_META_SCHEMA: Object = {
    "type": "object",
    "description": "Metadata of a list.",
    "properties": {
        "resourceVersion": {"type": "string", "description": "Version of the list; a watch goes on from it."},
        "continue": {"type": "string", "description": "Token of the next page."},
        "remainingItemCount": {"type": "integer", "format": "int64", "description": "Items on later pages."},
    },
}
_PARAMETERS = {
    "dryRun": "All: go through everything and store nothing.",
    "fieldManager": "Name of the program that makes the change.",
    "fieldValidation": "What to do about unknown fields: Strict, Warn or Ignore.",
}
_PATCH_TYPES = ("application/json-patch+json", "application/merge-patch+json")


def index(kinds: Iterable[Kind]) -> Object:
    """The body of /openapi/v3: where the document of each group version is, with its hash."""
    versions: dict[str, list[Kind]] = {}
    for kind in kinds:
        versions.setdefault(_prefix(kind), []).append(kind)
    return {
        "paths": {
            prefix: {"serverRelativeURL": f"/openapi/v3/{prefix}?hash={_hash(document(members))}"}
            for prefix, members in sorted(versions.items())
        }
    }


def document(kinds: Sequence[Kind]) -> Object:
    """The document of the kinds of one group version."""
    schemas: Object = {_OBJECT_META: core.OBJECT_META, _LIST_META: _LIST_META_SCHEMA}
    paths: Object = {}
    for kind in kinds:
        schemas[_component(kind)] = _schema(kind)
        if not kind.question:
            schemas[f"{_component(kind)}List"] = _list_schema(kind)
        paths.update(_paths(kind))
        if kind.tokens:
            schemas[_component(TOKEN_REQUEST)] = _schema(TOKEN_REQUEST)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Modelyard", "version": kinds[0].version if kinds else ""},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _hash(content: Object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest().upper()


def _prefix(kind: Kind) -> str:
    return f"apis/{kind.group}/{kind.version}" if kind.group else f"api/{kind.version}"


def _component(kind: Kind) -> str:
    """`dev.modelyard.v1alpha1.ModelService`, `io.k8s.api.core.v1.Secret`."""
    if kind.custom:
        return ".".join([*reversed(kind.group.split(".")), kind.version, kind.kind])
    return f"io.k8s.api.{kind.group.partition('.')[0] or 'core'}.{kind.version}.{kind.kind}"


def _gvk(kind: Kind) -> Object:
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


def _reference(component: str) -> Object:
    return {"$ref": f"#/components/schemas/{component}"}


def _schema(kind: Kind) -> Object:
    schema: Object = _plain(kind.schema or {"type": "object", "x-kubernetes-preserve-unknown-fields": True})
    metadata = {"allOf": [_reference(_OBJECT_META)], "description": core.OBJECT_META["description"], "default": {}}
    return {**schema, "properties": {**schema.get("properties", {}), "metadata": metadata}, _GVK: [_gvk(kind)]}


def _plain(schema: Any) -> Any:
    """The schema without the rules that only the server evaluates."""
    if isinstance(schema, dict):
        return {key: _plain(value) for key, value in schema.items() if key != _NOT_IN_OPENAPI}
    return [_plain(each) for each in schema] if isinstance(schema, list) else schema


def _list_schema(kind: Kind) -> Object:
    return {
        "type": "object",
        "description": f"{kind.list_kind} is a list of {kind.kind}.",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of this representation."},
            "kind": {"type": "string", "description": "Kind of this list."},
            "metadata": {"allOf": [_reference(_LIST_META)], "description": "Metadata of the list.", "default": {}},
            "items": {"type": "array", "description": "The objects.", "items": _reference(_component(kind))},
        },
        _GVK: [{**_gvk(kind), "kind": kind.list_kind}],
    }


def _paths(kind: Kind) -> Object:
    base = f"/{_prefix(kind)}" + ("/namespaces/{namespace}" if kind.namespaced else "") + f"/{kind.plural}"
    collection = {
        "get": _operation(kind, "list", ()),
        "post": _operation(kind, "post", ("dryRun", "fieldManager", "fieldValidation")),
        "delete": _operation(kind, "deletecollection", ("dryRun",)),
    }
    single = {
        "get": _operation(kind, "get", ()),
        "put": _operation(kind, "put", ("dryRun", "fieldManager", "fieldValidation")),
        "patch": _operation(kind, "patch", ("dryRun", "fieldManager", "fieldValidation")),
        "delete": _operation(kind, "delete", ("dryRun",)),
    }
    scope = [_parameter("namespace", "path", "Namespace of the object.")] if kind.namespaced else []
    if kind.question:
        return {base: {"post": collection["post"], "parameters": scope}}
    named = [*scope, _parameter("name", "path", "Name of the object.")]
    paths: Object = {base: {**collection, "parameters": scope}, f"{base}/{{name}}": {**single, "parameters": named}}
    if kind.status:
        changing = {verb: single[verb] for verb in ("get", "put", "patch")}
        paths[f"{base}/{{name}}/status"] = {**changing, "parameters": named}
    if kind.tokens:
        asked = _operation(TOKEN_REQUEST, "post", ("dryRun", "fieldManager", "fieldValidation"))
        paths[f"{base}/{{name}}/token"] = {"post": asked, "parameters": named}
    return paths


def _operation(kind: Kind, action: str, parameters: tuple[str, ...]) -> Object:
    body = _reference(f"{_component(kind)}List" if action == "list" else _component(kind))
    operation: Object = {
        "x-kubernetes-action": action,
        _GVK: _gvk(kind),
        "parameters": [_parameter(name, "query", _PARAMETERS[name]) for name in parameters],
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": body}}}},
    }
    if action in ("post", "put"):
        operation["requestBody"] = {"content": {"application/json": {"schema": body}}}
    elif action == "patch":
        types = _PATCH_TYPES if kind.custom else (*_PATCH_TYPES, "application/strategic-merge-patch+json")
        operation["requestBody"] = {"content": {each: {"schema": {"type": "object"}} for each in types}}
    return operation


def _parameter(name: str, place: str, description: str) -> Object:
    parameter: Object = {"name": name, "in": place, "description": description, "schema": {"type": "string"}}
    return {**parameter, "required": True} if place == "path" else parameter

"""The generated CRDs keep the rules of structural schemas, and every field explains itself."""

from collections.abc import Iterator
from typing import Any

import pytest
import re2
from pydantic import BaseModel

from modelyard.api import structural
from modelyard.api.schema import crds

SCHEMAS = {d["spec"]["names"]["kind"]: d["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for d in crds()}
FORBIDDEN = {"$ref", "$defs", "const", "oneOf", "allOf", "title", "discriminator", "uniqueItems", "prefixItems"}


def _walk(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from _walk(child, f"{path}.{name}")
    for key, suffix in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(schema.get(key), dict):
            yield from _walk(schema[key], path + suffix)


EVERYTHING = [(kind + path, schema) for kind, root in SCHEMAS.items() for path, schema in _walk(root, "")]


def test_every_schema_is_structural() -> None:
    for path, schema in EVERYTHING:
        assert not FORBIDDEN & schema.keys(), path
        assert "type" in schema or schema.get("x-kubernetes-int-or-string"), path
        assert not ("properties" in schema and "additionalProperties" in schema), path
        assert schema.get("default", 0) is not None, path


def test_no_default_holds_a_null() -> None:
    """Kubernetes refuses a definition with one."""

    def holds(value: Any) -> bool:
        return value is None or (isinstance(value, dict) and any(map(holds, value.values())))

    assert [path for path, schema in EVERYTHING if "default" in schema and holds(schema["default"])] == []


def test_list_items_have_no_defaults() -> None:
    for path, schema in EVERYTHING:
        for name, child in schema.get("items", {}).get("properties", {}).items():
            assert "default" not in child, f"{path}[].{name}"


def test_every_field_explains_itself() -> None:
    silent = [
        f"{path}.{name}"
        for path, schema in EVERYTHING
        for name, child in schema.get("properties", {}).items()
        if not child.get("description") and name != "metadata"
    ]
    assert silent == []


def test_every_pattern_is_one_that_kubernetes_can_run() -> None:
    for _, schema in EVERYTHING:
        if "pattern" in schema:
            re2.compile(schema["pattern"])


def test_every_list_says_how_it_merges() -> None:
    assert [path for path, s in EVERYTHING if s.get("type") == "array" and "x-kubernetes-list-type" not in s] == []


def test_lists_and_texts_in_specs_are_bounded() -> None:
    for path, schema in EVERYTHING:
        if ".spec" in path and schema.get("type") == "array":
            assert "maxItems" in schema, path
        if ".spec" in path and schema.get("type") == "string" and "enum" not in schema:
            assert "maxLength" in schema, path


def test_all_definitions_are_small() -> None:
    assert len(str(crds())) < 100_000


def test_a_type_without_a_structural_form_is_refused_when_it_is_written() -> None:
    class Mixed(BaseModel):
        value: int | float | str

    with pytest.raises(structural.Unstructured, match=r"Mixed\.value"):
        structural.from_model(Mixed)

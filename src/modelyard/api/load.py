"""Manifests -> objects: YAML text to JSON-like documents, and documents to typed kinds. All errors at once."""

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from modelyard.api import API_VERSION
from modelyard.api.access import AccessPolicy
from modelyard.api.job import ModelJob
from modelyard.api.model import Model
from modelyard.api.runtime import Runtime
from modelyard.api.service import HEADER_PATTERN, TAG_PATTERN, ModelService
from modelyard.api.stream import FILTER_PATTERN, STREAM_PATTERN, SUBJECT_PATTERN, ModelStream
from modelyard.base import durations, ids
from modelyard.base.errors import FieldError, InvalidFields, UserError

MAX_MANIFEST_BYTES = 3 * 2**20
_MAX_DEPTH = 64
_MAX_NODES = 200_000

Declared = Runtime | Model | ModelService | ModelJob | ModelStream | AccessPolicy
_KINDS: dict[str, type[Declared]] = {
    "Runtime": Runtime,
    "Model": Model,
    "ModelService": ModelService,
    "ModelJob": ModelJob,
    "ModelStream": ModelStream,
    "AccessPolicy": AccessPolicy,
}
_SENTENCES = {
    "extra_forbidden": "unknown field; remove it or correct its spelling",
    "missing": "is required",
    "string_type": "expected text; put the value in quotes",
    "int_parsing": "expected a whole number",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "model_type": "expected fields below it",
    "dict_type": "expected fields below it",
    "model_attributes_type": "expected fields below it",
    "tuple_type": "expected a list",
}
_SPELLINGS = {
    durations.PATTERN: "expected a duration: numbers with units ms, s, m or h, such as 30s or 1m30s",
    ids.NAME_PATTERN: "expected lower-case letters, digits and '-', with a letter or digit at both ends",
    ids.DIGEST_PATTERN: "expected sha256: and 64 hexadecimal digits",
    TAG_PATTERN: "expected a word of lower-case letters, digits and '-' that begins with a letter",
    HEADER_PATTERN: "expected the name of a header: letters, digits and '-'",
    STREAM_PATTERN: "expected the name of a stream: letters, digits, '-' and '_'",
    SUBJECT_PATTERN: "expected a subject: words with dots between them, without blanks, * and >",
    FILTER_PATTERN: "expected a subject: words with dots between them; * stands for one word, a last > for the rest",
}


class Document(NamedTuple):
    """One object of a manifest. source: file name for messages; line: where it starts, from 1."""

    source: str
    line: int
    body: dict[str, Any]

    @property
    def subject(self) -> str:
        """`ModelService iris (serve.yaml:12)`, as far as known."""
        metadata = self.body.get("metadata")
        name = metadata.get("name", "") if isinstance(metadata, dict) else ""
        return f"{self.body.get('kind', 'object')} {name} ({self.source}:{self.line})".replace("  ", " ")


class _Loader(yaml.SafeLoader):
    """Safe YAML with JSON's types: no dates, no duplicate keys, no merge of aliases into huge documents."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "keys must be plain words", key_node.start_mark)
            if key_node.value in seen and key_node.value != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key_node.value!r} is given twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse(text: str, source: str) -> tuple[Document, ...]:
    """All documents of a manifest, `List` objects unfolded. Raises UserError with file, line and what was expected."""
    if len(text.encode()) > MAX_MANIFEST_BYTES:
        raise UserError(f"{source} is larger than {MAX_MANIFEST_BYTES // 2**20} MiB; split it into several files")
    try:
        return tuple(_documents(text, source))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise UserError(f"{source}:{line}: not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{source}: not valid YAML: {str(error) or type(error).__name__}") from error


def _documents(text: str, source: str) -> Iterator[Document]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is None:
                continue
            line = node.start_mark.line + 1
            _measure(node, source)
            body = loader.construct_document(node)
            if body is None:
                continue
            if not isinstance(body, dict):
                raise UserError(f"{source}:{line}: expected an object with apiVersion, kind, metadata and spec")
            items = body.get("items")
            if body.get("kind") == "List" and isinstance(items, list):
                yield from (Document(source, line, item) for item in items if isinstance(item, dict))
            else:
                yield Document(source, line, body)
    finally:
        loader.dispose()


def _measure(root: yaml.Node, source: str) -> None:
    """Bound the expanded size before construction: aliases make small texts huge."""
    count = 0
    stack: list[tuple[yaml.Node, int]] = [(root, 1)]
    while stack:
        node, depth = stack.pop()
        count += 1
        if depth > _MAX_DEPTH or count > _MAX_NODES:
            raise UserError(f"{source}: nested deeper than {_MAX_DEPTH} or more than {_MAX_NODES} values")
        if isinstance(node, yaml.SequenceNode):
            stack.extend((child, depth + 1) for child in node.value)
        elif isinstance(node, yaml.MappingNode):
            stack.extend((child, depth + 1) for pair in node.value for child in pair)


def decode(body: Mapping[str, Any]) -> Declared:
    """A typed object. Raises InvalidFields with every violated field, UserError for a kind that is not ours."""
    kind = _KINDS.get(str(body.get("kind")))
    if kind is None or body.get("apiVersion") != API_VERSION:
        raise UserError(
            f"{body.get('apiVersion')} {body.get('kind')} is not a kind of Modelyard; expected {API_VERSION} "
            f"with kind {', '.join(_KINDS)}"
        )
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        name = body.get("metadata", {}).get("name", "") if isinstance(body.get("metadata"), dict) else ""
        raise InvalidFields(f"{body.get('kind')} {name}", field_errors(error)) from error


def field_errors(error: ValidationError) -> tuple[FieldError, ...]:
    """pydantic's findings as paths and sentences, each path once."""
    items = error.errors()
    places = {item["loc"] for item in items}
    found = (
        FieldError(_path(item["loc"]), _sentence(item["type"], item["msg"], item.get("ctx") or {}))
        for item in items
        # A list of which every item is wrong counts as empty to pydantic.
        if item["type"] != "too_short" or not any(each[:-1] == item["loc"] for each in places)
    )
    return tuple(dict.fromkeys(found))


def _path(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part not in ("int", "str"):  # branches of int-or-string
            text += f".{part}" if text else part
    return text


def _sentence(kind: str, message: str, context: Mapping[str, Any]) -> str:
    if kind == "string_pattern_mismatch" and context.get("pattern") in _SPELLINGS:
        return _SPELLINGS[context["pattern"]]
    if kind in ("too_short", "too_long"):
        few = kind == "too_short"
        count = context["min_length" if few else "max_length"]
        return f"expected at {'least' if few else 'most'} {count} item{'s' if count > 1 else ''}"
    if kind in _SENTENCES:
        return _SENTENCES[kind]
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]

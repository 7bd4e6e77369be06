"""Everything that is wrong with manifests, each with its file and line, before anything is sent."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from modelyard.api import load
from modelyard.api.job import ModelJob
from modelyard.api.load import Document
from modelyard.api.model import Model
from modelyard.api.service import ModelService
from modelyard.api.stream import ModelStream
from modelyard.base.errors import FieldError, UserError
from modelyard.control.apiserver.check import check
from modelyard.control.plan import pods, stream_work
from modelyard.sdk import objects
from modelyard.sdk.manifests import Manifests

_HAVE_PODS = (Model, ModelService, ModelJob, ModelStream)
_STEP = re.compile(r"[^.\[\]]+")


def refuse_faults(manifests: Manifests, namespace: str) -> None:
    """Raises UserError with all faults of all files, one line each."""
    faults = [*_wrong(manifests), *_repeated(manifests, namespace)]
    if faults:
        raise UserError(
            "\n".join([f"{len(faults)} problem{'s' if len(faults) > 1 else ''} in the manifests:", *faults])
        )


def _wrong(manifests: Manifests) -> Iterator[str]:
    for document in manifests.documents:
        for error in check(document.body) or _planned(document.body):
            yield _sentence(manifests.texts, document, error)


def _planned(body: Mapping[str, Any]) -> list[FieldError]:
    """What no schema can say, and what would otherwise be found out only when the object is planned."""
    spec = body.get("spec")
    if body.get("kind") != stream_work.KIND and not (isinstance(spec, dict) and "podTemplate" in spec):
        return []
    found = load.decode(body)
    errors = stream_work.faults(found.spec) if isinstance(found, ModelStream) else ()
    forbidden = pods.forbidden_fields(found.spec) if isinstance(found, _HAVE_PODS) else ()
    return [*(error for _, error in errors), *forbidden]


def _repeated(manifests: Manifests, namespace: str) -> Iterator[str]:
    """Of two declarations of one object the last would win silently."""
    seen: dict[tuple[str, str | None, str], Document] = {}
    for document in manifests.documents:
        try:
            where, name = objects.place(document.body, namespace)
        except UserError:
            continue  # already said
        first = seen.setdefault((str(document.body.get("kind")), where, name), document)
        if first is not document:
            place = f"{document.source}:{document.line}"
            yield f"{place}: {document.body['kind']} {name} is declared already at {first.source}:{first.line}"


def _sentence(texts: Mapping[str, str], document: Document, error: FieldError) -> str:
    metadata = document.body.get("metadata")
    name = metadata.get("name", "") if isinstance(metadata, dict) else ""
    subject = f"{document.body.get('kind', 'object')} {name}".strip()
    line = line_of(texts.get(document.source, ""), document.line, error.path)
    field = f"{error.path}: " if error.path else ""
    return f"{document.source}:{line}: {subject}: {field}{error.message}"


def line_of(text: str, start: int, path: str) -> int:
    """The line, from 1, of the field `path` in the document that starts at line `start`; of its nearest parent else."""
    try:
        roots = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError:
        return start
    node = next((each for each in roots if each.start_mark.line + 1 == start), None)
    line = start
    for step in _STEP.findall(path):
        below = _below(node, step)
        if below is None:
            break
        mark, node = below
        line = mark.start_mark.line + 1
    return line


def _below(node: yaml.Node | None, step: str) -> tuple[yaml.Node, yaml.Node] | None:
    """-> (the node whose line counts, the value)."""
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == step), None)
    if isinstance(node, yaml.SequenceNode) and step.isdecimal() and int(step) < len(node.value):
        value = node.value[int(step)]
        return value, value
    return None

"""Manifests on disk: which files, and relative paths of artifacts in the words of the server."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.api import API_VERSION
from modelyard.api.load import MAX_MANIFEST_BYTES, Document, parse
from modelyard.base.errors import UserError
from modelyard.sdk.find import Target

Object = dict[str, Any]
STDIN = "-"
_SUFFIXES = frozenset({".yaml", ".yml", ".json"})
_PATHS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "Model": (("spec", "uri"),),
    "ModelService": (("spec", "model", "uri"),),
    "ModelStream": (("spec", "model", "uri"), ("spec", "sink", "uri")),
    "ModelJob": (
        ("spec", "score", "model", "uri"),
        ("spec", "score", "input", "uri"),
        ("spec", "score", "output", "uri"),
        ("spec", "run", "workingDir"),
        ("spec", "run", "environment", "python"),
        ("spec", "run", "output", "uri"),
        ("spec", "run", "checkpoint", "uri"),
    ),
}
"""The fields that hold paths, by kind."""


@dataclass(frozen=True, slots=True)
class Manifests:
    """All documents of several files. texts: by source, to find the line of a field."""

    documents: tuple[Document, ...]
    texts: Mapping[str, str]


def read(paths: Iterable[str]) -> Manifests:
    """Files, folders (their own manifests, by name) and `-`. Raises UserError with every fault of their YAML."""
    found: list[Document] = []
    texts: dict[str, str] = {}
    faults: list[str] = []
    for path in dict.fromkeys(_files(paths)):
        try:
            texts[path] = _text(path)
            found.extend(parse(texts[path], path))
        except UserError as error:
            faults.append(error.message)
    if faults:
        raise UserError("\n".join(faults))
    if not found:
        names = ", ".join(texts)
        raise UserError(f"there is no object in {names}; expected YAML with apiVersion, kind, metadata and spec")
    return Manifests(tuple(found), texts)


def _files(paths: Iterable[str]) -> Iterator[str]:
    for name in paths:
        path = Path(name)
        if name != STDIN and path.is_dir():
            inside = sorted(each for each in path.iterdir() if each.suffix in _SUFFIXES and each.is_file())
            if not inside:
                raise UserError(f"the folder {name} holds no manifest (*.yaml, *.yml, *.json)")
            yield from map(str, inside)
        else:
            yield name


def _text(path: str) -> str:
    try:
        if path == STDIN:
            return sys.stdin.read(MAX_MANIFEST_BYTES + 1)
        with Path(path).open(encoding="utf-8") as file:
            return file.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8; expected a manifest in YAML or JSON") from error


def for_server(document: Document, target: Target) -> Object:
    """The object as the server must read it: paths relative to the manifest become relative to the project root.

    A path outside the root becomes absolute. For a server elsewhere nothing is changed.
    """
    body = document.body
    if target.local is None or body.get("apiVersion") != API_VERSION:
        return body
    root, folder = target.local.root, _folder(document)

    def moved(path: str) -> str:
        if not is_relative(path):
            return path
        place = os.path.normpath(folder / path)
        return os.path.relpath(place, root) if Path(place).is_relative_to(root) else place

    for path in _PATHS.get(str(body.get("kind")), ()):
        body = _changed(body, path, moved)
    return body


def _changed(body: Object, path: tuple[str, ...], change: Callable[[str], str]) -> Object:
    """The body with another text in a field, if it has that field."""
    first, *rest = path
    value = body.get(first)
    if rest and isinstance(value, dict):
        return {**body, first: _changed(value, tuple(rest), change)}
    return {**body, first: change(value)} if isinstance(value, str) and not rest else body


def local_path(uri: str, target: Target) -> Path | None:
    """Where the artifact of an object that the server holds lies on this machine; None if elsewhere."""
    if target.local is None:
        return None
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://"))
    return None if "://" in uri else target.local.root / uri


def is_relative(uri: str) -> bool:
    """Whether the meaning depends on the folder it is read in."""
    return "://" not in uri and not uri.startswith("/")


def _folder(document: Document) -> Path:
    return Path.cwd() if document.source == STDIN else Path(document.source).resolve().parent

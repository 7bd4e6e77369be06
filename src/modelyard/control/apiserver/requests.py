"""What a request asks for: path, options, body, form of the answer. Pure; all that is wrong is a StatusError."""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import msgspec

from modelyard.api import load
from modelyard.base.errors import UserError
from modelyard.control.apiserver import protobuf, status, values
from modelyard.control.apiserver.kinds import Kind

Object = dict[str, Any]
Validation = Literal["Strict", "Warn", "Ignore"]
Propagation = Literal["Background", "Foreground", "Orphan"]
Include = Literal["Metadata", "Object", "None"]
MAX_BODY_BYTES = 3 * 2**20
_TRUE = frozenset({"true", "1", "t", "T", "TRUE", "True"})
_FALSE = frozenset({"", "false", "0", "f", "F", "FALSE", "False"})
_VALIDATIONS: dict[str, Validation] = {"": "Warn", "Strict": "Strict", "Warn": "Warn", "Ignore": "Ignore"}
_INCLUDES: dict[str, Include] = {"": "Metadata", "Metadata": "Metadata", "Object": "Object", "None": "None"}
_PROPAGATIONS: dict[str, Propagation] = {each: each for each in ("Background", "Foreground", "Orphan")}


@dataclass(frozen=True, slots=True)
class Catalog:
    """The kinds that are served."""

    kinds: tuple[Kind, ...]

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        """By its place in the URL."""
        for kind in self.kinds:
            if (kind.group, kind.version, kind.plural) == (group, version, plural):
                return kind
        return None

    def named(self, api_version: str, name: str) -> Kind | None:
        """By the words in an object; the version of the group does not matter."""
        group = api_version.rpartition("/")[0]
        return next((kind for kind in self.kinds if kind.group == group and kind.kind == name), None)


@dataclass(frozen=True, slots=True)
class Target:
    """namespace None: all of them, or a kind without; name None: the collection; subresource "": the object."""

    kind: Kind
    namespace: str | None = None
    name: str | None = None
    subresource: str = ""


def locate(path: str, catalog: Catalog) -> Target | None:
    """`/api/v1/...` or `/apis/<group>/<version>/...`; None when nothing is served there."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace: str | None = None
    if rest[0] == "namespaces" and len(rest) >= 3 and (group or rest[2] not in ("status", "finalize")):
        namespace, rest = rest[1], rest[2:]
    kind = catalog.find(group, version, rest[0])
    if kind is None or len(rest) > 3 or not all(parts) or (namespace is not None and not kind.namespaced):
        return None
    name = rest[1] if len(rest) > 1 else None
    if name is not None and kind.namespaced and namespace is None:
        return None
    subresource = rest[2] if len(rest) > 2 else ""
    if kind.question and name is not None:
        return None
    served = {"status": kind.status, "scale": kind.scale is not None, "token": kind.tokens, "": True}
    return Target(kind, namespace, name, subresource) if served.get(subresource) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """How to write. guard: raises a StatusError for a change that the caller may not make; given the object as it would
    be stored and what it replaces, if anything. Source: metav1.CreateOptions, UpdateOptions and PatchOptions."""

    dry_run: bool = False
    validation: Validation = "Warn"
    guard: Callable[[Object, Object | None], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteOptions:
    """How to delete. propagation None: the default, Background. Source: metav1.DeleteOptions."""

    dry_run: bool = False
    propagation: Propagation | None = None
    uid: str | None = None
    resource_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOptions:
    """What to list or watch. Source: metav1.ListOptions.

    initial_events: the watch begins with everything there is; send_initial_events: and says when that was all.
    """

    labels: str = ""
    fields: str = ""
    limit: int | None = None
    resume: tuple[int, str, str] | None = None
    revision: int | None = None
    exact: bool = False
    timeout_seconds: int | None = None
    bookmarks: bool = False
    initial_events: bool = False
    send_initial_events: bool = False


def write_options(query: Mapping[str, str]) -> WriteOptions:
    """From the query string."""
    validation = _VALIDATIONS.get(query.get("fieldValidation", ""))
    if validation is None:
        raise status.bad_request("fieldValidation: expected Strict, Warn or Ignore")
    return WriteOptions(dry_run=_dry_run([query.get("dryRun", "")]), validation=validation)


def delete_options(query: Mapping[str, str], body: Object) -> DeleteOptions:
    """From the query string and a DeleteOptions body; the body wins."""
    if body and body.get("kind") not in (None, "DeleteOptions"):
        raise status.bad_request(f"expected a body of kind DeleteOptions, not {body.get('kind')!r}")
    policy = _text(body.get("propagationPolicy"), "propagationPolicy") or query.get("propagationPolicy")
    orphan = body.get("orphanDependents")
    if policy is None and isinstance(orphan, bool):
        policy = "Orphan" if orphan else "Background"
    if policy is not None and policy not in _PROPAGATIONS:
        raise status.bad_request("propagationPolicy: expected Background, Foreground or Orphan")
    preconditions = body.get("preconditions") or {}
    dry_run = body.get("dryRun") or [query.get("dryRun", "")]
    if not isinstance(preconditions, dict) or not isinstance(dry_run, list):
        raise status.bad_request("preconditions: expected an object; dryRun: expected a list")
    return DeleteOptions(
        dry_run=_dry_run(dry_run),
        propagation=_PROPAGATIONS[policy] if policy else None,
        uid=_text(preconditions.get("uid"), "preconditions.uid"),
        resource_version=_text(preconditions.get("resourceVersion"), "preconditions.resourceVersion"),
    )


def list_options(query: Mapping[str, str]) -> ListOptions:
    """From the query string."""
    match = query.get("resourceVersionMatch", "")
    version = query.get("resourceVersion", "")
    token = query.get("continue", "")
    initial = _flag(query, "sendInitialEvents")
    if match not in ("", "Exact", "NotOlderThan"):
        raise status.bad_request("resourceVersionMatch: expected Exact or NotOlderThan")
    if match and not version and not initial:
        raise status.bad_request("resourceVersionMatch is forbidden unless resourceVersion is provided")
    if initial and match != "NotOlderThan":
        raise status.bad_request("sendInitialEvents requires resourceVersionMatch=NotOlderThan")
    if token and version not in ("", "0"):
        raise status.bad_request("specifying resourceVersion is not allowed when using continue")
    revision = _number(query, "resourceVersion")
    return ListOptions(
        labels=query.get("labelSelector", ""),
        fields=query.get("fieldSelector", ""),
        limit=_number(query, "limit") or None,
        resume=_resume(token) if token else None,
        revision=revision,
        exact=match == "Exact",
        timeout_seconds=_number(query, "timeoutSeconds") or None,
        bookmarks=_flag(query, "allowWatchBookmarks"),
        initial_events=initial or not revision,
        send_initial_events=initial,
    )


def is_watch(query: Mapping[str, str]) -> bool:
    """Whether a list request asks to follow."""
    return _flag(query, "watch")


def continue_token(revision: int, namespace: str, name: str) -> str:
    """Where the next page starts, in the list as it was at `revision`."""
    return base64.urlsafe_b64encode(msgspec.json.encode([revision, namespace, name])).decode()


def _resume(token: str) -> tuple[int, str, str]:
    try:
        text = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        return msgspec.json.decode(text, type=tuple[int, str, str])
    except (binascii.Error, UnicodeError, msgspec.MsgspecError) as error:
        raise status.bad_request("continue key is not valid: list again without it") from error


def _number(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise status.bad_request(f"{name}: Invalid value: {text[:40]!r}: expected a number that is not negative")
    return int(text)


def _flag(query: Mapping[str, str], name: str) -> bool:
    text = query.get(name, "")
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise status.bad_request(f"{name}: Invalid value: {text[:40]!r}: expected true or false")


def _dry_run(values: list[Any]) -> bool:
    wanted = [value for value in values if value != ""]
    if any(value != "All" for value in wanted):
        raise status.bad_request('dryRun: Unsupported value: supported values: "All"')
    return bool(wanted)


def _text(value: Any, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise status.bad_request(f"{name}: expected a string")
    return value


def body(content_type: str, data: bytes) -> Object:
    """A JSON, YAML or Kubernetes protobuf body as a JSON object."""
    if content_type == "application/vnd.kubernetes.protobuf":
        return protobuf.decode(data)
    if content_type in ("application/yaml", "text/yaml", "application/x-yaml"):
        found = _yaml(data)
    elif content_type in ("application/json", "", "application/octet-stream", "text/plain"):
        found = values.parse(data)
    else:
        raise status.unsupported_media(f"the body of type {content_type} cannot be read: send application/json")
    if not isinstance(found, dict):
        raise status.bad_request("the body is no object; expected apiVersion, kind and metadata")
    return cast(Object, found)


def _yaml(data: bytes) -> Any:
    try:
        documents = load.parse(data.decode(), "the body")
    except UnicodeDecodeError as error:
        raise status.bad_request("the body is not valid UTF-8") from error
    except UserError as error:
        raise status.bad_request(error.message) from error
    if len(documents) != 1:
        raise status.bad_request(f"the body has {len(documents)} YAML documents; expected one")
    return values.normal(documents[0].body)


@dataclass(frozen=True, slots=True)
class Form:
    """How to answer. include: what the rows of a table carry of each object."""

    table: bool = False
    include: Include = "Metadata"


def form(accept: str, query: Mapping[str, str]) -> Form:
    """The first offer that can be met. Raises a StatusError 406 when none can."""
    include = _INCLUDES.get(query.get("includeObject", ""))
    if include is None:
        raise status.bad_request("includeObject: expected Metadata, Object or None")
    for offer in accept.split(",") if accept.strip() else ["*/*"]:
        media, *parameters = (part.strip() for part in offer.split(";"))
        if media not in ("application/json", "application/*", "*/*"):
            continue
        options = dict(part.split("=", 1) for part in parameters if "=" in part)
        shape = options.get("as")
        if shape is None:
            return Form()
        if shape == "Table" and options.get("g") == "meta.k8s.io" and options.get("v") == "v1":
            return Form(table=True, include=include)
    raise status.not_acceptable("only the following media types are accepted: application/json, also as a Table")

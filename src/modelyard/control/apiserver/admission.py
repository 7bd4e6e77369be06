"""What happens to an object between a request and the store: decode, prune, default, validate. All errors at once.

Source: the request handlers of k8s.io/apiserver and the strategies of apiextensions-apiserver.
"""

from collections.abc import Iterator
from typing import Any, Literal

from modelyard.control.apiserver import cel, core, core_rules, metadata, schema, values
from modelyard.control.apiserver.kinds import Kind
from modelyard.control.apiserver.status import Cause, StatusError, bad_request, invalid

Object = dict[str, Any]
FieldValidation = Literal["Strict", "Warn", "Ignore"]


def admit(
    kind: Kind,
    new: Object,
    old: Object | None,
    *,
    subresource: str = "",
    field_validation: FieldValidation = "Strict",
) -> tuple[Object, list[str]]:
    """The object to store, and warnings for whom wrote it.

    old: the stored object, None for a creation. subresource "status" changes nothing but the status; every other write
    leaves the status alone where the kind has that subresource. Identity, generation and resourceVersion are the
    caller's: a creation keeps what it is given, an update keeps the old identity and generation. Raises StatusError:
    400 for what cannot be decoded (unknown fields too, unless field_validation is Warn or Ignore), 409 for another
    object's UID, 422 with every violated rule.
    """
    if not isinstance(new, dict):
        raise bad_request("the body must be an object with apiVersion, kind and metadata")
    new = _identified(kind, values.normal(new))
    unknown = _decode(kind, new)
    if unknown and field_validation == "Strict":
        raise _strict_error(kind, unknown)
    warnings = [f'unknown field "{path}"' for path in unknown] if field_validation == "Warn" else []

    whole = kind.schema or {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    meta = schema.default(core.OBJECT_META, schema.prune(core.OBJECT_META, new["metadata"]))
    body = schema.prune(whole, _body(new))
    if old is not None:
        meta, body = _merged(kind, meta, body, old, subresource)
    elif kind.status:
        body.pop("status", None)
    body = schema.default(whole, body)
    obj = core_rules.prepared(kind, {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta, **body})
    causes = list(_violations(kind, whole, obj, old))
    if causes:
        raise invalid(kind, str(meta.get("name") or meta.get("generateName") or ""), causes)
    return obj, warnings


def admit_question(kind: Kind, new: Object, field_validation: FieldValidation) -> tuple[Object, list[str]]:
    """A body that is answered and never stored, without a status of the client's; and warnings. Raises StatusError."""
    new = _identified(kind, values.normal(new))
    unknown = _decode(kind, new)
    if unknown and field_validation == "Strict":
        raise _strict_error(kind, unknown)
    whole = kind.schema or {}
    body = schema.default(whole, schema.prune(whole, _body(new)))
    body.pop("status", None)
    causes = schema.validate({**whole, "properties": _without_metadata(whole)}, body)
    if causes:
        raise invalid(kind, "", causes)
    warnings = [f'unknown field "{path}"' for path in unknown] if field_validation == "Warn" else []
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": new["metadata"], **body}, warnings


def _identified(kind: Kind, new: Object) -> Object:
    """The object with apiVersion and kind, which must be those of the URL; built-in kinds may leave them out."""
    found_version, found_kind = new.get("apiVersion"), new.get("kind")
    if kind.custom and not found_kind:
        raise bad_request(f"Object 'Kind' is missing; expected kind: {kind.kind}")
    if kind.custom and not found_version:
        raise bad_request(f"Object 'apiVersion' is missing; expected apiVersion: {kind.api_version}")
    if found_version and found_version != kind.api_version:
        raise bad_request(
            f"the API version in the data ({found_version}) does not match the expected API version "
            f"({kind.api_version})"
        )
    if found_kind and found_kind != kind.kind and kind.custom:
        meta = new.get("metadata")
        name = str(meta.get("name", "")) if isinstance(meta, dict) else ""
        raise invalid(kind, name, [Cause.invalid("kind", found_kind, f"must be {kind.kind}")])
    if found_kind and found_kind != kind.kind:
        raise bad_request(f"the kind in the data ({found_kind}) does not match the expected kind ({kind.kind})")
    return {**new, "apiVersion": kind.api_version, "kind": kind.kind, "metadata": new.get("metadata") or {}}


def _decode(kind: Kind, new: Object) -> list[str]:
    """Paths of unknown fields. Raises StatusError 400 for metadata that is no ObjectMeta."""
    meta = new["metadata"]
    wrapper = {"type": "object", "properties": {"metadata": core.OBJECT_META}}
    found = schema.validate(wrapper, schema.default(wrapper, {"metadata": meta}))
    wrong = [each for each in found if each.reason in ("FieldValueTypeInvalid", "FieldValueInvalid")]
    if wrong:
        raise bad_request(f"{_handled_as(kind)}: {'; '.join(f'{each.field}: {each.message}' for each in wrong)}", wrong)
    unknown = schema.unknown_fields(wrapper, {"metadata": meta})
    return unknown + (schema.unknown_fields(kind.schema, _body(new)) if kind.schema else [])


def _strict_error(kind: Kind, unknown: list[str]) -> StatusError:
    fields = ", ".join(f'unknown field "{path}"' for path in unknown)
    causes = [Cause(path, "FieldValueForbidden", "unknown field") for path in unknown]
    return bad_request(f"{_handled_as(kind)}: strict decoding error: {fields}", causes)


def _handled_as(kind: Kind) -> str:
    return f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}'


def _body(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "metadata")}


def _merged(kind: Kind, meta: Object, body: Object, old: Object, subresource: str) -> tuple[Object, Object]:
    """Metadata and body of an update: what this way of writing may change, and the rest as it was."""
    carried = metadata.carried_over(kind, meta, old["metadata"])
    if subresource == "status":
        version = {"resourceVersion": meta["resourceVersion"]} if meta.get("resourceVersion") else {}
        kept, changed = _body(old), {"status": body["status"]} if "status" in body else {}
        kept.pop("status", None)
        return {**old["metadata"], **version}, {**kept, **changed}
    if kind.status:
        body.pop("status", None)
        if "status" in old:
            body["status"] = old["status"]
    return carried, body


def _violations(kind: Kind, whole: Object, obj: Object, old: Object | None) -> Iterator[Cause]:
    meta = metadata.check(kind, obj["metadata"], old["metadata"] if old else None)
    body = schema.validate({**whole, "properties": _without_metadata(whole)}, _body(obj))
    yield from meta
    yield from body
    if not body:
        yield from core_rules.check(kind, obj, old)
    if not any(cause.field == "metadata.name" for cause in meta):
        yield from cel.check(whole, _seen_by_rules(obj), _seen_by_rules(old) if old else None, body)


def _without_metadata(whole: Object) -> Object:
    return {key: part for key, part in whole.get("properties", {}).items() if key != "metadata"}


def _seen_by_rules(obj: Object) -> Object:
    meta = {key: obj["metadata"][key] for key in ("name", "generateName") if key in obj["metadata"]}
    return {**obj, "metadata": meta}

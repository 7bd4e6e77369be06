"""The ways to patch an object: JSON merge patch, JSON patch, strategic merge patch.

Source: RFC 7386, RFC 6902, and the directives of strategic merge patch (k8s.io/apimachinery pkg/util/strategicpatch).
"""

import copy
import json
from typing import Any

import jsonpatch
import jsonpointer

from modelyard.control.apiserver.kinds import Kind
from modelyard.control.apiserver.status import StatusError, bad_request, too_large, unprocessable, unsupported_media
from modelyard.control.apiserver.strategic import strategic_merge
from modelyard.control.apiserver.values import normal, parse

Object = dict[str, Any]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

_MOST_OPERATIONS = 10_000
_MOST_COPIED = 3 * 2**20
"""Bytes that all `copy` operations of a patch may add: a few of them double a document each time."""
_MISFITS = (
    jsonpatch.JsonPatchException,
    jsonpointer.JsonPointerException,
    # what the library lets through for paths into numbers, texts and nulls
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ValueError,
    RecursionError,
)


def apply(kind: Kind, content_type: str, current: Object, patch: bytes | object) -> Object:
    """The patched object, not yet admitted; current is left as it is.

    patch: the body, or the JSON value in it. Raises StatusError: 400 for what is no such patch, 413 for too many
    operations, 415 for formats that the kind does not take, 422 for a patch that does not fit the object.
    """
    media = content_type.partition(";")[0].strip().lower()
    if media == APPLY_PATCH:
        raise unsupported_media(
            "server-side apply is not supported yet by this server; kubectl apply works without --server-side"
        )
    accepted = (JSON_PATCH, MERGE_PATCH) if kind.custom else (JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH)
    if media not in accepted:
        raise unsupported_media(
            "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
        )
    value = parse(patch) if isinstance(patch, bytes) else normal(patch)
    if media == JSON_PATCH:
        return _json_patch(current, value)
    if not isinstance(value, dict):
        raise bad_request("error decoding patch: expected an object")
    result = merge(current, value) if media == MERGE_PATCH else strategic_merge(current, value)
    return _object(result)


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386: maps are merged, null removes, everything else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def _json_patch(current: Object, operations: Any) -> Object:
    if not isinstance(operations, list) or not all(isinstance(each, dict) for each in operations):
        raise bad_request(
            "error decoding patch: expected a list of operations such as "
            '[{"op": "replace", "path": "/spec/replicas", "value": 2}]'
        )
    if len(operations) > _MOST_OPERATIONS:
        raise too_large(f"The allowed maximum operations in a JSON patch is {_MOST_OPERATIONS}, got {len(operations)}")
    result: Any = copy.deepcopy(current)
    copied = 0
    for number, operation in enumerate(operations):
        try:
            if operation.get("op") == "copy":
                copied += len(json.dumps(jsonpointer.resolve_pointer(result, operation.get("from"))))
                if copied > _MOST_COPIED:
                    raise too_large(f"The copy operations of a JSON patch may add {_MOST_COPIED} bytes at most")
            result = jsonpatch.JsonPatch([operation]).apply(result, in_place=True)
        except jsonpatch.InvalidJsonPatch as error:
            raise bad_request(f"error decoding patch: operation {number}: {str(error)[:200]}") from error
        except jsonpatch.JsonPatchTestFailed as error:
            raise _misfit(number, operation, "the tested value is not the object's") from error
        except _MISFITS as error:
            raise _misfit(number, operation, "there is nothing at this path, or something of another type") from error
    return _object(result)


def _misfit(number: int, operation: Object, detail: str) -> StatusError:
    """The library's own words repeat parts of the object, which may be a Secret."""
    where = f"operation {number} ({str(operation.get('op'))[:20]} {str(operation.get('path'))[:200]})"
    return unprocessable(f"the JSON patch does not fit the object: {where}: {detail}")


def _object(result: Any) -> Object:
    if not isinstance(result, dict):
        raise unprocessable("the patch leaves something that is not an object")
    copied: Object = normal(result)
    return copied

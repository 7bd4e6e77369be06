"""What a server would say about an object, without a server: for `modelyard validate`."""

import difflib
import re
from functools import cache
from typing import Any

from modelyard.api import load
from modelyard.api.schema import crds
from modelyard.base.errors import FieldError, InvalidFields, UserError
from modelyard.control.apiserver import cel, kinds
from modelyard.control.apiserver.admission import FieldValidation, admit
from modelyard.control.apiserver.status import Cause, StatusError

_TYPE_NAME = re.compile(r'^Invalid value: "(object|array|string|integer|boolean|number)": ')
"""Rules repeat the type instead of the value: that says nothing to people."""
_WRONG_TYPE = re.compile(r' in body must be of type ([a-z0-9-]+): "')
_EXPECTED = {
    "boolean": "expected true or false",
    "date-time": "expected a time, such as 2026-11-28T08:00:00Z",
    "string": "expected text; put the value in quotes",
    "array": "expected a list",
    "object": "expected fields below it",
    "integer": "expected a whole number",
    "number": "expected a number",
}
_UNCHECKED = "some validation rules were not checked"
_FAILED_RULE = "evaluating rule: "
"""A rule that could not be evaluated tells of a value that is refused elsewhere."""
_LABEL = "RFC 1123 label"


def check(body: dict[str, Any]) -> list[FieldError]:
    """Everything that a server of this release would refuse about one new object; empty for a valid one.

    Both the typed definition and the schema with its rules are asked. A path that both name is told once.
    """
    kind = _kinds().get((str(body.get("apiVersion")), str(body.get("kind"))))
    if kind is None:
        return [_unserved(body)]
    found: dict[str, FieldError] = {}
    for error in (*(_typed(body) if kind.custom else ()), *_admitted(kind, body)):
        # A missing object says all that could be said about its fields.
        if error.path.rpartition(".")[0] not in found:
            found.setdefault(error.path, error)
    return list(found.values())


def _unserved(body: dict[str, Any]) -> FieldError:
    """Names the field that is wrong: the version where the kind is known, else the kind."""
    version, name = body.get("apiVersion"), str(body.get("kind") or "")
    versions = {known: each for each, known in _kinds()}
    if name in versions:
        return FieldError("apiVersion", f"is {version!r}; expected {versions[name]} for kind {name}" if version
                          else f"is required; expected {versions[name]} for kind {name}")  # fmt: skip
    close = difflib.get_close_matches(name, versions, 1)
    known = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(sorted(versions))}"
    return FieldError("kind", f"there is no kind {name!r}; {known}" if name else f"is required; {known}")


@cache
def _kinds() -> dict[tuple[str, str], kinds.Kind]:
    served = (*(kinds.from_crd(crd) for crd in crds()), *kinds.builtin())
    return {(kind.api_version, kind.kind): kind for kind in served}


def _typed(body: dict[str, Any]) -> tuple[FieldError, ...]:
    try:
        load.decode(body)
    except InvalidFields as error:
        return error.errors
    except UserError as error:
        return (FieldError("kind", error.message),)
    return ()


def _admitted(kind: kinds.Kind, body: dict[str, Any]) -> list[FieldError]:
    """Unknown fields end an admission early, so it is asked again without looking at them."""
    found: list[FieldError] = []
    attempts: tuple[FieldValidation, ...] = ("Strict", "Ignore")
    for validation in attempts:
        try:
            admit(kind, body, None, field_validation=validation)
        except StatusError as error:
            causes = [FieldError(_path(cause), _message(cause)) for cause in error.causes]
            found.extend(causes or [FieldError("object", error.message)])
    # That some rules were not looked at because of other errors is no error of its own.
    told = [each for each in found if _UNCHECKED not in each.message] or found
    return [each for each in told if _FAILED_RULE not in each.message] or told


def _message(cause: Cause) -> str:
    if cause.field == "metadata.name" and _LABEL in cause.message:
        return "expected at most 63 lower-case letters, digits and '-', with a letter or digit at both ends"
    if wrong := _WRONG_TYPE.search(cause.message):
        return _EXPECTED.get(wrong[1], cause.message)
    return _TYPE_NAME.sub("", cause.message)


def _path(cause: Cause) -> str:
    return "object" if cause.field in ("", cel.ROOT) else cause.field

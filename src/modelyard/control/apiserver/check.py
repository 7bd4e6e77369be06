"""What a server would say about an object, without a server: for `modelyard validate`."""

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


def check(body: dict[str, Any]) -> list[FieldError]:
    """Everything that a server of this release would refuse about one new object; empty for a valid one.

    Both the typed definition and the schema with its rules are asked. A path that both name is told once.
    """
    kind = _kinds().get((str(body.get("apiVersion")), str(body.get("kind"))))
    if kind is None:
        known = sorted({f"{version} {name}" for version, name in _kinds()})
        return [FieldError("kind", f"{body.get('apiVersion')} {body.get('kind')} is none of {', '.join(known)}")]
    found: dict[str, FieldError] = {}
    for error in (*(_typed(body) if kind.custom else ()), *_admitted(kind, body)):
        found.setdefault(error.path, error)
    return list(found.values())


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
            causes = [FieldError(_path(cause), _TYPE_NAME.sub("", cause.message)) for cause in error.causes]
            found.extend(causes or [FieldError("object", error.message)])
    return found


def _path(cause: Cause) -> str:
    return "object" if cause.field in ("", cel.ROOT) else cause.field

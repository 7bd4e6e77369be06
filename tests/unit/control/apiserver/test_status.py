import pytest

from apiserver_testing import KINDS
from modelyard.control.apiserver import status
from modelyard.control.apiserver.status import Cause, StatusError

SERVICE, SECRET = KINDS["ModelService"], KINDS["Secret"]


@pytest.mark.parametrize(
    ("error", "code", "reason", "message"),
    [
        (status.not_found(SERVICE, "a"), 404, "NotFound", 'modelservices.modelyard.dev "a" not found'),
        (status.not_found(SECRET, "a"), 404, "NotFound", 'secrets "a" not found'),
        (status.unknown_path(), 404, "NotFound", "the server could not find the requested resource"),
        (status.already_exists(SERVICE, "a"), 409, "AlreadyExists", 'modelservices.modelyard.dev "a" already exists'),
        (
            status.conflict(SERVICE, "a"),
            409,
            "Conflict",
            'Operation cannot be fulfilled on modelservices.modelyard.dev "a": the object has been modified; '
            "please apply your changes to the latest version and try again",
        ),
        (status.forbidden(SECRET, "a", "no"), 403, "Forbidden", 'secrets "a" is forbidden: no'),
        (status.unauthorized(), 401, "Unauthorized", "Unauthorized"),
        (
            status.invalid(SECRET, "a", [Cause.required("data")]),
            422,
            "Invalid",
            'Secret "a" is invalid: data: Required value',
        ),
        (
            status.invalid(SERVICE, "a", [Cause.required("b"), Cause.forbidden("c", "no"), Cause.required("b")]),
            422,
            "Invalid",
            'ModelService.modelyard.dev "a" is invalid: [b: Required value, c: Forbidden: no]',
        ),
        (status.internal("x"), 500, "InternalError", "Internal error occurred: x"),
        (status.expired("too old"), 410, "Expired", "too old"),
        (status.insufficient_storage("full"), 507, "InsufficientStorage", "full"),
    ],
)
def test_errors_are_worded_as_kubernetes_does(error: StatusError, code: int, reason: str, message: str) -> None:
    body = error.status()
    assert (body["code"], body["reason"], body["message"]) == (code, reason, message)
    assert (body["kind"], body["apiVersion"], body["status"]) == ("Status", "v1", "Failure")


def test_details_name_the_object_and_every_cause() -> None:
    details = status.not_found(SERVICE, "a").status()["details"]
    assert details == {"name": "a", "group": "modelyard.dev", "kind": "modelservices"}
    cause = Cause.invalid("spec.replicas", 1, "no")
    error = status.invalid(SERVICE, "a", [cause])
    assert error.causes == (cause,)
    assert error.status()["details"]["causes"] == [
        {"field": "spec.replicas", "reason": "FieldValueInvalid", "message": "Invalid value: 1: no"}
    ]


def test_a_client_is_told_when_to_try_again() -> None:
    assert status.too_many_requests("later", 3).status()["details"] == {"retryAfterSeconds": 3}
    assert "details" not in status.bad_request("x").status()


def test_long_values_are_cut_in_messages() -> None:
    assert len(Cause.invalid("a", "x" * 10_000, "no").message) < 600

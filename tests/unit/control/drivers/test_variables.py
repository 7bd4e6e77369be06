import pytest

from modelyard.base.conditions import Reason
from modelyard.control.drivers.variables import CannotStart, files
from modelyard.control.ir.unit import Credential

LAKE = Credential(role="input", secret="lake")
MART = Credential(role="output", secret="mart")


def test_all_keys_become_files_below_their_role() -> None:
    secrets = {"lake": {"a.b": b"1", "_c-D": b"2"}, "mart": {"a.b": b"3"}}
    found = files((LAKE, MART), "default", lambda _, name: secrets[name])
    assert found == {"input/a.b": b"1", "input/_c-D": b"2", "output/a.b": b"3"}


def test_all_missing_secrets_are_named() -> None:
    with pytest.raises(CannotStart) as refused:
        files((LAKE, MART), "team", lambda *_: None)
    assert refused.value.reason is Reason.SECRET_NOT_FOUND
    assert "input needs Secret lake; output needs Secret mart" in refused.value.message
    assert "namespace team" in refused.value.message


@pytest.mark.parametrize("key", ["", ".", "..", "../x", "a/b", "a\0", "a b", "a\n", "ä"])
def test_keys_that_are_no_names_of_files_are_refused(key: str) -> None:
    with pytest.raises(CannotStart, match="of Secret lake") as refused:
        files((LAKE,), "default", lambda *_: {"good": b"", key: b""})
    assert refused.value.reason is Reason.INVALID

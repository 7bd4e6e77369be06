import pytest

from modelyard.base.conditions import Reason
from modelyard.control.drivers.processes.environment import environment
from modelyard.control.drivers.variables import CannotStart, values
from modelyard.control.ir.unit import SecretKey, Variable
from modelyard.wire.place import Place

PLACE = Place(work="/w", report="/r", cache="/c", scratch="/s")


def test_only_listed_variables_of_ours_are_passed_on() -> None:
    ours = {"PATH": "/bin", "LC_ALL": "C", "AWS_SECRET_ACCESS_KEY": "x", "MODELYARD_ROOT": "/", "LD_PRELOAD": "x"}
    seen = environment(PLACE, {}, ours)
    assert seen.keys() - PLACE.environment().keys() == {"PATH", "LC_ALL", "PYTHONUNBUFFERED", "TMPDIR"}
    assert "MODELYARD_ROOT" not in seen


def test_declared_variables_win_over_ours_and_the_place_over_them() -> None:
    seen = environment(PLACE, {"PATH": "/mine", "MODELYARD_WORK": "/elsewhere"}, {"PATH": "/bin"})
    assert (seen["PATH"], seen["MODELYARD_WORK"]) == ("/mine", "/w")


def test_secrets_are_looked_up_in_the_namespace_and_all_missing_ones_named() -> None:
    stored = {("team", "store", "token"): "sesame"}
    token = Variable(name="TOKEN", secret=SecretKey(secret="store", key="token"))
    maybe = Variable(name="MAYBE", secret=SecretKey(secret="store", key="no", optional=True))
    secrets = lambda namespace, key: stored.get((namespace, key.secret, key.key))  # noqa: E731
    assert values((token, maybe, Variable(name="A", value="1")), "team", secrets) == {"TOKEN": "sesame", "A": "1"}
    other = Variable(name="OTHER", secret=SecretKey(secret="box", key="key"))
    with pytest.raises(CannotStart) as caught:
        values((token, other), "default", secrets)
    assert caught.value.reason == Reason.SECRET_NOT_FOUND
    assert "TOKEN needs key token of Secret store; OTHER needs key key of Secret box" in caught.value.message


@pytest.mark.parametrize("variable", [Variable(name="A=B"), Variable(name=""), Variable(name="A", value="x\0y")])
def test_what_cannot_be_a_variable_is_refused_without_its_value(variable: Variable) -> None:
    with pytest.raises(CannotStart) as caught:
        values((variable,), "default", lambda *_: None)
    assert caught.value.reason == Reason.INVALID
    assert "x\0y" not in caught.value.message

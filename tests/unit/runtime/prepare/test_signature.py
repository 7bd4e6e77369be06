import pytest

from modelyard.base.conditions import Reason
from modelyard.runtime.backends.port import LoadFailed
from modelyard.runtime.prepare.signature import agreed, check
from modelyard.wire.work import TensorSpec


def tensor(name: str, shape: tuple[int, ...], datatype: str = "FP32") -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)


FOUND = (tensor("a", (-1, 4)), tensor("b", (-1, -1)))


def test_what_was_not_declared_is_as_found() -> None:
    assert agreed("inputs", (), FOUND) == FOUND


def test_a_declaration_may_fix_open_sizes_in_any_order() -> None:
    assert agreed("inputs", (tensor("b", (-1, 3)), FOUND[0]), FOUND) == (FOUND[0], tensor("b", (-1, 3)))


@pytest.mark.parametrize(
    "declared",
    [
        FOUND[:1],
        (*FOUND, tensor("c", (1,))),
        (FOUND[1], tensor("a", (-1, 5))),
        (FOUND[1], tensor("a", (-1, -1))),
        (FOUND[1], tensor("a", (-1, 4), "FP64")),
        (FOUND[1], tensor("a", (4,))),
    ],
)
def test_a_contradiction_names_both_sides(declared: tuple[TensorSpec, ...]) -> None:
    with pytest.raises(LoadFailed, match=r"the artifact has a FP32\[-1,4\], b FP32\[-1,-1\]") as caught:
        agreed("inputs", declared, FOUND)
    assert caught.value.reason == Reason.SIGNATURE_MISMATCH


@pytest.mark.parametrize(
    ("specs", "reason"),
    [
        ((), Reason.SAMPLE_MISSING),
        ((tensor("scalar", ()),), Reason.UNSUPPORTED),
        ((tensor("deep", (-1,) * 9),), Reason.UNSUPPORTED),
        ((tensor("wide", (-1, 2**40)),), Reason.UNSUPPORTED),
        ((tensor("n" * 254, (-1,)),), Reason.UNSUPPORTED),
        (tuple(tensor(str(index), (-1,)) for index in range(257)), Reason.UNSUPPORTED),
    ],
)
def test_what_a_status_cannot_say_is_refused(specs: tuple[TensorSpec, ...], reason: Reason) -> None:
    with pytest.raises(LoadFailed) as caught:
        check("inputs", specs)
    assert caught.value.reason == reason
    check("inputs", FOUND)

import pytest

from modelyard.api.runtime import Runtime
from modelyard.control.ir.observed import Capabilities
from modelyard.control.plan import runtimes


def declared(**process: object) -> Runtime:
    spec = {"formats": [{"name": "odd"}], "process": {"command": ["run"], **process}}
    return Runtime.model_validate({"metadata": {"name": "own"}, "spec": spec})


@pytest.mark.parametrize(
    ("process", "supports", "expected"),
    [({}, (), "True"), ({"image": "own:1"}, ("image",), "True"), ({"image": "own:1"}, (), "False")],
)
def test_a_runtime_is_ready_where_its_worker_can_run(
    process: dict[str, object], supports: tuple[str, ...], expected: str
) -> None:
    found = runtimes.desire(declared(**process), Capabilities(supports=frozenset(supports)), 0.0).status
    assert found is not None
    (ready,) = found["conditions"]
    assert ready["status"] == expected
    assert ("spec.process.image" in ready["message"]) == (expected == "False")

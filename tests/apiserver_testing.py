"""Kinds and objects for the tests of the API server."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from modelyard.api.schema import crds
from modelyard.control.apiserver import kinds
from modelyard.control.apiserver.status import StatusError

Object = dict[str, Any]

CUSTOM = tuple(kinds.from_crd(crd) for crd in crds())
KINDS = {kind.kind: kind for kind in (*CUSTOM, *kinds.builtin())}
DIGEST = "sha256:" + "a" * 64

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def make(kind: str, name: str = "iris", *, metadata: Object | None = None, **parts: Any) -> Object:
    """An object of a served kind in the namespace default."""
    served = KINDS[kind]
    place = {"namespace": "default"} if served.namespaced else {}
    return {
        "apiVersion": served.api_version,
        "kind": kind,
        "metadata": {"name": name, **place, **(metadata or {})},
        **parts,
    }


def model(**spec: Any) -> Object:
    """A Model with the fields given."""
    return make("Model", spec={"uri": "models/iris.onnx", **spec})


def service(**spec: Any) -> Object:
    """A ModelService with the fields given."""
    return make("ModelService", spec={"model": {"name": "iris"}, **spec})


def code_of(call: Callable[[], object]) -> int:
    """HTTP status of a refusal; 200 when there is none. Any other exception passes through."""
    try:
        call()
    except StatusError as error:
        return error.code
    return 200

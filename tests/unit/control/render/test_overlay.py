from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from modelyard.control.render.overlay import merge

BASE: dict[str, Any] = {
    "metadata": {"labels": {"a": "1"}},
    "spec": {
        "containers": [{"name": "main", "env": [{"name": "X", "value": "1"}], "ports": [{"containerPort": 8080}]}],
        "volumes": [{"name": "cache", "emptyDir": {}}, {"name": "run", "emptyDir": {"medium": "Memory"}}],
    },
}
objects = st.recursive(
    st.none() | st.booleans() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "containers", "volumes", "env", "spec", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


def test_maps_are_merged_and_other_values_replaced() -> None:
    merged = merge(BASE, {"metadata": {"labels": {"b": "2"}}, "spec": {"nodeSelector": {"disk": "ssd"}}})
    assert merged["metadata"]["labels"] == {"a": "1", "b": "2"}
    assert merged["spec"]["nodeSelector"] == {"disk": "ssd"}


def test_containers_and_variables_are_merged_by_name() -> None:
    more = [{"name": "main", "env": [{"name": "Y", "value": "2"}]}, {"name": "sidecar", "image": "x"}]
    main, sidecar = merge(BASE, {"spec": {"containers": more}})["spec"]["containers"]
    assert main["env"] == [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]
    assert main["ports"] == [{"containerPort": 8080}]
    assert sidecar == {"name": "sidecar", "image": "x"}


def test_a_volume_is_replaced_as_a_whole() -> None:
    claim = {"name": "cache", "persistentVolumeClaim": {"claimName": "models"}}
    assert merge(BASE, {"spec": {"volumes": [claim]}})["spec"]["volumes"] == [claim, BASE["spec"]["volumes"][1]]


def test_a_null_takes_a_field_away() -> None:
    assert "volumes" not in merge(BASE, {"spec": {"volumes": None}})["spec"]


def test_another_handler_of_a_probe_replaces_ours() -> None:
    base = {"livenessProbe": {"httpGet": {"path": "/"}, "periodSeconds": 5}}
    merged = merge(base, {"livenessProbe": {"exec": {"command": ["true"]}}})
    assert merged == {"livenessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 5}}


@given(overlay=st.dictionaries(st.sampled_from(["metadata", "spec", "containers", "volumes"]), objects, max_size=3))
def test_nothing_that_is_declared_breaks_it_or_changes_ours(overlay: dict[str, Any]) -> None:
    before = repr(BASE)
    merge(BASE, overlay)
    assert repr(BASE) == before

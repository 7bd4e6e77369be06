"""What a ModelService may say about traffic, as an API server enforces it from the definition."""

from typing import Any

import pytest

from apiserver_testing import KINDS, Object, make
from modelyard.api import load
from modelyard.api.service import ModelService
from modelyard.control.apiserver.admission import admit
from modelyard.control.apiserver.status import StatusError

KIND = KINDS["ModelService"]
FIRST: Object = {"revision": "iris-svc-00001", "percent": 90}


def service(**spec: Any) -> Object:
    return make("ModelService", "iris", spec={"model": {"name": "iris"}, **spec})


def traffic(*splits: Object) -> Object:
    return service(traffic=list(splits))


def stored(obj: Object) -> Object:
    return admit(KIND, obj, None)[0]


def refused(obj: Object) -> str:
    with pytest.raises(StatusError) as error:
        admit(KIND, obj, None)
    assert (error.value.code, error.value.reason) == (422, "Invalid")
    return error.value.message


def test_shares_tags_and_a_mirror_are_taken() -> None:
    latest = {"revision": "latest", "percent": 10, "tag": "canary"}
    obj = stored(traffic(FIRST, latest, {"revision": "iris-svc-00003", "mirror": {}, "tag": "shadow"}))
    decoded = load.decode(obj)
    assert isinstance(decoded, ModelService)
    assert decoded.spec.traffic is not None
    mirror = decoded.spec.traffic[2].mirror
    assert mirror is not None
    assert (mirror.percent, mirror.compare_percent) == (100, 10)


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ([], "should have at least 1 items"),
        ([FIRST], "spec.traffic: Invalid value: the percent of all targets must add up to 100"),
        ([FIRST, {"revision": "latest", "percent": 20}], "must add up to 100"),
        ([{"revision": "latest", "mirror": {}}], "must add up to 100"),
        ([FIRST, {"revision": "latest", "percent": 10, "mirror": {}}], "set percent or mirror, not both"),
        ([FIRST, {"revision": "latest"}], "set percent, mirror or tag: otherwise the revision gets nothing"),
        (
            [{"revision": "latest", "percent": 100}, *({"revision": f"r{n}", "mirror": {}} for n in range(2))],
            "at most one target may be a mirror",
        ),
        (
            [{**FIRST, "tag": "a"}, {"revision": "latest", "percent": 10, "tag": "a"}],
            "each tag must be given once",
        ),
        ([{**FIRST, "tag": "1"}, {"revision": "latest", "percent": 10}], "spec.traffic[0].tag"),
        ([{"revision": "latest", "percent": 101}], "spec.traffic[0].percent"),
        ([{"revision": "latest", "percent": 100}, *({"revision": "r", "percent": 0} for _ in range(8))], "8 items"),
    ],
)
def test_what_shares_nothing_well_is_refused_with_what_was_expected(splits: list[Object], said: str) -> None:
    assert said in refused(traffic(*splits)).replace('"array": ', "").replace('"object": ', "")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"sticky": {}}, "spec.sticky.header"),
        ({"sticky": {"header": "no spaces"}}, "spec.sticky.header"),
        ({"sticky": {"header": "Authorization"}}, "callers' credentials are not used for this"),
        ({"sticky": {"header": "X-API-Key"}}, "callers' credentials are not used for this"),
        ({"retries": 11}, "spec.retries"),
        ({"maxConcurrency": 0}, "spec.maxConcurrency"),
        ({"maxRequestSize": "ten"}, "spec.maxRequestSize"),
        ({"visibility": "secret"}, "spec.visibility"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(spec: Object, said: str) -> None:
    assert said in refused(service(**spec))


def test_bounds_are_taken() -> None:
    spec = {"sticky": {"header": "X-User"}, "retries": 0, "maxConcurrency": 4, "maxRequestSize": "10Mi"}
    decoded = load.decode(stored(service(**spec, compression=True, visibility="internal")))
    assert isinstance(decoded, ModelService)
    assert decoded.spec.retries == 0


def test_what_pods_are_like_is_kept_as_it_is_written() -> None:
    pods: Object = {
        "serviceAccountName": "team.reader",
        "resources": {"limits": {"nvidia.com/mig-1g.5gb": 1, "memory": "1Gi"}, "claims": [{"name": "gpu"}]},
        "podTemplate": {
            "metadata": {"labels": {"team": "risk"}},
            "spec": {"tolerations": [{"key": "gpu"}], "affinity": {"nodeAffinity": {"of": "tomorrow"}}, "x": None},
        },
    }
    kept = stored(service(**pods))["spec"]
    assert {name: kept[name] for name in pods} == pods

"""Traffic on a server as a user starts it: two revisions, shares, a tag, copies, and back."""

import json
import re
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from grpc_testing import tensor
from yard_testing import INPUT, Load, Yard, service, wait_until, write_onnx

FIRST, SECOND = "plus-svc-00001", "plus-svc-00002"
REQUEST = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 2], "data": INPUT.ravel().tolist()}]}


def plus(model: str, *traffic: dict[str, Any]) -> dict[str, Any]:
    return service("plus", model={"uri": model}, **({"traffic": list(traffic)} if traffic else {}))


def added(yard: Yard, version: str = "") -> tuple[float, str]:
    """What the model that answers adds to INPUT, and the version that it says it is."""
    path = f"{yard.url}/v2/models/plus{f'/versions/{version}' if version else ''}/infer"
    asked = urllib.request.Request(path, json.dumps(REQUEST).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        body = json.load(answer)
    return body["outputs"][0]["data"][0] - float(INPUT[0, 0]), body["model_version"]


def traffic(yard: Yard) -> list[dict[str, Any]]:
    found = yard.get("modelservice", "plus")["status"].get("traffic", [])
    return [{key: value for key, value in each.items() if key not in ("url", "mirror")} for each in found]


async def scored(process: psutil.Process) -> int:
    """How many requests a replica has answered."""
    connector = aiohttp.UnixConnector(process.environ()["MODELYARD_SOCKET"])
    async with aiohttp.ClientSession(connector=connector) as session, session.get("http://front/metrics") as answer:
        lines = (await answer.text()).splitlines()
    counted = (line for line in lines if line.startswith("modelyard_requests_total{"))
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in counted)


@pytest.mark.timeout(400)
async def test_a_new_model_gets_an_address_a_share_copies_and_all(tmp_path: Path) -> None:
    write_onnx(tmp_path / "one.onnx", 1.0)
    write_onnx(tmp_path / "two.onnx", 2.0)
    with Yard(tmp_path) as yard:
        yard.apply(plus("one.onnx"))
        (replica,) = yard.replicas("plus")
        with Load(yard.url, "plus", threads=2) as load:
            load.more(20)

            # The new model runs and has an address; nobody is sent there.
            yard.apply(plus("two.onnx", {"revision": FIRST, "percent": 100}))
            assert added(yard, "2") == (2.0, "2")
            load.more()
            assert load.answers == {1.0}
            (second,) = (each for each in yard.replicas("plus") if each.pid != replica.pid)

            canary = ({"revision": FIRST, "percent": 90}, {"revision": "latest", "percent": 10, "tag": "canary"})
            yard.apply(plus("two.onnx", *canary))
            assert traffic(yard) == [
                {"revision": FIRST, "percent": 90},
                {"revision": SECOND, "percent": 10, "tag": "canary"},
            ]
            found = Counter(added(yard)[0] for _ in range(300))
            assert set(found) == {1.0, 2.0}
            assert 5 <= found[2.0] <= 70
            assert added(yard, "canary") == (2.0, "2")
            assert added(yard, "1") == (1.0, "1")
            with pytest.raises(urllib.error.HTTPError, match="404"):
                added(yard, "unheard-of")
            by_grpc(yard)
            described = yard.cli("describe", "modelservice", "plus")
            assert f"{FIRST} 90%; {SECOND} 10%, tag canary" in described
            assert f"{yard.url}/v2/models/plus/versions/canary" in described
            assert f"{FIRST} (90 %) and {SECOND} (10 %) answer" in yard.cli("why", "plus")

            copies = {"percent": 100, "comparePercent": 50}
            mirror = ({"revision": FIRST, "percent": 100}, {"revision": SECOND, "mirror": copies})
            yard.apply(plus("two.onnx", *mirror))
            assert traffic(yard) == [
                {"revision": FIRST, "percent": 100},
                {"revision": SECOND, "percent": 0, "mirrorPercent": 100},
            ]
            load.answers.clear()
            before = await scored(second)
            load.more(100)
            assert load.answers == {1.0}
            assert await scored(second) >= before + 90, "the copies were scored"
            compares(yard)

            yard.apply(plus("two.onnx", {"revision": "plus-svc-00009", "percent": 100}), wait=False)
            wait_until(lambda: yard.condition("plus")["reason"] == "RevisionNotFound", "the revision is missed")
            missing = yard.condition("plus")
            assert "expected latest or one of plus-svc-00001, plus-svc-00002" in missing["message"]
            assert "correct spec.traffic" in yard.cli("why", "plus", check=False)
            load.more()
            assert load.answers == {1.0}

            yard.apply(plus("two.onnx"))
            load.answers.clear()
            load.more()
            assert load.answers == {2.0}
            wait_until(lambda: not replica.is_running(), "the first revision ends")
        assert load.failures == []


def compares(yard: Yard) -> None:
    """Every second of the copies is compared: the answers are 1 apart, and the one that serves is not noisy."""

    def told() -> dict[str, Any]:
        found: dict[str, Any] = yard.get("modelservice", "plus")["status"]["traffic"][1].get("mirror", {})
        return found if found.get("compared", 0) + found.get("skipped", 0) >= 45 else {}

    found = wait_until(told, "the comparison")
    assert found["compared"] >= 20
    assert found["different"] == found["compared"]
    assert (found["largestDifference"], found["largestNoise"], found["noisy"]) == ("1", "0", 0)
    described = yard.cli("describe", "modelservice", "plus")
    assert re.search(rf"{SECOND}: (\d+) of \1 answers to copies differ, by up to 1 ", described)


def by_grpc(yard: Yard) -> None:
    """The field `model_version` of a call names a revision or a tag, too."""
    with InferenceServerClient(yard.url.removeprefix("http://")) as client:
        for version, number, plus_what in (("canary", "2", 2.0), ("2", "2", 2.0), ("1", "1", 1.0)):
            found = client.infer("plus", [tensor(INPUT, "X")], model_version=version)
            assert float(found.as_numpy("y")[0, 0] - INPUT[0, 0]) == plus_what
            assert found.get_response().model_version == number
            assert client.is_model_ready("plus", version)
            assert list(client.get_model_metadata("plus", version).versions) == [number]
        with pytest.raises(InferenceServerException, match="has no version 'unheard-of' here"):
            client.infer("plus", [tensor(INPUT, "X")], model_version="unheard-of")

"""Artifacts of a real S3 server whose token service believes in ServiceAccounts, fetched without any key."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest

from identity_testing import Cloud
from modelyard.base.conditions import Reason
from modelyard.wire import report as reports
from modelyard.wire import work as works
from modelyard.wire.place import Place
from modelyard.wire.report import Failure
from modelyard.wire.work import PrepareWork, WorkSpec


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with Cloud(tmp_path_factory.mktemp("cloud")) as found:
        obstore.put(found.s3.store("models"), "a/m.onnx", b"a model")
        obstore.put(found.s3.store("data"), "a/m.onnx", b"not for the reader")
        yield found


def fetch(
    cloud: Cloud, own: Path, uri: str, variables: dict[str, str], account: str = "reader"
) -> tuple[int, Failure | None]:
    """The program that a pod runs first -> its exit status, and what it reports."""
    (own / "secrets/model").mkdir(parents=True)
    for name, value in cloud.addresses().items():
        (own / "secrets/model" / name).write_text(value)
    (own / "work.json").write_bytes(works.encode(WorkSpec(prepare=PrepareWork(uri=uri))))
    place = Place(
        work=str(own / "work.json"),
        report=str(own / "report.json"),
        cache=str(own / "cache"),
        scratch=str(own / "scratch"),
        secrets=str(own / "secrets"),
        fetched=str(own / "fetched"),
        account=account,
    )
    command = [sys.executable, "-m", "modelyard.runtime.fetch"]
    ended = subprocess.run(command, env=variables | place.environment(), capture_output=True, timeout=60, check=False)
    assert variables["AWS_ROLE_ARN"].encode() not in ended.stderr
    told = Path(place.report)
    return ended.returncode, reports.decode(told.read_bytes()).failure if told.exists() else None


def test_a_store_is_opened_by_the_identity_of_the_account_alone(cloud: Cloud, tmp_path: Path) -> None:
    assert fetch(cloud, tmp_path, "s3://models/a/m.onnx", cloud.variables("team:reader")) == (0, None)
    assert (tmp_path / "fetched/file/m.onnx").read_bytes() == b"a model"


def test_without_an_account_in_its_place_a_process_uses_no_identity(cloud: Cloud, tmp_path: Path) -> None:
    status, failure = fetch(cloud, tmp_path, "s3://models/a/m.onnx", cloud.variables("team:reader"), account="")
    assert status == 3
    assert failure is not None
    assert failure.reason == Reason.ACCESS_DENIED
    assert failure.message.endswith("name a Secret with the right keys in credentials")


def test_an_account_that_the_role_does_not_trust_gets_nothing_and_is_told(cloud: Cloud, tmp_path: Path) -> None:
    status, failure = fetch(cloud, tmp_path, "s3://models/a/m.onnx", cloud.variables("team:other"), account="other")
    assert status == 3
    assert failure is not None
    assert failure.reason == Reason.ACCESS_DENIED
    assert "s3://models/a/m.onnx: ServiceAccount other is not given its cloud identity: status 403" in failure.message
    assert "eks.amazonaws.com/role-arn" in failure.message


def test_a_token_that_has_ended_opens_nothing(cloud: Cloud, tmp_path: Path) -> None:
    status, failure = fetch(cloud, tmp_path, "s3://models/a/m.onnx", cloud.variables("team:reader", seconds=-300))
    assert status == 3
    assert failure is not None
    assert "ServiceAccount reader is not given its cloud identity" in failure.message


def test_what_the_role_may_not_read_stays_closed(cloud: Cloud, tmp_path: Path) -> None:
    status, failure = fetch(cloud, tmp_path, "s3://data/a/m.onnx", cloud.variables("team:reader"))
    assert status == 3
    assert failure is not None
    assert failure.reason == Reason.ACCESS_DENIED
    assert "give the cloud identity of ServiceAccount reader the right to do that" in failure.message


def test_an_account_without_an_identity_is_told_how_to_get_one(cloud: Cloud, tmp_path: Path) -> None:
    variables = {**cloud.variables("team:reader"), "AWS_WEB_IDENTITY_TOKEN_FILE": ""}
    status, failure = fetch(cloud, tmp_path, "s3://models/a/m.onnx", variables)
    assert status == 3
    assert failure is not None
    assert "ServiceAccount reader has no cloud identity in this pod: annotate the account" in failure.message

"""Jobs on a real S3 server: keys, buckets, and a store that is not there."""

from collections.abc import Iterator
from pathlib import Path

import obstore
import pyarrow.dataset as ds
import pytest

from jobs_testing import job, records, s3_filesystem, secret, slow_model, state, status, write_parquet
from s3_testing import S3
from yard_testing import Yard, wait_until


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with S3(tmp_path_factory.mktemp("weed")) as found:
        write_parquet(found.store(), "in/a.parquet", records(0, 1000))
        yield found


def on(keys: str, source: str = "s3://data/in", target: str = "s3://data/out") -> dict[str, object]:
    return {
        "input": {"uri": source, **({"credentials": keys} if keys else {})},
        "output": {"uri": target, "keep": ["id"], **({"credentials": keys} if keys else {})},
    }


def message(yard: Yard, name: str) -> str:
    found = status(yard, name).get("conditions", [])
    return next((each["message"] for each in found if each["type"] == "Complete"), "")


def test_wrong_keys_and_missing_buckets_end_a_job_and_no_secret_is_told(yard: Yard, s3: S3) -> None:
    yard.apply(
        secret("right", s3.credentials()),
        secret("wrong", {**s3.credentials(), "AWS_SECRET_ACCESS_KEY": "s3cret"}),
        secret("odd", {"PASSWORD": "s3cret"}),
        job("denied", "", "", score=on("wrong")),
        job("nobody", "", "", score=on("")),
        job("unknown", "", "", score=on("odd")),
        job("bucket", "", "", score=on("right", "s3://no-such-bucket/in")),
        wait=False,
    )
    for name, reason, told in (
        ("denied", "AccessDenied", "name a Secret with the right keys in credentials"),
        ("unknown", "Invalid", "the Secret holds PASSWORD, which s3:// does not know"),
        ("bucket", "BucketNotFound", "s3://no-such-bucket/in: the bucket does not exist"),
    ):
        wait_until(lambda name=name: state(yard, name)[1] == "True", f"{name} fails")  # type: ignore[misc]
        assert state(yard, name)[2] == reason
        assert told in message(yard, name)
    everything = yard.cli("get", "modeljobs", "-o", "yaml") + (yard.folder / "up.log").read_text()
    everything += "".join(each.read_text() for each in (yard.data / "logs").glob("*.log"))
    assert "s3cret" not in everything
    yard.cli("delete", "modeljob", "nobody")


def test_a_job_waits_for_its_secret(yard: Yard, s3: S3) -> None:
    yard.apply(job("early", "", "", score=on("later", target="s3://data/early")), wait=False)
    wait_until(lambda: state(yard, "early")[2] == "SecretNotFound", "it waits")
    yard.apply(secret("later", s3.credentials()), wait=False)
    wait_until(lambda: state(yard, "early")[0] == "True", "it goes on")
    assert status(yard, "early")["rows"] == 1000


def test_a_store_that_is_away_is_told_and_waited_for(yard: Yard, tmp_path: Path) -> None:
    with S3(tmp_path) as server:
        write_parquet(server.store(), "in/a.parquet", records(0, 100))
        server.kill()
        yard.apply(secret("away", server.credentials()), job("patient", "", "", score=on("away")), wait=False)
        wait_until(lambda: state(yard, "patient")[2] == "Starting", "it tries")
        server.start()
        wait_until(lambda: state(yard, "patient")[0] == "True", "it goes on", 60)


def test_a_model_from_the_store_scores_data_in_the_store(yard: Yard, s3: S3, tmp_path: Path) -> None:
    model = slow_model(tmp_path, 0.0)[1]
    obstore.put(s3.store("models"), "slow.model", (tmp_path / "slow.model").read_bytes())
    model["metadata"]["name"] = "far"
    model["spec"] |= {"uri": "s3://models/slow.model", "credentials": "store"}
    score = {**on("store", target="s3://data/far"), "model": {"name": "far"}}
    yard.apply(secret("store", s3.credentials()), model, job("far", "", "", score=score, parallelism=2), wait=False)
    wait_until(lambda: state(yard, "far")[0] == "True", "it is done")
    table = ds.dataset("data/far", format="parquet", filesystem=s3_filesystem(s3)).to_table()
    assert sorted(table["id"].to_pylist()) == list(range(1000))

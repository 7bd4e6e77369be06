"""Jobs on a real S3 server: keys, buckets, and a store that is not there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import obstore
import pyarrow as pa
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


def on(keys: str, source: str = "s3://data/in", target: str = "s3://data/out") -> dict[str, Any]:
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


@pytest.mark.parametrize(
    ("source", "target", "reason", "told"),
    [
        ("s3://data/in", "s3://no-such-bucket/out", "BucketNotFound", "s3://no-such-bucket/out: the bucket does not"),
        ("s3://data/nothing", "s3://data/of-nothing", "InputNotFound", "there is nothing at s3://data/nothing"),
    ],
)
def test_places_that_are_not_there_are_named(
    yard: Yard, s3: S3, source: str, target: str, reason: str, told: str
) -> None:
    name = reason.lower()
    yard.apply(secret("places", s3.credentials()), job(name, "", "", score=on("places", source, target)), wait=False)
    wait_until(lambda: state(yard, name)[1] == "True", "it fails")
    assert (state(yard, name)[2], told in message(yard, name)) == (reason, True)


def test_an_output_that_may_not_be_written_is_told_and_nothing_is_there(yard: Yard, s3: S3) -> None:
    score: dict[str, Any] = on("reading", target="s3://data/forbidden")
    score["output"]["credentials"] = "writing"
    wrong = {**s3.credentials(), "AWS_SECRET_ACCESS_KEY": "n0t"}
    yard.apply(
        secret("reading", s3.credentials()), secret("writing", wrong), job("forbidden", "", "", score=score), wait=False
    )
    wait_until(lambda: state(yard, "forbidden")[1] == "True", "it fails")
    assert state(yard, "forbidden")[2] == "AccessDenied"
    assert message(yard, "forbidden").startswith("s3://data/forbidden")
    assert obstore.list(s3.store(), "forbidden").collect() == []


def test_an_object_that_is_replaced_while_it_is_read_ends_the_job(yard: Yard, s3: S3) -> None:
    for number in range(4):
        write_parquet(s3.store(), f"moving/{number}.parquet", records(number * 20_000, 20_000))
    (yard.folder / "pace").write_text("0.5")
    try:
        score = on("moving", "s3://data/moving", "s3://data/moved")
        yard.apply(secret("moving", s3.credentials()), job("moving", "", "", score=score), wait=False)
        wait_until(lambda: status(yard, "moving").get("shards"), "it has begun")
        for number in range(4):
            write_parquet(s3.store(), f"moving/{number}.parquet", records(0, 100))
    finally:
        (yard.folder / "pace").write_text("0")
    wait_until(lambda: "True" in state(yard, "moving")[:2], "it ends")
    assert state(yard, "moving")[2] == "InputChanged"


def test_a_damaged_object_is_named_and_dead_letters_lie_beside_the_results(yard: Yard, s3: S3) -> None:
    obstore.put(s3.store(), "damaged/a.parquet", b"PAR1" + bytes(100) + b"PAR1")
    table = records(0, 100).to_pydict()
    table["x"][7] = None
    write_parquet(s3.store(), "holes/a.parquet", pa.table(table))
    score = {**on("odd", "s3://data/holes", "s3://data/filled"), "errors": {"onError": "deadLetter"}}
    odd = on("odd", "s3://data/damaged", "s3://data/of-damaged")
    keys = secret("odd", s3.credentials())
    yard.apply(keys, job("damaged", "", "", score=odd), job("holes", "", "", score=score), wait=False)
    wait_until(lambda: state(yard, "damaged")[1] == "True", "it fails")
    assert (state(yard, "damaged")[2], "a.parquet" in message(yard, "damaged")) == ("InputInvalid", True)
    assert not [each for each in obstore.list(s3.store(), "of-damaged").collect() if "part-" in each["path"]]
    wait_until(lambda: state(yard, "holes")[0] == "True", "it is done")
    found = status(yard, "holes")
    assert (found["rows"], found["errorRows"], found["deadLetters"]) == (99, 1, "s3://data/filled/_run/1/errors")
    (letters,) = obstore.list(s3.store(), "filled/_run/1/errors").collect()
    letter = json.loads(bytes(obstore.get(s3.store(), letters["path"]).bytes()))
    assert (letter["key"], letter["code"]) == ({"id": 7}, "NullValue")


PROGRAM = """
import json, os, pathlib, sys
assert not [name for name in os.environ if name.startswith("AWS_")], "keys are not for the program"
if not os.environ.get("RESUME"):
    sys.exit("nothing to go on from: " + os.environ["CHECKPOINT_URI"])
model = pathlib.Path(os.environ["OUTPUT_DIR"], "model")
model.mkdir()
(model / "made.model").write_text(sys.argv[1])
pathlib.Path(os.environ["PROGRESS_FILE"]).write_text(json.dumps({"metrics": {"accuracy": 0.5}}))
"""


def test_a_program_leaves_a_model_in_the_store_without_ever_seeing_its_keys(yard: Yard, s3: S3) -> None:
    (yard.folder / "made.py").write_text(PROGRAM)
    run = {
        "command": ["python", "made.py", str(yard.folder / "pace")],
        "output": {"uri": "s3://data/made", "credentials": "made"},
        "checkpoint": {"uri": "s3://data/steps", "credentials": "made"},
        "outputModel": {"name": "made", "path": "model/made.model", "format": "slow"},
    }
    body = {**job("making", "", ""), "spec": {"run": run}}
    yard.apply(secret("made", s3.credentials()), body, wait=False)
    wait_until(lambda: "nothing to go on from: s3://data/steps" in message(yard, "making"), "it begins anew")
    obstore.put(s3.store(), "steps/41", b"weights")
    wait_until(lambda: state(yard, "making")[0] == "True", "it goes on", 60)
    kept = {each["path"] for each in obstore.list(s3.store(), "made").collect()}
    assert {"made/model/made.model", "made/_SUCCESS"} <= kept
    assert not [each for each in kept if "/files/" in each]
    spec = yard.get("model", "made")["spec"]
    assert (spec["uri"], spec["credentials"]) == ("s3://data/made/model/made.model", "made")
    assert spec["digest"] == status(yard, "making")["digest"]


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

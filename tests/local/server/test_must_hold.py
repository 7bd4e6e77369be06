"""What must hold whatever happens, with real processes."""

import json
import socket
from pathlib import Path

import psutil
import pytest

from yard_testing import Load, Yard, gone, kill, service, wait_until, write_onnx

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    write_onnx(tmp_path / "one.onnx", 1.0)
    write_onnx(tmp_path / "two.onnx", 2.0)
    return Yard(tmp_path)


def test_a_killed_server_comes_back_with_the_same_objects_and_serves_again(yard: Yard) -> None:
    yard.start()
    yard.apply(service("plus", model={"uri": "one.onnx"}, replicas=2))
    before = {
        (each["kind"], each["metadata"]["name"]): (each["metadata"]["uid"], each["spec"])
        for each in json.loads(yard.cli("get", "modelyard", "-o", "json"))["items"]
    }
    revision = yard.get("modelservice", "plus")["status"]["latestReadyRevision"]
    started = yard.children()
    yard.kill()
    gone(started)

    with yard:
        wait_until(lambda: yard.answers("plus"), "serving again")
        assert yard.predict("plus") == 1.0
        found = json.loads(yard.cli("get", "modelyard", "-o", "json"))["items"]
        assert {
            (each["kind"], each["metadata"]["name"]): (each["metadata"]["uid"], each["spec"]) for each in found
        } == before
        wait_until(lambda: yard.condition("plus").get("status") == "True", "Ready again")
        assert yard.get("modelservice", "plus")["status"]["latestReadyRevision"] == revision
        started = yard.children()
    gone(started)


def test_a_replica_that_is_killed_fails_no_request_and_is_started_again(yard: Yard) -> None:
    with yard:
        yard.apply(service("plus", model={"uri": "one.onnx"}, replicas=2))
        victim = wait_until(lambda: yard.replicas("plus"), "replicas")[0]
        with Load(yard.url, "plus") as load:
            load.more()
            kill(victim)
            load.more(200)
            wait_until(
                lambda: len(yard.replicas("plus")) == 2 and yard.condition("plus").get("status") == "True",
                "two replicas again",
            )
            load.more()
        assert load.failures == []
        told = yard.cli("describe", "modelservice", "plus")
        assert "Crashed" in told
        assert "signal 9" in told or "SIGKILL" in told


def test_an_envoy_that_is_killed_is_replaced(yard: Yard) -> None:
    with yard:
        yard.apply(service("plus", model={"uri": "one.onnx"}))
        envoy = next(each for each in yard.children() if "envoy" in each.name())
        kill(envoy)
        gone([envoy])
        wait_until(lambda: yard.answers("plus"), "serving again")
        assert yard.predict("plus") == 1.0


@pytest.mark.timeout(300)
def test_twenty_switches_under_load_fail_no_request(yard: Yard) -> None:
    with yard:
        yard.apply(service("plus", model={"uri": "one.onnx"}))
        with Load(yard.url, "plus") as load:
            load.more()
            for turn in range(20):
                expected = (2.0, 1.0)[turn % 2]
                yard.apply(service("plus", model={"uri": ("two.onnx", "one.onnx")[turn % 2]}))
                wait_until(lambda expected=expected: yard.predict("plus") == expected, f"switch {turn}")  # type: ignore[misc]
            load.more()
        assert load.failures == []
        assert load.answers == {1.0, 2.0}


def test_a_second_server_on_one_data_folder_is_told_who_has_it(yard: Yard) -> None:
    with yard:
        told = yard.cli("up", ".", "--listen", "127.0.0.1:0", check=False)
        assert "in use by another 'modelyard up'" in told
        assert str(yard.pid) in told
        yard.apply(service("plus", model={"uri": "one.onnx"}))


def test_a_port_in_use_is_named(yard: Yard) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        told = yard.cli("up", ".", "--listen", f"127.0.0.1:{port}", check=False)
    assert f"127.0.0.1:{port}" in told
    assert "--listen" in told


def test_what_is_wrong_with_a_model_is_said_and_the_server_stays_at_rest(yard: Yard) -> None:
    whole = (yard.folder / "one.onnx").read_bytes()
    (yard.folder / "truncated.onnx").write_bytes(whole[: len(whole) // 2])
    (yard.folder / "notes.txt").write_text("no model at all")
    (yard.folder / "aborts.pkl").write_bytes(b"\x80\x04cos\nabort\n(tR.")
    wrong = "sha256:" + "0" * 64
    runtime = {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "Runtime",
        "metadata": {"name": "sleepy", "namespace": "default"},
        "spec": {
            "formats": [{"name": "sleepy"}],
            "process": {"command": ["sleep", "1000"]},
            "probe": {"startupTimeout": "2s"},
        },
    }
    expected = {
        "missing": ("ArtifactNotFound", "missing.onnx"),
        "wrong-digest": ("DigestMismatch", wrong),
        "truncated": ("ArtifactInvalid", "truncated.onnx"),
        "unknown": ("FormatUnknown", "notes.txt"),
        "aborts": ("LoadFailed", "SIGABRT"),
        "sleepy": ("", "sleep"),
    }
    with yard:
        yard.apply(
            runtime,
            service("missing", model={"uri": "missing.onnx"}),
            service("wrong-digest", model={"uri": "one.onnx", "digest": wrong}),
            service("truncated", model={"uri": "truncated.onnx"}),
            service("unknown", model={"uri": "notes.txt"}),
            service("aborts", model={"uri": "aborts.pkl", "trust": "pickle"}),
            service("sleepy", model={"uri": "notes.txt", "format": "sleepy"}),
            wait=False,
        )
        for name, (reason, detail) in expected.items():
            told = wait_until(
                lambda name=name, reason=reason, detail=detail: (  # type: ignore[misc]
                    text if reason in (text := yard.cli("why", name, check=False)) and detail in text else ""
                ),
                f"why {name} says {reason} and {detail}",
                60,
            )
            assert "Traceback" not in told
        yard.apply(service("plus", model={"uri": "one.onnx"}))
        assert yard.predict("plus") == 1.0
        seen = yard.cli("get", "events", "-o", "json")
        assert sum(each.get("count", 1) for each in json.loads(seen)["items"]) < 200


def test_at_rest_the_server_and_envoy_are_small(yard: Yard) -> None:
    with yard:
        server = psutil.Process(yard.pid)
        everyone = [server, *yard.children()]
        used = sum(each.memory_full_info().pss for each in everyone) / 1e6
        assert used < 220, {each.name(): each.memory_full_info().pss / 1e6 for each in everyone}


def test_a_model_that_was_trained_again_is_served_after_refresh(yard: Yard) -> None:
    with yard:
        yard.apply(service("plus", model={"uri": "one.onnx"}))
        write_onnx(yard.folder / "one.onnx", 5.0)
        told = yard.apply(service("plus", model={"uri": "one.onnx"}), wait=False)
        assert "modelyard refresh plus" in told
        assert yard.predict("plus") == 1.0
        yard.cli("refresh", "plus")
        wait_until(lambda: yard.predict("plus") == 5.0, "the new content")
        assert yard.get("modelservice", "plus")["status"]["latestReadyRevision"].endswith("-svc-00002")


def test_stopping_leaves_no_process_and_status_zero(yard: Yard) -> None:
    yard.start()
    yard.apply(service("plus", model={"uri": "one.onnx"}))
    started = yard.children()
    assert yard.stop() == 0
    gone(started)

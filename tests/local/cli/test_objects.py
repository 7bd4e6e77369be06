"""The commands about objects, against the embedded API server. A thread plays the controllers."""

import asyncio
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
import yaml

from cli_testing import DIGEST_A, DIGEST_B, Project, condition, follow_up, model, service
from modelyard.control.ir.names import ANNOTATION_REFRESH, ANNOTATION_RESTART
from modelyard.control.kube.client import Client
from modelyard.control.kube.resources import CONFIGMAPS, MODELS, MODELSERVICES, SECRETS
from modelyard.storage.digest import digest


def test_apply_creates_then_changes_then_leaves_alone(project: Project) -> None:
    project.write("service.yaml", service(model={"name": "forest"}, replicas=1))
    first = project.run("apply", "-f", "service.yaml")
    assert first.status == 0, first.err
    assert first.out.splitlines()[0].startswith("server https://127.0.0.1:")
    assert str(project.root) in first.out.splitlines()[0]
    assert "modelservice/digits created" in first.out
    assert "modelservice/digits unchanged" in project.run("apply", "-f", "service.yaml").out
    project.write("service.yaml", service(model={"name": "forest"}, replicas=2))
    assert "modelservice/digits configured" in project.run("apply", "-f", "service.yaml").out
    assert project.get(MODELSERVICES, "digits")["spec"]["replicas"] == 2


def test_a_field_removed_from_the_manifest_goes_and_one_set_by_others_stays(project: Project) -> None:
    project.write("service.yaml", service(model={"name": "forest"}, timeout="5s"))
    project.run("apply", "-f", "service.yaml")
    project.call(lambda client: client.patch(MODELSERVICES, "default", "digits", {"spec": {"replicas": 7}}))
    project.write("service.yaml", service(model={"name": "forest"}))
    assert project.run("apply", "-f", "service.yaml").status == 0
    spec = project.get(MODELSERVICES, "digits")["spec"]
    assert spec["replicas"] == 7
    assert spec["timeout"] == "60s"  # the default again


def test_a_path_is_relative_to_its_manifest(project: Project) -> None:
    project.write("team/a/model.yaml", model(uri="../models/x.onnx"), service("inline", model={"uri": "./y.onnx"}))
    project.write("out.yaml", model("out", uri="../elsewhere.onnx"), model("far", uri="s3://bucket/x"))
    assert project.run("apply", "-f", "team/a", "-f", "out.yaml").status == 0
    assert project.get(MODELS, "forest")["spec"]["uri"] == "team/models/x.onnx"
    assert project.get(MODELSERVICES, "inline")["spec"]["model"]["uri"] == "team/a/y.onnx"
    assert project.get(MODELS, "out")["spec"]["uri"] == str(project.root.parent / "elsewhere.onnx")
    assert project.get(MODELS, "far")["spec"]["uri"] == "s3://bucket/x"


def test_all_problems_of_all_files_are_said_before_anything_is_sent(project: Project) -> None:
    project.write("a.yaml", service("good"), service("bad", model={"name": "forest"}, replica=1))
    project.write("b.yaml", model("worse", trust="me"))
    answer = project.run("apply", "-f", "a.yaml", "-f", "b.yaml")
    assert answer.status == 1
    assert "bad: spec.replica: unknown field" in answer.err
    assert "b.yaml:" in answer.err
    assert "worse: spec.trust" in answer.err
    assert "there is no" in project.run("get", "modelservice", "good").err


def test_dry_run_stores_nothing(project: Project) -> None:
    project.write("service.yaml", service())
    assert "created (dry run)" in project.run("apply", "-f", "service.yaml", "--dry-run").out
    assert project.run("get", "msvc", "digits").status == 1


def test_an_immutable_field_is_refused_with_the_next_step(project: Project) -> None:
    project.write("model.yaml", model())
    project.run("apply", "-f", "model.yaml")
    project.write("model.yaml", model(uri="other.onnx"))
    answer = project.run("apply", "-f", "model.yaml")
    assert answer.status == 1
    assert "modelyard refresh" in answer.err


def test_core_kinds_are_applied_and_secrets_are_not_shown(project: Project) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"key": "aHVudGVyMg=="}}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1", "b": "2"}}
    project.write("core.yaml", config, secret)
    assert project.run("apply", "-f", "core.yaml").status == 0
    project.write("core.yaml", {**config, "data": {"a": "1"}}, secret)
    assert "configmap/c configured" in project.run("apply", "-f", "core.yaml").out
    assert project.get(CONFIGMAPS, "c")["data"] == {"a": "1"}
    assert project.get(SECRETS, "s")["data"] == {"key": "aHVudGVyMg=="}
    described = project.run("describe", "secret", "s").out
    assert "aHVudGVyMg" not in described
    assert "12 characters" in described


def test_apply_waits_until_everything_is_ready(project: Project) -> None:
    project.write("all.yaml", service(), model())
    ready = [condition("True", "Serving", "digits-svc-00001 answers with 1 replica")]
    controllers = [
        follow_up(project, MODELS, "forest", lambda _: {"conditions": [condition("True", "Prepared")]}),
        follow_up(
            project,
            MODELSERVICES,
            "digits",
            lambda _: {"conditions": [condition("Unknown", "Starting")]},
            lambda _: {"conditions": ready},
        ),
    ]
    answer = project.run("apply", "-f", "all.yaml", "--wait", "--timeout", "15")
    for each in controllers:
        each.join()
    assert answer.status == 0, answer.err
    assert "modelservice/digits is Ready" in answer.out


def test_waiting_ends_early_when_only_a_person_can_help(project: Project) -> None:
    project.write("model.yaml", model())
    broken = [condition("False", "ArtifactInvalid", "models/forest.onnx is truncated")]
    controller = follow_up(project, MODELS, "forest", lambda _: {"conditions": broken})
    answer = project.run("apply", "-f", "model.yaml", "--wait", "--timeout", "60")
    controller.join()
    assert answer.status == 1
    assert answer.err == (
        "error: Model forest is not Ready: ArtifactInvalid: models/forest.onnx is truncated\n"
        "  'modelyard why forest' says what to do\n"
    )


def test_waiting_gives_up_in_time_and_says_what_it_saw(project: Project) -> None:
    project.write("model.yaml", model())
    answer = project.run("apply", "-f", "model.yaml", "--wait", "--timeout", "0.5")
    assert answer.status == 3
    assert "Model forest has no condition Ready yet after 0.5 s" in answer.err


def test_apply_says_that_the_bytes_are_no_longer_those_served(project: Project) -> None:
    (project.root / "models").mkdir()
    artifact = project.root / "models" / "forest.onnx"
    artifact.write_bytes(b"one")
    project.write("all.yaml", model(), service())
    project.run("apply", "-f", "all.yaml")
    project.set_status(MODELS, "forest", digest=digest(artifact))
    assert "refresh" not in project.run("apply", "-f", "all.yaml").err
    artifact.write_bytes(b"two")
    answer = project.run("apply", "-f", "all.yaml")
    assert answer.status == 0
    assert answer.err.count("'modelyard refresh forest'") == 1


def test_tables_have_the_columns_of_kubectl(project: Project) -> None:
    project.write("all.yaml", model(), service())
    project.run("apply", "-f", "all.yaml")
    project.set_status(MODELSERVICES, "digits", url="http://x", conditions=[condition("True", "Serving")])
    lines = project.run("get", "modelservices").out.splitlines()
    assert lines[0].split() == ["NAME", "URL", "READY", "REASON", "REPLICAS", "DESIRED", "LATEST", "AGE"]
    assert lines[1].split()[:4] == ["digits", "http://x", "True", "Serving"]
    everything = project.run("get", "modelyard").out
    assert "model/forest" in everything
    assert "modelservice/digits" in everything
    assert "NAMESPACE" in project.run("get", "models", "-A").out.splitlines()[0]
    assert "DIGEST" in project.run("get", "models", "-o", "wide").out.splitlines()[0]
    assert project.run("get", "models,msvc", "-o", "name").out.split() == ["model/forest", "modelservice/digits"]


def test_objects_are_printed_as_yaml_and_json(project: Project) -> None:
    project.write("all.yaml", model())
    project.run("apply", "-f", "all.yaml")
    one = yaml.safe_load(project.run("get", "model", "forest", "-o", "yaml").out)
    assert one["spec"]["uri"] == "models/forest.onnx"
    assert one["kind"] == "Model"
    several = json.loads(project.run("get", "models", "-o", "json").out)
    assert [each["metadata"]["name"] for each in several["items"]] == ["forest"]
    assert json.loads(project.run("apply", "-f", "all.yaml", "-o", "json").out)["metadata"]["name"] == "forest"


def test_what_is_not_there_is_said_in_one_sentence(project: Project) -> None:
    assert project.run("get", "models").err == "no models in namespace default\n"
    answer = project.run("get", "model", "nope")
    assert (answer.status, answer.err) == (1, "error: there is no Model nope in namespace default\n")
    assert "there is no kind 'pods'" in project.run("get", "pods").err


def test_delete_waits_until_objects_are_gone(project: Project) -> None:
    project.write("all.yaml", model(), service())
    project.run("apply", "-f", "all.yaml")
    answer = project.run("delete", "-f", "all.yaml")
    assert answer.status == 0, answer.err
    assert answer.out.splitlines()[1:] == ["modelservice/digits deleted", "model/forest deleted"]
    again = project.run("delete", "msvc", "digits")
    assert (again.status, again.err) == (1, "error: there is no ModelService digits in namespace default\n")
    assert project.run("delete", "msvc", "digits", "--ignore-not-found").status == 0


def test_refresh_reads_the_model_of_a_service_again_and_waits_for_it(project: Project) -> None:
    project.write("all.yaml", model(), service())
    project.run("apply", "-f", "all.yaml")
    project.set_status(MODELS, "forest", digest=DIGEST_A, conditions=[condition("True", "Prepared")])
    project.set_status(MODELSERVICES, "digits", digest=DIGEST_A, conditions=[condition("True", "Serving")])
    assert project.run("refresh", "digits", "--no-wait").out.endswith("model/forest is read again\n")
    first = project.get(MODELS, "forest")["metadata"]["annotations"][ANNOTATION_REFRESH]

    async def controllers(client: Client) -> None:
        stamp = first
        while stamp == first:
            body = await client.get(MODELS, "default", "forest")
            stamp = body["metadata"]["annotations"][ANNOTATION_REFRESH]
            await asyncio.sleep(0.02)
        status = {**body["status"], "digest": DIGEST_B, "prepared": {"generation": 1, "refresh": stamp}}
        await client.replace_status(MODELS, {**body, "status": status})
        body = await client.get(MODELSERVICES, "default", "digits")
        await client.replace_status(MODELSERVICES, {**body, "status": {**body["status"], "digest": DIGEST_B}})

    thread = threading.Thread(target=project.call, args=(controllers,))
    thread.start()
    answer = project.run("refresh", "digits", "--timeout", "15")
    thread.join()
    assert answer.status == 0, answer.err
    assert f"model/forest has new content: {DIGEST_B}" in answer.out
    assert "modelservice/digits serves it" in answer.out


def test_refresh_finds_the_model_that_an_inline_service_owns(project: Project) -> None:
    project.write("inline.yaml", service("inline", model={"uri": "x.onnx"}))
    project.run("apply", "-f", "inline.yaml")
    owner = project.get(MODELSERVICES, "inline")
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": "inline",
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }
    for name, uri in (("inline-00000000-model", "old.onnx"), ("inline-11111111-model", "x.onnx")):
        body = model(name, uri=uri)
        body["metadata"] |= {"namespace": "default", "ownerReferences": [reference]}
        project.call(lambda client, body=body: client.create(MODELS, body))  # type: ignore[misc]
    answer = project.run("refresh", "inline", "--no-wait")
    assert "modelservice/inline is read again" in answer.out, answer.err  # nobody knows its Model's name
    asked = [bool(project.get(MODELS, f"inline-{each * 8}-model")["metadata"].get("annotations")) for each in "01"]
    assert asked == [False, True]
    assert "there is no ModelService, ModelStream or Model nope" in project.run("refresh", "nope").err


def test_restart_asks_for_a_new_revision(project: Project) -> None:
    project.write("all.yaml", service())
    project.run("apply", "-f", "all.yaml")
    answer = project.run("restart", "digits", "--no-wait")
    assert "modelservice/digits is being restarted" in answer.out
    assert ANNOTATION_RESTART in project.get(MODELSERVICES, "digits")["metadata"]["annotations"]
    assert "modelservice/digits unchanged" in project.run("apply", "-f", "all.yaml").out


def test_why_and_describe_tell_what_failed(project: Project) -> None:
    project.write("all.yaml", service(), model())
    project.run("apply", "-f", "all.yaml")
    broken = condition("False", "ArtifactInvalid", "models/forest.onnx is truncated")
    project.set_status(MODELS, "forest", conditions=[broken])
    project.set_status(MODELSERVICES, "digits", conditions=[condition("Unknown", "ModelNotReady", "Model forest: x")])
    told = project.run("why", "digits").out
    assert "ModelService digits is not Ready: ArtifactInvalid" in told
    assert "models/forest.onnx is truncated" in told
    assert "modelyard refresh digits" in told
    assert json.loads(project.run("why", "model/forest", "-o", "json").out)["healthy"] is False
    described = project.run("describe", "modelservice", "digits").out
    assert "ModelNotReady" in described
    assert "last-applied" not in described
    unknown = project.run("why", "nope").err
    assert "there is no ModelService, ModelJob, ModelStream, Model, Runtime or AccessPolicy nope" in unknown


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_and_modelyard_apply_the_same_objects_in_turn(project: Project) -> None:
    project.write("all.yaml", service(model={"name": "forest"}, env=[{"name": "A", "value": "<&> é"}]))
    kubeconfig = project.run("kubeconfig").out.strip()
    assert Path(kubeconfig) == project.root / ".modelyard" / "kubeconfig"

    def kubectl(*arguments: str) -> str:
        environment = {**os.environ, "HOME": str(project.root)}
        command = ["kubectl", "--kubeconfig", kubeconfig, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert "created" in kubectl("apply", "-f", "all.yaml")
    assert "unchanged" in project.run("apply", "-f", "all.yaml").out
    project.write("all.yaml", service(model={"name": "forest"}))
    assert "configured" in project.run("apply", "-f", "all.yaml").out
    assert "env" not in project.get(MODELSERVICES, "digits")["spec"]
    assert "unchanged" in kubectl("apply", "-f", "all.yaml")


def test_a_stopped_server_is_said_at_once(project: Project) -> None:
    (project.root / ".modelyard" / "server.json").unlink()
    answer = project.run("get", "models")
    assert answer.status == 1
    assert f"start it with 'modelyard up {project.root}'" in answer.err


def test_a_context_is_used_only_when_it_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    kubeconfig = project.root / ".modelyard" / "kubeconfig"
    elsewhere = project.root.parent
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.chdir(elsewhere)
    assert "modelyard up" in project.run("get", "models").err
    assert project.run("get", "models", "--context", "modelyard").status == 0
    assert "there is no context 'x'" in project.run("get", "models", "--context", "x").err


def test_predict_finds_the_gateway(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("predict", "digits", "--data", "[1]")
    answer = project.run(*arguments)
    assert (answer.status, "nothing listens at http://127.0.0.1:9" in answer.err) == (3, True)
    monkeypatch.setenv("KUBECONFIG", str(project.root / ".modelyard" / "kubeconfig"))
    assert "http://127.0.0.1:9" in project.run(*arguments, "--context", "modelyard").err
    (project.root / ".modelyard" / "server.json").unlink()
    assert "digits has no URL yet" in project.run(*arguments, "--context", "modelyard").err
    project.write("all.yaml", service())
    project.run("apply", "-f", "all.yaml", "--context", "modelyard")
    project.set_status(MODELSERVICES, "digits", url="http://127.0.0.1:7/v2/models/digits")
    assert "nothing listens at http://127.0.0.1:7;" in project.run(*arguments, "--context", "modelyard").err
    project.set_status(MODELSERVICES, "digits", url="http://gateway.system.svc/v2/models/digits")
    inside = project.run(*arguments, "--context", "modelyard").err
    assert "'kubectl port-forward -n system service/gateway 8080:80'" in inside

"""`modelyard diff` against the API server."""

import json

from cli_testing import Project, condition, model, service
from modelyard.control.kube import resources


def test_nothing_is_different_after_applying_and_nothing_is_stored_by_looking(project: Project) -> None:
    project.write("service.yaml", model(), service())
    before = project.run("diff", "-f", "service.yaml")
    assert before.status == 1
    assert "modelservice/digits in default (new)" in before.out
    assert "=> new: 1 replica starts" in before.out
    assert project.run("get", "modelservices").out == ""
    assert project.run("apply", "-f", "service.yaml").status == 0
    after = project.run("diff", "-f", "service.yaml")
    assert (after.status, after.out) == (0, "")
    assert after.err == "2 objects as they are declared\n"


def test_a_change_is_shown_with_what_follows(project: Project) -> None:
    project.write("service.yaml", service())
    project.run("apply", "-f", "service.yaml")
    known = {"latestCreatedRevision": "digits-svc-00003", "latestReadyRevision": "digits-svc-00003"}
    project.set_status(resources.MODELSERVICES, "digits", conditions=[condition("True", "Serving")], **known)
    project.write("service.yaml", service(model={"name": "forest"}, replicas=2, env=[{"name": "A", "value": "b"}]))
    found = project.run("diff", "-f", "service.yaml")
    assert found.status == 1
    assert '+ spec.env[A].value: "b"' in found.out
    assert "- spec.replicas: 1\n  + spec.replicas: 2" in found.out
    assert "=> 2 replicas instead of 1 (spec.replicas)" in found.out
    assert "=> makes revision digits-svc-00004 (spec.env): its 2 replicas start beside those of" in found.out
    (told,) = json.loads(project.run("diff", "-f", "service.yaml", "-o", "json").out)
    assert told["object"] == "modelservice/digits in default"
    assert len(told["consequences"]) == 2


def test_a_field_that_the_manifest_no_longer_has_is_a_difference(project: Project) -> None:
    project.write("service.yaml", service(model={"name": "forest"}, timeout="5s"))
    project.run("apply", "-f", "service.yaml")
    project.write("service.yaml", service())
    assert '- spec.timeout: "5s"\n  + spec.timeout: "60s"' in project.run("diff", "-f", "service.yaml").out


def test_what_the_server_would_refuse_is_no_difference_but_a_failure(project: Project) -> None:
    project.write("model.yaml", model())
    project.run("apply", "-f", "model.yaml")
    project.write("model.yaml", model(uri="another.onnx"))
    found = project.run("diff", "-f", "model.yaml")
    assert found.status == 2
    assert "cannot be changed" in found.err
    project.write("model.yaml", service(model={"name": "x"}, podTemplate={"spec": {"hostNetwork": True}}))
    wrong = project.run("diff", "-f", "model.yaml")
    assert wrong.status == 2
    assert "spec.podTemplate.spec.hostNetwork: must be false" in wrong.err


def test_a_namespace_that_is_among_the_manifests_need_not_be_there(project: Project) -> None:
    there = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}
    inside = {**service(), "metadata": {"name": "digits", "namespace": "team"}}
    project.write("all.yaml", there, inside)
    found = project.run("diff", "-f", "all.yaml")
    assert found.status == 1, found.err
    assert "namespace/team (new)" in found.out
    assert "modelservice/digits in team (new)" in found.out

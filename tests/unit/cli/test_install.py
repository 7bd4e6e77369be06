"""`modelyard install`, as far as no cluster is needed."""

from typing import Any

import pytest
import yaml

import modelyard
from modelyard.base.errors import UserError
from modelyard.cli import install, main, rollout, uninstall
from modelyard.control.kube import resources
from modelyard.control.render.install_options import Options
from modelyard.control.render.install_record import Record

Object = dict[str, Any]


def printed(capsys: pytest.CaptureFixture[str], *options: str) -> list[Object]:
    assert main(["install", "--print", *options]) == 0
    return list(yaml.safe_load_all(capsys.readouterr().out))


def named(found: list[Object], kind: str, name: str) -> Object:
    return next(each for each in found if (each["kind"], each["metadata"]["name"]) == (kind, name))


def test_manifests_are_printed_without_a_cluster(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    found = printed(capsys)
    assert found[0]["kind"] == "Namespace"
    (container,) = named(found, "Deployment", "modelyard-operator")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"localhost/modelyard-operator:{modelyard.__version__}"


def test_options_say_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(
        capsys,
        *("--image-prefix", "registry.example.com:5000/ml/", "--image-tag", "7"),
        *("--gateway-replicas", "3", "--gateway-memory", "2Gi", "--gateway-service", "NodePort"),
        *("--pull-secret", "registry", "--no-network-policies"),
    )
    gateway = named(found, "Deployment", "modelyard-gateway")["spec"]
    (container,) = gateway["template"]["spec"]["containers"]
    assert gateway["replicas"] == 3
    assert container["image"] == "registry.example.com:5000/ml/gateway:7"
    assert container["resources"]["limits"] == {"memory": "2Gi"}
    assert named(found, "Service", "modelyard-gateway")["spec"]["type"] == "NodePort"
    assert not [each for each in found if each["kind"] == "NetworkPolicy"]


def test_all_options_that_are_wrong_are_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ("--image-prefix", "Not a registry", "--image-tag", "a b", "--pull-secret", "X", "--gateway-memory", "1")
    assert main(["install", "--print", *wrong]) == 2
    told = capsys.readouterr().err
    for option in ("--image-prefix", "--image-tag", "--pull-secret", "--gateway-memory"):
        assert option in told


def decided(former: Record, *said: str) -> tuple[Options, list[str]]:
    return install.decided(install.command.make_context("install", list(said)), former)


HERE = modelyard.__version__
FORMER = Record(HERE, HERE, ("--pull-secret=a", "--pull-secret=b", "--gateway-replicas=3", "--no-network-policies"))


def test_the_same_again_needs_no_options() -> None:
    options, news = decided(FORMER)
    assert (options.pull_secrets, options.gateway_replicas, options.network_policies) == (("a", "b"), 3, False)
    (told,) = news
    assert told.startswith("as before: --pull-secret=a --pull-secret=b --gateway-replicas=3 --no-network-policies")
    assert "--defaults" in told


def test_what_is_said_now_wins_and_the_difference_is_told() -> None:
    options, news = decided(FORMER, "--gateway-replicas", "2", "--network-policies", "--pull-secret", "c")
    assert (options.pull_secrets, options.gateway_replicas, options.network_policies) == (("c",), 2, True)
    assert news == ["pull-secret: a, b -> c", "gateway-replicas: 3 -> 2", "network-policies: no -> yes"]


def test_defaults_forget_all_but_what_is_said_with_them() -> None:
    options, news = decided(FORMER, "--defaults", "--gateway-replicas", "4")
    assert options == Options(version=HERE, gateway_replicas=4)
    assert news == ["pull-secret: a, b -> none", "gateway-replicas: 3 -> 4", "network-policies: no -> yes"]


def test_the_tag_of_the_images_is_that_of_the_command_line_unless_it_is_said() -> None:
    former = Record(HERE, "7", ())
    assert decided(former) == (Options(version=HERE), [f"image-tag: 7 -> {HERE}"])
    assert decided(former, "--image-tag", "8")[0].version == "8"


def test_an_older_command_line_goes_back_only_when_told() -> None:
    newer = Record("99.0.0", "99.0.0", ("--gateway-replicas=3",))
    with pytest.raises(UserError, match=rf"Modelyard 99\.0\.0 is installed there.*{HERE}.*--downgrade"):
        decided(newer)
    options, news = decided(newer, "--downgrade")
    assert options.gateway_replicas == 3
    assert news[0] == f"version: 99.0.0 -> {HERE}"


@pytest.mark.parametrize("remembered", ["--colour=red", "--gateway-replicas=many", "--gateway-memory=1", "nothing"])
def test_what_is_remembered_and_cannot_be_taken_is_told_with_the_way_out(remembered: str) -> None:
    former = Record(HERE, HERE, (remembered,))
    with pytest.raises(UserError, match=r"ConfigMap modelyard-install in modelyard-system.*--defaults"):
        decided(former, "--operator-replicas", "3")
    options, news = decided(former, "--operator-replicas", "3", "--defaults")
    assert options == Options(version=HERE, operator_replicas=3)
    assert news == [f"forgotten: {remembered}"]


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_a_cluster_is_named_and_never_guessed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command]) == 2
    assert "name the cluster with --context NAME" in capsys.readouterr().err


def test_a_refusal_counts_what_is_there() -> None:
    def body(namespace: str) -> Object:
        return {"metadata": {"namespace": namespace, "name": "x"}}

    told = uninstall.refusal(
        {resources.MODELSERVICES: [body("a"), body("a"), body("b")], resources.MODELS: [body("a")]}
    )
    assert "  2 modelservices in namespace a\n" in told
    assert "  1 modelservice in namespace b\n" in told
    assert "  1 model in namespace a\n" in told
    assert "--delete-objects" in told


def deployment(wanted: int, **status: int) -> Object:
    return {"metadata": {"generation": 2}, "spec": {"replicas": wanted}, "status": {"observedGeneration": 2, **status}}


def test_rolled_out_means_all_of_the_new_template_and_none_of_the_old() -> None:
    assert rollout.rolled_out(deployment(2, replicas=2, updatedReplicas=2, availableReplicas=2))
    assert not rollout.rolled_out(deployment(2, replicas=3, updatedReplicas=2, availableReplicas=3))
    assert not rollout.rolled_out(deployment(2, replicas=2, updatedReplicas=2, availableReplicas=1))
    assert not rollout.rolled_out(deployment(2, observedGeneration=1, replicas=2, updatedReplicas=2))
    assert not rollout.rolled_out(deployment(2))


def test_progress_tells_of_both_versions() -> None:
    found = rollout.progress(deployment(2, replicas=3, updatedReplicas=2, availableReplicas=1))
    assert found == "1 of 2 replicas are ready, 1 of the version before still runs"


def test_causes_are_the_words_of_scheduler_and_kubelet() -> None:
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such host"}}}
    crashed = {
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"reason": "Error", "exitCode": 1, "message": "no key\n"}},
    }
    assert list(rollout.causes({"status": {"conditions": [unschedulable]}})) == ["Unschedulable: 0/1 nodes"]
    pulling, step = rollout.causes({"status": {"containerStatuses": [waiting]}})
    assert pulling == "ImagePullBackOff: no such host"
    assert "--image-prefix" in step
    found = list(rollout.causes({"status": {"containerStatuses": [crashed]}}))
    assert found == ["Error with status 1: no key", "CrashLoopBackOff"]

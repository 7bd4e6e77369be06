"""Another version takes over under traffic, and goes again: nothing of what runs is touched by it, or fails."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from another_version_testing import AnotherVersion
from cluster_serving_testing import may_call, model, models, secret, service
from cluster_testing import HOST, Namespace
from installation_testing import Installation
from kubectl_testing import until
from modelyard import __version__
from yard_testing import Load, call

Object = dict[str, Any]
NEWER = "9.9.9"
CALLS = 40
"""Before and after, at about 40 a second."""
pytestmark = pytest.mark.timeout(900)


def pods(namespace: Namespace) -> list[Object]:
    """Those of the service."""
    return staying(namespace.all("pods", "-l", "modelyard.dev/service=plus"))


def staying(found: list[Object]) -> list[Object]:
    """Those that are not going: gateways take half a minute for that."""
    return [each for each in found if "deletionTimestamp" not in each["metadata"]]


def ready(namespace: Namespace, count: int, tag: str) -> bool:
    """Whether the service has so many pods, all of this version and ready."""
    found = pods(namespace)
    states = [state for pod in found for state in pod["status"].get("containerStatuses") or [{"ready": False}]]
    return len(found) == count and tags(found) == {tag} and all(state["ready"] for state in states)


def tags(found: list[Object]) -> set[str]:
    """Of the images of all their containers."""
    containers = [
        each for pod in found for kind in ("initContainers", "containers") for each in pod["spec"].get(kind, ())
    ]
    return {each["image"].rpartition(":")[2] for each in containers}


def identities(namespace: Namespace) -> set[tuple[str, int]]:
    """The pods, and how often they were started."""
    return {
        (pod["metadata"]["uid"], sum(each["restartCount"] for each in pod["status"]["containerStatuses"]))
        for pod in pods(namespace)
    }


def replace(to: Installation, load: Load, *options: str) -> str:
    """Install while calls are answered; what was told."""
    load.more(CALLS)
    begun = time.monotonic()
    told = to.run("install", *options).out
    print(f"from the command to all replaced: {time.monotonic() - begun:.1f} s, {load.sent} calls until then")
    load.more(CALLS)
    assert load.failures == []
    return told


def test_another_version_comes_and_goes_under_traffic(
    installed: Installation, namespace: Namespace, tmp_path: Path
) -> None:
    installed.install()
    newer = AnotherVersion(installed, tmp_path / "newer", NEWER)
    newer.load_images()
    with models(tmp_path, HOST) as s3:
        begun = time.monotonic()
        namespace.apply(
            secret("lake", s3.credentials()),
            model("plus-1", "s3://models/plus-1.onnx"),
            service("plus", "plus-1", replicas=2),
        )
        name, token = f"plus.{namespace.name}", may_call(namespace, "app", "plus")
        until(lambda: ready(namespace, 2, __version__), 120)
        until(lambda: call(installed.url, name, token) == 200, 30)
        print(f"apply to two replicas that answer: {time.monotonic() - begun:.1f} s")
        try:
            with Load(installed.url, name, token=token, pause=0.1) as load:
                changed(installed, newer, namespace, load)
            assert load.failures == []
            assert load.answers == {1.0}
        finally:
            installed.install("--downgrade")


def changed(installed: Installation, newer: Installation, namespace: Namespace, load: Load) -> None:
    """There and back."""
    first = identities(namespace)
    assert f"version: {__version__} -> {NEWER}" in replace(newer, load)
    assert identities(namespace) == first
    assert tags(staying(newer.pods("operator") + newer.pods("gateway"))) == {NEWER}

    namespace("scale", "modelservice", "plus", "--replicas=3")
    until(partial(ready, namespace, 3, __version__), 90)
    assert identities(namespace) > first
    specs = [each["spec"] for each in pods(namespace)]
    assert [each for each in specs if each != specs[0]] == [], "a new pod is like its siblings, which are older"

    newer.run("restart", "plus", "-n", namespace.name)
    until(partial(ready, namespace, 3, NEWER), 120)
    second = identities(namespace)

    refused = installed.run("install", code=1).err
    assert f"Modelyard {NEWER} is installed there, and this command line is {__version__}" in refused
    assert f"version: {NEWER} -> {__version__}" in replace(installed, load, "--downgrade")
    assert identities(namespace) == second, "they stay as the newer version has made them"
    assert tags(staying(installed.pods("operator") + installed.pods("gateway"))) == {__version__}
    installed.run("restart", "plus", "-n", namespace.name)
    until(partial(ready, namespace, 3, __version__), 120)
    load.more(CALLS)

"""Which pods and containers `modelyard logs` shows on a cluster."""

from typing import Any

from modelyard.cli.pod_logs import Source, containers, newest

Object = dict[str, Any]


def pod(name: str, unit: str = "", created: str = "2026-01-01T00:00:00Z", task: str = "") -> Object:
    labels = {"modelyard.dev/unit": unit} if unit else {"modelyard.dev/task": task}
    return {"metadata": {"name": name, "labels": labels, "creationTimestamp": created}}


def names(pods: list[Object]) -> list[str]:
    return [each["metadata"]["name"] for each in pods]


def test_the_newest_revision_is_shown_even_while_an_older_one_gets_new_pods() -> None:
    found = [
        pod("old", "digits-svc-00009", "2026-01-03T00:00:00Z"),
        pod("b", "digits-svc-00010"),
        pod("a", "digits-svc-00010"),
    ]
    assert names(newest(found)) == ["a", "b"]
    assert names(newest(found, "digits-svc-00009")) == ["old"]
    assert newest([]) == []


def test_of_several_jobs_of_one_name_the_last_one_is_shown() -> None:
    found = [
        pod("first", task="score-job-ffffffff", created="2026-01-01T00:00:00Z"),
        pod("second", task="score-job-00000001", created="2026-01-02T00:00:00Z"),
    ]
    assert names(newest(found)) == ["second"]


def test_containers_that_have_begun_are_shown_in_their_order_and_sidecars_are_not() -> None:
    status = {
        "initContainerStatuses": [{"name": "fetch", "state": {"terminated": {}}}],
        "containerStatuses": [
            {"name": "istio-proxy", "state": {"running": {}}},
            {"name": "main", "state": {"running": {}}},
        ],
    }
    assert containers({**pod("p"), "status": status}) == [
        Source(pod="p", container="fetch"),
        Source(pod="p", container="main"),
    ]


def test_of_one_that_waits_to_be_started_again_the_last_words_are_shown() -> None:
    waiting = {"name": "main", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 3}
    assert containers({**pod("p"), "status": {"containerStatuses": [waiting]}}) == [
        Source(pod="p", container="main", previous=True)
    ]
    new = {**waiting, "restartCount": 0}
    assert containers({**pod("p"), "status": {"containerStatuses": [new]}}) == []
    assert containers(pod("p")) == []

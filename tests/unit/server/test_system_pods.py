from typing import Any

from modelyard.server.system_pods import Gateways, Label, gateways, labels


def pod(name: str, component: str = "operator", **metadata: Any) -> dict[str, Any]:
    marked = {"app.kubernetes.io/component": component, **metadata.pop("labels", {})}
    return {"metadata": {"name": name, "labels": marked, **metadata}}


LEADS = {"modelyard.dev/leader": "true"}


def ready(pod: dict[str, Any], status: str = "True") -> dict[str, Any]:
    return {**pod, "status": {"conditions": [{"type": "ContainersReady"}, {"type": "Ready", "status": status}]}}


def test_the_label_is_taken_from_others_before_the_leader_gets_it() -> None:
    pods = [pod("c", labels=LEADS), pod("a"), pod("b", labels=LEADS), pod("g", "gateway", labels=LEADS)]
    assert labels(pods, "a") == (Label("b", leads=False), Label("c", leads=False), Label("a", leads=True))


def test_nothing_is_done_when_the_leader_alone_has_it() -> None:
    assert labels([pod("a", labels=LEADS), pod("b")], "a") == ()


def test_a_leader_outside_of_the_cluster_leaves_no_pod_with_it() -> None:
    assert labels([pod("a", labels=LEADS), pod("b")], "") == (Label("a", leads=False),)


def test_gateways_serve_until_they_are_told_to_end() -> None:
    going = ready(pod("d", "gateway", deletionTimestamp="2026-11-28T00:00:00Z"))
    pods = [
        ready(pod("a", "gateway")),
        ready(pod("b", "gateway"), "False"),
        pod("c", "gateway"),
        going,
        ready(pod("o")),
    ]
    assert gateways(pods) == Gateways(frozenset({"a"}), frozenset({"d"}))

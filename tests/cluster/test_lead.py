"""Which operator leads on a real cluster, when the one that does is killed, stopped, or ends in order."""

import datetime
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from cluster.node.files import AUDIT
from cluster_serving_testing import service
from cluster_testing import Namespace
from installation_testing import SYSTEM, Installation
from kubectl_testing import until

Object = dict[str, Any]
LEADS = "modelyard.dev/leader"


@dataclass(frozen=True)
class Operators:
    """The pods of the operator."""

    installed: Installation

    def leader(self) -> str:
        """Name of the pod that has the Lease and, alone, the label; "" while there is none."""
        lease = self.installed.find("lease", "modelyard-operator")["spec"]
        holder = str(lease.get("holderIdentity", "")).partition("_")[0]
        labelled = {name for name, pod in self.pods().items() if pod["metadata"]["labels"].get(LEADS) == "true"}
        return holder if labelled == {holder} else ""

    def pods(self) -> dict[str, Object]:
        """Those that are not going, by name."""
        found = self.installed.pods("operator")
        return {each["metadata"]["name"]: each for each in found if "deletionTimestamp" not in each["metadata"]}

    def signal(self, pod: str, which: str) -> float:
        """To the process in a pod; -> when."""
        self.installed.cluster.signal(self.pods()[pod], f"SIG{which}")
        return time.monotonic()

    def writes(self, pod: str) -> list[tuple[float, str]]:
        """What the API server was asked by a pod to change: when (seconds since 1970), and what."""
        found = []
        for line in (self.installed.cluster.node.work / AUDIT).read_text().splitlines():
            noted = json.loads(line)
            if noted["user"].get("extra", {}).get("authentication.kubernetes.io/pod-name") == [pod]:
                at = datetime.datetime.fromisoformat(noted["requestReceivedTimestamp"])
                found.append((at.timestamp(), f"{noted['verb']} {noted['requestURI']}"))
        return found

    def changes(self, before: str, seconds: float) -> str:
        """Wait until another one leads."""
        until(lambda: self.leader() not in ("", before), seconds)
        return self.leader()

    def logs(self, pod: str, *options: str) -> str:
        return self.installed.kubectl("-n", SYSTEM, "logs", pod, *options)

    def ended(self, pod: str) -> Object:
        """How the process in a pod ended last; {} if it never did."""
        (status,) = self.pods()[pod]["status"]["containerStatuses"]
        found: Object = status.get("lastState", {}).get("terminated", {})
        return found

    def settled(self) -> bool:
        ready = [each["status"].get("containerStatuses", [{}])[0].get("ready") for each in self.pods().values()]
        return ready == [True, True] and self.leader() != ""


@pytest.fixture
def operators(installed: Installation) -> Iterator[Operators]:
    _ = installed.cluster.node  # processes are killed there
    found = Operators(installed)
    until(found.settled, 60)
    yield found
    until(found.settled, 60)


def test_one_leads_and_the_gateways_are_connected_to_it_alone(operators: Operators) -> None:
    leader = operators.leader()
    (waits,) = set(operators.pods()) - {leader}
    slices = json.loads(
        operators.installed.kubectl(
            *("-n", SYSTEM, "get", "endpointslices", "-l", "kubernetes.io/service-name=modelyard-xds", "-o", "json")
        )
    )["items"]
    (address,) = (address for each in slices for end in each.get("endpoints") or () for address in end["addresses"])
    assert address == operators.pods()[leader]["status"]["podIP"]
    assert "is connected" not in operators.logs(waits)


@pytest.mark.timeout(300)
def test_one_that_ends_in_order_hands_over_at_once(operators: Operators) -> None:
    leader = operators.leader()
    operators.installed.kubectl("-n", SYSTEM, "delete", "pod", leader, "--wait=false")
    began = time.monotonic()
    operators.changes(leader, 20)
    assert time.monotonic() - began < 10


@pytest.mark.timeout(300)
def test_when_the_leader_is_killed_the_other_one_leads_after_the_lease(operators: Operators) -> None:
    leader = operators.leader()
    killed = operators.signal(leader, "KILL")
    operators.changes(leader, 40)
    assert 10 < time.monotonic() - killed < 30


@pytest.mark.timeout(300)
def test_a_leader_that_was_stopped_for_long_writes_nothing_when_it_wakes(
    operators: Operators, namespace: Namespace
) -> None:
    leader = operators.leader()
    namespace.apply(service("before", "nothing"))
    until(lambda: namespace.find("modelservice", "before").get("status"), 30)
    operators.signal(leader, "STOP")
    other = operators.changes(leader, 40)
    namespace.apply(service("meanwhile", "nothing"))
    namespace("delete", "modelservice", "before")
    until(lambda: namespace.find("modelservice", "meanwhile").get("status"), 30)
    woken = time.time()
    operators.signal(leader, "CONT")
    until(lambda: operators.ended(leader) != {}, 30)
    assert operators.ended(leader)["exitCode"] == 1
    assert "is lost: it could not be renewed for" in operators.logs(leader, "--previous")
    assert operators.leader() == other
    assert any("modelservices/before/status" in what for _, what in operators.writes(leader))
    assert any("modelservices/meanwhile/status" in what for _, what in operators.writes(other))
    assert [what for at, what in operators.writes(leader) if at >= woken] == []

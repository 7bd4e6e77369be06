"""The real and the embedded API server say the same about the same objects.

Compared are: accepted or refused, the status and its reason, which fields are named, and, of what is accepted, what
would be stored, defaults included. Words are not compared. Where Kubernetes says that it stopped before it had looked
at all rules, or names no field, the embedded server may name more. Known to differ, and left out: the embedded server
alone takes `2.0` for a whole number.
"""

from collections.abc import Iterator

import pytest

from cluster_testing import Cluster, namespace
from kubectl_testing import Kubectl, running
from modelyard.control.kube import auth
from modelyard.control.kube.client import Client
from verdicts_testing import cases, judge

CASES = cases()
PLACE = "verdicts"


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[auth.ClientConfig]:
    folder = tmp_path_factory.mktemp("embedded")
    with running(folder / "data") as server:
        Kubectl(server.kubeconfig, folder)("create", "namespace", PLACE)
        yield auth.load(server.kubeconfig)


@pytest.fixture(scope="module")
def place(defined: Cluster) -> Iterator[str]:
    with namespace(defined) as found:
        yield found.name


@pytest.mark.parametrize("group", sorted({name.rpartition("-")[0] for name in CASES}))
async def test_both_servers_say_the_same(group: str, cluster: Cluster, place: str, embedded: auth.ClientConfig) -> None:
    differences: list[str] = []
    async with Client(cluster.config) as real, Client(embedded) as ours:
        for name, case in CASES.items():
            if name.rpartition("-")[0] == group:
                expected, found = await judge(real, place, case), await judge(ours, PLACE, case)
                if not found.agrees(expected):
                    differences.append(f"{name}\n  Kubernetes: {expected}\n  embedded: {found}")
    assert not differences, "\n".join(differences)


def test_there_are_many_cases_of_every_kind_some_good_and_some_bad() -> None:
    kinds = {case.kind or (case.old or case.new)["kind"] for case in CASES.values()}
    assert kinds == {"AccessPolicy", "Model", "ModelJob", "ModelService", "ModelStream", "Runtime"}
    assert len(CASES) > 250

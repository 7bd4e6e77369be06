"""What tests on a real cluster begin with."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from cluster_testing import HOST, Cluster, Namespace, connected
from cluster_testing import namespace as fresh
from installation_testing import Installation
from nats_testing import Nats
from s3_testing import S3
from stand_in_image_testing import archive

_failed = pytest.StashKey[bool]()
_DECIDING = ("test_api_engine", "test_api_faults")
_SINGLE = ("test_driver_", "test_goldens")
"""Modules whose tests have nothing in common that is dear to make."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n` each worker has a node of its own, and a module stays on one; single tests fill what is left."""
    return Modules(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """First what decides itself, before an installed operator does; last what fills gaps."""
    items.sort(key=lambda item: (not item.path.name.startswith(_DECIDING), item.path.name.startswith(_SINGLE)))
    config.option.loadscopereorder = False


class Modules(LoadScopeScheduling):  # type: ignore[misc]  # xdist is not typed
    """In the order of the items."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return nodeid if Path(module).name.startswith(_SINGLE) else module


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Remember failures, for the fixtures that tell more about them."""
    report = yield
    item.stash[_failed] = item.stash.get(_failed, False) or report.failed
    return report


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster: kubeconfig, kubectl, and `node` for its inside (skipped on another cluster than ours)."""
    with connected(tmp_path_factory.mktemp("home")) as found:
        yield found


@pytest.fixture(scope="session")
def defined(cluster: Cluster) -> Cluster:
    """The cluster, with our kinds of this checkout."""
    cluster.define()
    return cluster


@pytest.fixture(scope="session")
def stand_in(cluster: Cluster) -> None:
    """The image of `stand_in.py` is in the node."""
    cluster.node.load(archive())


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A fresh namespace under the profile *restricted*. When the test fails, what is in it is printed."""
    with fresh(cluster) as found:
        yield found
        if request.node.stash.get(_failed, False):
            print(found.told())


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Installation:
    """Modelyard of this checkout, installed and ready; it stays for the tests that follow."""
    found = Installation(cluster)
    found.install()
    return found


@pytest.fixture
def s3(cluster: Cluster, tmp_path: Path) -> Iterator[S3]:
    """A real S3 server on the machine, at the address that pods reach (`endpoint`, `credentials()`)."""
    _ = cluster.node  # pods reach this machine from our node only
    with S3(tmp_path / "s3", HOST) as server:
        yield server


@pytest.fixture
def nats(cluster: Cluster, tmp_path: Path) -> Iterator[Nats]:
    """A real NATS server on the machine, at the address that pods reach (`uri`)."""
    _ = cluster.node  # pods reach this machine from our node only
    with Nats(tmp_path / "nats", address=HOST) as server:
        yield server

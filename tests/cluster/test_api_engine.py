"""The control loop on a real API server."""

import pytest

from cluster_testing import Cluster, Namespace
from engine_suite import EngineSuite
from modelyard.control.kube.auth import ClientConfig

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def place(defined: Cluster, namespace: Namespace) -> tuple[ClientConfig, str]:
    return defined.config, namespace.name


class TestKubernetes(EngineSuite):
    """What it does with every server."""

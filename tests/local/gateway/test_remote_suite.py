"""Envoys that connect by themselves keep the gateway's contract, be it one or several."""

from collections.abc import AsyncIterator

import pytest

from modelyard.testing.gateway_suite import GatewaySuite
from network_testing import needs_network
from remote_testing import RemoteRig, remote_rig

pytestmark = needs_network


class TestOneEnvoy(GatewaySuite):
    """Everything in the suite."""

    @pytest.fixture
    async def rig(self) -> AsyncIterator[RemoteRig]:
        async with remote_rig(1) as found:
            yield found


class TestTwoEnvoys(GatewaySuite):
    """What they answer must be the same."""

    @pytest.fixture
    async def rig(self) -> AsyncIterator[RemoteRig]:
        async with remote_rig(2) as found:
            yield found

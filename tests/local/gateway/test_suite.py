"""Envoy keeps the gateway's contract."""

from modelyard.testing.gateway_suite import GatewaySuite


class TestEnvoyGateway(GatewaySuite):
    """Everything in the suite."""

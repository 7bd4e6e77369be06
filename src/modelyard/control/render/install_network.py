"""Services, NetworkPolicies and disruption budgets of operator and gateway."""

from modelyard.control.ir import names
from modelyard.control.render.install_options import (
    GATEWAY,
    HTTP_PORT,
    INTERNAL,
    OPERATOR,
    XDS,
    Object,
    Options,
    made,
    selector,
)
from modelyard.control.render.xds_bootstrap import (
    HEALTH_PORT,
    INTERNAL_PORT,
    PUBLIC_PORT,
    STATS_PORT,
    XDS_PORT,
)

_MODELS = {names.LABEL_NAME: names.POD_NAME, names.LABEL_MANAGED_BY: names.MANAGER}
LEADER = {"modelyard.dev/leader": "true"}
"""The operator that decides puts this label on its own pod."""


def services(options: Options) -> list[Object]:
    """For callers, for callers inside the cluster alone, and for gateways that look for the leader."""
    # One listener: whether it speaks TLS is said by the settings, so both usual ports lead there.
    ports = [_port("http", 80, "gateway"), _port("https", 443, "gateway")]
    public = {"type": options.service_type, "selector": selector("gateway"), "ports": ports}
    internal = {"type": "ClusterIP", "selector": selector("gateway"), "ports": [_port("http", 80, "internal")]}
    xds = {
        "type": "ClusterIP",
        "selector": {**selector("operator"), **LEADER},
        "ports": [_port("xds", XDS_PORT, "xds")],
        # A leader that is busy with its start is still the one to ask.
        "publishNotReadyAddresses": True,
    }
    return [
        {**made("v1", "Service", GATEWAY, options, "gateway"), "spec": public},
        {**made("v1", "Service", INTERNAL, options, "gateway"), "spec": internal},
        {**made("v1", "Service", XDS, options, "operator"), "spec": xds},
    ]


def budgets(options: Options) -> list[Object]:
    """Nodes are drained one pod at a time; one that is not ready keeps no node from that."""
    return [
        {
            **made("policy/v1", "PodDisruptionBudget", name, options, component),
            "spec": {
                "maxUnavailable": 1,
                "selector": {"matchLabels": selector(component)},
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
            },
        }
        for name, component in ((OPERATOR, "operator"), (GATEWAY, "gateway"))
    ]


def policies(options: Options) -> list[Object]:
    """Who may reach operator and gateway. What they reach themselves is not limited: issuers, stores, the API."""
    gateways, operators = _pods("gateway"), _pods("operator")
    operator = [_from([gateways], XDS_PORT), _from([], HTTP_PORT)]
    gateway = [
        _from([], PUBLIC_PORT, HEALTH_PORT),  # the kubelet asks the second one, and no policy can name it
        _from([{"namespaceSelector": {}}], INTERNAL_PORT),
        _from([operators], STATS_PORT),
        # A revision that gets copies of requests. Who has not the secret of one is told nothing there.
        _from([{"namespaceSelector": {}, "podSelector": {"matchLabels": _MODELS}}], names.SHADOW_PORT),
    ]
    return [
        _policy(options, OPERATOR, "operator", operator),
        _policy(options, GATEWAY, "gateway", gateway),
    ]


def _policy(options: Options, name: str, component: str, ingress: list[Object]) -> Object:
    spec = {"podSelector": {"matchLabels": selector(component)}, "policyTypes": ["Ingress"], "ingress": ingress}
    return {**made("networking.k8s.io/v1", "NetworkPolicy", name, options, component), "spec": spec}


def _from(peers: list[Object], *ports: int) -> Object:
    """Without peers: from anywhere."""
    open_ports = [{"port": port, "protocol": "TCP"} for port in ports]
    return ({"from": peers} if peers else {}) | {"ports": open_ports}


def _pods(component: str) -> Object:
    return {"podSelector": {"matchLabels": selector(component)}}


def _port(name: str, port: int, target: str) -> Object:
    return {"name": name, "port": port, "targetPort": target, "protocol": "TCP"}

"""The Deployments of operator and gateway. Their pods meet the Pod Security profile *restricted*."""

from typing import Any

from modelyard.base import ids
from modelyard.control.ir import names
from modelyard.control.render import xds_bootstrap
from modelyard.control.render.install_options import (
    GATEWAY,
    HTTP_PORT,
    NAMESPACE,
    OPERATOR,
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

_USER = 65532
_FOLDER = "/etc/modelyard"
CERTIFICATES = "modelyard-gateway-tls"
"""Secret that the operator makes and renews: with it gateways show to the operator that they are ours."""
BOOTSTRAP = "modelyard-gateway"
"""ConfigMap."""
DRAIN_SECONDS = 25
"""How long a gateway that ends goes on answering: news of its end spreads, connections are closed one by one."""


def deployments(options: Options) -> list[Object]:
    """Operator and gateway."""
    return [_operator(options), _gateway(options)]


def bootstrap(options: Options) -> Object:
    """What Envoy starts with."""
    found = made("v1", "ConfigMap", BOOTSTRAP, options, "gateway")
    return {**found, "data": _files(options)}


def _files(options: Options) -> dict[str, str]:
    return xds_bootstrap.files(memory_bytes=options.gateway_memory_bytes)


def _operator(options: Options) -> Object:
    container = {
        "name": "operator",
        "image": options.image("operator"),
        "imagePullPolicy": options.pull_policy,
        "command": ["/usr/local/bin/python3", "-m", "modelyard.server.operator"],
        "env": [
            *_own_names(),
            *_values(
                MODELYARD_VERSION=options.version,
                MODELYARD_IMAGE_PREFIX=options.image_prefix,
                MODELYARD_IMAGE_PULL_POLICY=options.pull_policy,
                MODELYARD_IMAGE_PULL_SECRETS=",".join(options.pull_secrets),
                MODELYARD_GATEWAY_URL=f"http://{GATEWAY}.{NAMESPACE}.svc",
                MODELYARD_DATA="/var/lib/modelyard",
                HOME="/tmp",  # noqa: S108  a volume of the pod's own
            ),
        ],
        "ports": [_port("xds", XDS_PORT), _port("http", HTTP_PORT)],
        "startupProbe": _probe("/healthz", "http", periodSeconds=2, failureThreshold=60),
        "readinessProbe": _probe("/readyz", "http", periodSeconds=2),
        "livenessProbe": _probe("/healthz", "http", periodSeconds=10),
        "resources": options.operator_resources,
        "securityContext": _contained(),
        "volumeMounts": [
            {"name": "data", "mountPath": "/var/lib/modelyard"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        ],
    }
    volumes = [_empty("data", "256Mi"), _empty("tmp", "64Mi")]
    spec = _pod(options, OPERATOR, container, volumes, token=True) | {
        "terminationGracePeriodSeconds": 30,
        "affinity": _apart("operator"),
    }
    return _deployment(options, OPERATOR, "operator", options.operator_replicas, spec)


def _gateway(options: Options) -> Object:
    files = _files(options)
    container = {
        "name": "envoy",
        "image": options.image("gateway"),
        "imagePullPolicy": options.pull_policy,
        "command": ["/usr/local/bin/envoy"],
        "args": [
            *("-c", f"{_FOLDER}/bootstrap.yaml"),
            *("--service-node", "$(POD_NAME)", "--service-zone", "$(POD_ZONE)"),
            *xds_bootstrap.ARGUMENTS,
        ],
        "env": [*_own_names(), _from_pod("POD_ZONE", f"metadata.labels['{names.LABEL_ZONE}']")],
        "ports": [
            _port("gateway", PUBLIC_PORT),
            _port("internal", INTERNAL_PORT),
            _port("shadow", names.SHADOW_PORT),
            _port("health", HEALTH_PORT),
            _port("stats", STATS_PORT),
        ],
        # No other probe: without an operator a gateway waits, and starting it again would not help.
        "readinessProbe": _probe("/ready", "health", periodSeconds=2, failureThreshold=2),
        "lifecycle": {"preStop": {"sleep": {"seconds": DRAIN_SECONDS}}},
        "resources": options.gateway_resources,
        "securityContext": _contained(),
        "volumeMounts": [
            *({"name": "bootstrap", "mountPath": f"{_FOLDER}/{each}", "subPath": each} for each in files),
            {"name": "tls", "mountPath": f"{_FOLDER}/tls", "readOnly": True},
            {"name": "run", "mountPath": "/run/modelyard"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        ],
    }
    volumes = [
        {"name": "bootstrap", "configMap": {"name": BOOTSTRAP, "defaultMode": 0o444}},
        {"name": "tls", "secret": {"secretName": CERTIFICATES, "defaultMode": 0o440}},
        _empty("run", "64Mi", medium="Memory"),
        _empty("tmp", "64Mi"),
    ]
    spec = _pod(options, GATEWAY, container, volumes, token=False) | {
        "terminationGracePeriodSeconds": DRAIN_SECONDS + 10,
        "topologySpreadConstraints": [_spread(names.LABEL_ZONE), _spread("kubernetes.io/hostname")],
    }
    found = _deployment(options, GATEWAY, "gateway", options.gateway_replicas, spec)
    # Envoy reads its bootstrap once: another one is another pod.
    annotations = {"modelyard.dev/bootstrap": ids.short_hash("".join(files.values()).encode())}
    found["spec"]["template"]["metadata"]["annotations"] = annotations
    return found


def _deployment(options: Options, name: str, component: str, replicas: int, spec: Object) -> Object:
    labels = {**selector(component), "app.kubernetes.io/part-of": "modelyard"}
    return {
        **made("apps/v1", "Deployment", name, options, component),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector(component)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _pod(options: Options, account: str, container: Object, volumes: list[Object], *, token: bool) -> Object:
    secrets = [{"name": name} for name in options.pull_secrets]
    return {
        "serviceAccountName": account,
        "automountServiceAccountToken": token,
        "enableServiceLinks": False,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **({"imagePullSecrets": secrets} if secrets else {}),
        "containers": [container],
        "volumes": volumes,
    }


def _contained() -> Object:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def _own_names() -> list[Object]:
    fields = {"POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace", "POD_IP": "status.podIP"}
    return [_from_pod(name, path) for name, path in fields.items()]


def _from_pod(name: str, path: str) -> Object:
    """Empty where the pod has none."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _values(**values: str) -> list[Object]:
    """Without those that are empty: the API server stores no empty value, and kubectl would see a difference."""
    return [{"name": name, "value": value} for name, value in values.items() if value]


def _port(name: str, port: int) -> Object:
    return {"name": name, "containerPort": port, "protocol": "TCP"}


def _probe(path: str, port: str, **times: int) -> Object:
    return {"httpGet": {"path": path, "port": port}, "timeoutSeconds": 5, **times}


def _empty(name: str, size: str, **more: Any) -> Object:
    return {"name": name, "emptyDir": {"sizeLimit": size, **more}}


def _apart(component: str) -> Object:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": selector(component)}}
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}


def _spread(key: str) -> Object:
    return {
        "topologyKey": key,
        "maxSkew": 1,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector("gateway")},
    }

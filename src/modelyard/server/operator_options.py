"""What the operator is told when it starts: by its pod's environment, or by options on a machine outside."""

import argparse
import ipaddress
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelyard import __version__
from modelyard.api import settings
from modelyard.base.errors import UserError
from modelyard.control.kube import auth, in_cluster
from modelyard.control.kube.auth import ClientConfig
from modelyard.control.render.kube_pod import PodSettings

_PULL_POLICIES = ("IfNotPresent", "Always", "Never")
_ALL = "0.0.0.0"  # noqa: S104  a pod is reached by its own address, which NetworkPolicies guard

_GATEWAY = f"modelyard-gateway.{settings.NAMESPACE}.svc"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """kubeconfig: None: the cluster that the pod is in. pod: its name, "" outside of a cluster.

    xds, http: `host:port` for the gateways' connections, and for probes and figures; port 0: any free one. gateway,
    internal_gateway: how callers find the gateway's two listeners, without scheme. data: a folder of its own.
    """

    kubeconfig: Path | None = None
    context: str | None = None
    pod: str = ""
    xds: str = f"{_ALL}:18000"
    http: str = f"{_ALL}:8080"
    gateway: str = _GATEWAY
    internal_gateway: str = f"modelyard-gateway-internal.{settings.NAMESPACE}.svc"
    data: Path = Path("/var/lib/modelyard")
    pods: PodSettings = field(default_factory=PodSettings)

    def client(self, environ: Mapping[str, str]) -> ClientConfig:
        """How the API server is reached. Raises UserError."""
        return in_cluster.config(environ) if self.kubeconfig is None else auth.load(self.kubeconfig, self.context)


def parse(arguments: Sequence[str], environ: Mapping[str, str]) -> Options:
    """Raises UserError that names the variable; wrong options end the program, as usual."""
    parser = argparse.ArgumentParser(prog="python3 -m modelyard.server.operator", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, help="instead of the cluster that this pod is in")
    parser.add_argument("--context", help="of the kubeconfig; its current one by default")
    parser.add_argument("--xds", metavar="HOST:PORT", help="where gateways connect")
    parser.add_argument("--http", metavar="HOST:PORT", help="where /healthz, /readyz and /metrics are")
    parser.add_argument("--data", type=Path, help="a folder for what may be lost", default=None)
    given = parser.parse_args(arguments)
    namespace = environ.get("POD_NAMESPACE") or settings.NAMESPACE
    if namespace != settings.NAMESPACE:
        raise UserError(f"POD_NAMESPACE: the operator runs in namespace {settings.NAMESPACE}, not in {namespace}")
    usual = _usual_host(environ)
    return Options(
        kubeconfig=given.kubeconfig,
        context=given.context,
        pod=environ.get("POD_NAME", ""),
        xds=_address("--xds", given.xds or f"{usual}:18000"),
        http=_address("--http", given.http or f"{usual}:8080"),
        gateway=_without_scheme(environ.get("MODELYARD_GATEWAY_URL", "")) or _GATEWAY,
        data=given.data or Path(environ.get("MODELYARD_DATA") or "/var/lib/modelyard"),
        pods=_pods(environ),
    )


def identity(options: Options) -> str:
    """Of this process: a pod whose container was started anew is another one."""
    return f"{options.pod or socket.gethostname()}_{os.getpid()}_{os.urandom(4).hex()}"


def split(address: str) -> tuple[str, int]:
    """`[::]:80` -> `::`, 80."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _pods(environ: Mapping[str, str]) -> PodSettings:
    policy = environ.get("MODELYARD_IMAGE_PULL_POLICY") or "IfNotPresent"
    if policy not in _PULL_POLICIES:
        raise UserError(f"MODELYARD_IMAGE_PULL_POLICY must be one of {', '.join(_PULL_POLICIES)}, not {policy!r}")
    secrets = (each.strip() for each in environ.get("MODELYARD_IMAGE_PULL_SECRETS", "").split(","))
    return PodSettings(
        image_prefix=environ.get("MODELYARD_IMAGE_PREFIX") or PodSettings().image_prefix,
        version=environ.get("MODELYARD_VERSION") or __version__,
        pull_policy=policy,
        pull_secrets=tuple(each for each in secrets if each),
        namespace=settings.NAMESPACE,
    )


def _usual_host(environ: Mapping[str, str]) -> str:
    """All addresses of the family that the pod has."""
    try:
        return "[::]" if ipaddress.ip_address(environ.get("POD_IP", "")).version == 6 else _ALL
    except ValueError:
        return _ALL


def _address(name: str, address: str) -> str:
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UserError(f"{name}: expected HOST:PORT such as 0.0.0.0:8080, not {address!r}")
    return address


def _without_scheme(url: str) -> str:
    return url.partition("://")[2].rstrip("/") if "://" in url else url.rstrip("/")

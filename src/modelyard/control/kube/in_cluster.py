"""The API server of the cluster that a pod runs in.

Source: https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/
"""

from collections.abc import Mapping
from pathlib import Path

from modelyard.base.errors import UserError
from modelyard.control.kube.auth import ClientConfig

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_HOST, _PORT = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"


def config(environ: Mapping[str, str], account: Path = ACCOUNT) -> ClientConfig:
    """account: the folder with token, ca.crt and namespace; the kubelet renews the token. Raises UserError."""
    host, port = environ.get(_HOST, ""), environ.get(_PORT, "")
    if not host or not port.isascii() or not port.isdigit():
        raise UserError(f"{_HOST} and {_PORT} are not set: this is no pod of a cluster; give a kubeconfig instead")
    try:
        authority = (account / "ca.crt").read_bytes()
        namespace = (account / "namespace").read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"the files of the pod's ServiceAccount in {account} cannot be read ({error}): "
            "set automountServiceAccountToken: true in the pod"
        ) from error
    found = ClientConfig(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        ca_data=authority,
        token_file=account / "token",
        namespace=namespace or "default",
    )
    found.tls()
    return found

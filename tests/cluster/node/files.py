"""The settings of the node's programs, as texts and command lines. Pure."""

import json
from dataclasses import dataclass
from pathlib import Path

NAMES = ("a", "b", "c", "d", "e", "f", "g", "h")
SOCKET = "/run/containerd/containerd.sock"  # inside the node
AUDIT = "audit.log"  # what the API server notes of the operators' writes, a line each


@dataclass(frozen=True)
class Which:
    """One of the nodes that a machine may have at once (its name is one of NAMES): what only it has."""

    name: str = NAMES[0]

    @property
    def _number(self) -> int:
        return NAMES.index(self.name)

    @property
    def suffix(self) -> str:
        """Of the names of its folders."""
        return f"-{self.name}" if self._number else ""

    @property
    def host(self) -> str:
        """The machine, seen from the node; nothing else has this address."""
        return f"10.77.{self._number}.1"

    @property
    def address(self) -> str:
        """The node, seen from the machine."""
        return f"10.77.{self._number}.2"

    @property
    def pods(self) -> str:
        """The network of pods."""
        return f"10.244.{self._number}.0/24"

    @property
    def services(self) -> str:
        """The network of Services; the API has the first address of it."""
        return f"10.96.{self._number}.0/24"

    @property
    def api(self) -> str:
        """The API, seen from pods."""
        return f"10.96.{self._number}.1"

    @property
    def dns(self) -> str:
        """Of the cluster's names."""
        return f"10.96.{self._number}.10"

    @property
    def link(self) -> str:
        """The machine's end of the cable; Linux allows 15 characters."""
        return f"modelyard-test{self.name if self._number else ''}"

    @property
    def cgroup(self) -> str:
        """The control group of everything in the node."""
        return f"modelyard-test{self.suffix}"


@dataclass(frozen=True)
class Places:
    """The folders of one node, under `work`."""

    work: Path
    kubernetes: Path  # the program of all components
    which: Which

    def __truediv__(self, name: str) -> Path:
        return self.work / name

    @property
    def keys(self) -> Path:
        return self.work / "keys"


def settings(at: Places) -> dict[str, str]:
    """Name of a file under the work folder -> its text."""
    return {
        "containerd.toml": _containerd(at),
        "cni/10-bridge.conflist": json.dumps(_network(at)),
        "resolv.conf": "",
        "audit.yaml": json.dumps(_audit()),
        "kubelet.yaml": json.dumps(_kubelet(at)),
        "proxy.yaml": json.dumps(_proxy(at)),
    }


def commands(at: Places) -> dict[str, list[str]]:
    """Name of a component -> its command line, in the order in which they start."""
    program, keys = str(at.kubernetes), at.keys
    etcd = "http://127.0.0.1:2379"
    leader = ["--leader-elect=false", "--bind-address=127.0.0.1", "-v=1"]

    def acts_as(user: str) -> list[str]:
        path = keys / f"{user}.kubeconfig"
        return [f"--{kind}kubeconfig={path}" for kind in ("", "authentication-", "authorization-")]

    return {
        "containerd": ["containerd", "-c", str(at / "containerd.toml")],
        "etcd": [
            *(program, "etcd", "--name=node", f"--data-dir={at / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn"),
            *(f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}"),
            "--listen-peer-urls=http://127.0.0.1:2380",
        ],
        "kube-apiserver": [
            *(program, "kube-apiserver", f"--etcd-servers={etcd}", *_apiserver(keys, at.which)),
            *(f"--audit-policy-file={at / 'audit.yaml'}", f"--audit-log-path={at / AUDIT}"),
        ],
        "kube-controller-manager": [
            *(program, "kube-controller-manager", *acts_as("controller-manager"), *leader),
            f"--cluster-cidr={at.which.pods}",
            *(f"--service-account-private-key-file={keys}/sa.key", f"--root-ca-file={keys}/ca.crt"),
            "--use-service-account-credentials=true",
        ],
        "kube-scheduler": [program, "kube-scheduler", *acts_as("scheduler"), *leader],
        "kube-proxy": [program, "kube-proxy", f"--config={at / 'proxy.yaml'}", "-v=1"],
        "kubelet": [
            *(program, "kubelet", f"--config={at / 'kubelet.yaml'}", f"--kubeconfig={keys}/node.kubeconfig"),
            *("--hostname-override=testnode", f"--node-ip={at.which.address}"),
            *(f"--cert-dir={at / 'certificates'}", "-v=1"),
        ],
    }


def _apiserver(keys: Path, which: Which) -> list[str]:
    return [
        *(f"--advertise-address={which.address}", "--bind-address=0.0.0.0", "--secure-port=6443"),
        f"--service-cluster-ip-range={which.services}",
        *(f"--tls-cert-file={keys}/apiserver.crt", f"--tls-private-key-file={keys}/apiserver.key"),
        f"--client-ca-file={keys}/ca.crt",
        *(f"--kubelet-client-certificate={keys}/kubelet-client.crt", f"--kubelet-client-key={keys}/kubelet-client.key"),
        *(f"--kubelet-certificate-authority={keys}/ca.crt", "--kubelet-preferred-address-types=InternalIP"),
        *(f"--requestheader-client-ca-file={keys}/ca.crt", "--requestheader-allowed-names=front-proxy-client"),
        *(
            f"--proxy-client-cert-file={keys}/front-proxy-client.crt",
            f"--proxy-client-key-file={keys}/front-proxy-client.key",
        ),
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--service-account-issuer=https://kubernetes.default.svc",
        *(f"--service-account-key-file={keys}/sa.pub", f"--service-account-signing-key-file={keys}/sa.key"),
        *("--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "-v=1"),
    ]


def _containerd(at: Places) -> str:
    # restrict_oom_score_adj: without CAP_SYS_RESOURCE no pod would start.
    return f"""version = 2
root = "{at / "containerd"}"
state = "/run/containerd"
[grpc]
  address = "{SOCKET}"
[ttrpc]
  address = "{SOCKET}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{at / "opt"}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{at / "cni"}"
"""


def _audit() -> dict[str, object]:
    operators = {
        "level": "Metadata",
        "users": ["system:serviceaccount:modelyard-system:modelyard-operator"],
        "verbs": ["create", "update", "patch", "delete", "deletecollection"],
    }
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [operators, {"level": "None"}],
    }


def _network(at: Places) -> dict[str, object]:
    addresses = {
        "type": "host-local",
        "dataDir": "/run/cni-ipam",
        "ranges": [[{"subnet": at.which.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "hairpinMode": True}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [{**bridge, "ipam": addresses}, ports]}


def _kubelet(at: Places) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{at.which.cgroup}",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "failSwapOn": False,
        "clusterDNS": [at.which.dns],
        "clusterDomain": "cluster.local",
        "resolvConf": str(at / "resolv.conf"),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{at.keys}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{at.keys}/node.crt",
        "tlsPrivateKeyFile": f"{at.keys}/node.key",
        "volumePluginDir": str(at / "plugins"),
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "maxPods": 110,
        "nodeStatusUpdateFrequency": "2s",
        "syncFrequency": "10s",
    }


def _proxy(at: Places) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"{at.keys}/proxy.kubeconfig"},
        "mode": "nftables",
        "clusterCIDR": at.which.pods,
        "hostnameOverride": "testnode",
        # These belong to the machine as a whole; a network namespace of its own may not set them.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }

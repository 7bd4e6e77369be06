"""Where kinds live in the API."""

from dataclasses import dataclass

from modelyard.api import GROUP, VERSION


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind as the API serves it. group "" is the core group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`apps/v1`, or `v1` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of a collection (namespace None: of all namespaces), an object or a subresource."""
        path = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if self.namespaced and namespace is not None:
            path += f"/namespaces/{namespace}"
        path += f"/{self.plural}"
        if name is not None:
            path += f"/{name}"
        return f"{path}/{subresource}" if subresource else path


RUNTIMES = Resource(GROUP, VERSION, "runtimes", "Runtime")
ACCESSPOLICIES = Resource(GROUP, VERSION, "accesspolicies", "AccessPolicy")
MODELS = Resource(GROUP, VERSION, "models", "Model")
MODELJOBS = Resource(GROUP, VERSION, "modeljobs", "ModelJob")
MODELSERVICES = Resource(GROUP, VERSION, "modelservices", "ModelService")
MODELSTREAMS = Resource(GROUP, VERSION, "modelstreams", "ModelStream")
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
CONFIGMAPS = Resource("", "v1", "configmaps", "ConfigMap")
SECRETS = Resource("", "v1", "secrets", "Secret")
EVENTS = Resource("", "v1", "events", "Event")
CONTROLLERREVISIONS = Resource("apps", "v1", "controllerrevisions", "ControllerRevision")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
REPLICASETS = Resource("apps", "v1", "replicasets", "ReplicaSet")
JOBS = Resource("batch", "v1", "jobs", "Job")
PODS = Resource("", "v1", "pods", "Pod")
SERVICES = Resource("", "v1", "services", "Service")
PODDISRUPTIONBUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
NETWORKPOLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
SERVICEACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLEBINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
CLUSTERROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
CLUSTERROLEBINDINGS = Resource(
    "rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False
)

OURS = (ACCESSPOLICIES, MODELS, MODELJOBS, MODELSERVICES, MODELSTREAMS, RUNTIMES)
ACCESS = (SERVICEACCOUNTS, ROLES, ROLEBINDINGS, CLUSTERROLES, CLUSTERROLEBINDINGS)
ALL = (*OURS, NAMESPACES, CONFIGMAPS, SECRETS, EVENTS, CONTROLLERREVISIONS, LEASES, *ACCESS)
"""What commands know, and what the embedded API server has."""
PODS_AND_MORE = (DEPLOYMENTS, REPLICASETS, JOBS, PODS, SERVICES, PODDISRUPTIONBUDGETS, NETWORKPOLICIES)
"""What only Kubernetes has."""
SHORT_NAMES = {
    "acp": ACCESSPOLICIES,
    "rt": RUNTIMES,
    "mdl": MODELS,
    "mjob": MODELJOBS,
    "msvc": MODELSERVICES,
    "mstr": MODELSTREAMS,
    "ns": NAMESPACES,
    "cm": CONFIGMAPS,
    "ev": EVENTS,
    "sa": SERVICEACCOUNTS,
}


def find(word: str) -> Resource | None:
    """By plural, singular, kind or short name, in any case."""
    lower = word.lower()
    if lower in SHORT_NAMES:
        return SHORT_NAMES[lower]
    return next((each for each in ALL if lower in (each.plural, each.kind.lower())), None)

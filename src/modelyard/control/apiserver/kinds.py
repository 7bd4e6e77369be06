"""The kinds that the server serves: ours from their CustomResourceDefinitions, the built-in ones by hand."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from modelyard.control.apiserver import core, core_access

Schema = dict[str, Any]
RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class Column:
    """One printer column. path: a JSONPath such as `.status.url`; priority > 0: only with -o wide."""

    name: str
    type: str
    path: str
    priority: int = 0
    format: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """Where the scale subresource finds its numbers: dotted paths without a leading dot."""

    spec_path: str
    status_path: str
    selector_path: str


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """One kind in one version; compared by identity, treat its schema as a constant. group "" is the core group.

    schema: the structural openAPIV3Schema of whole objects, whose metadata is ObjectMeta whatever it says.
    status: a status subresource exists, so other writes leave the status alone. custom: from a definition.
    tokens: a token subresource issues tokens. question: it can only be created, is answered at once and never stored.
    """

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    list_kind: str
    short_names: tuple[str, ...]
    categories: tuple[str, ...]
    namespaced: bool
    schema: Schema | None
    columns: tuple[Column, ...] = ()
    status: bool = False
    scale: Scale | None = None
    custom: bool = False
    tokens: bool = False
    question: bool = False

    @property
    def api_version(self) -> str:
        """`modelyard.dev/v1alpha1`, or `v1` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource_name(self) -> str:
        """`modelservices.modelyard.dev`, or `secrets` for the core group: how messages call the resource."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


def from_crd(crd: Mapping[str, Any]) -> Kind:
    """The stored version of a definition. Raises KeyError or StopIteration only for one that is not structural."""
    spec = crd["spec"]
    names = spec["names"]
    version = next(each for each in spec["versions"] if each.get("storage"))
    subresources = version.get("subresources", {})
    return Kind(
        group=spec["group"],
        version=version["name"],
        kind=names["kind"],
        plural=names["plural"],
        singular=names.get("singular", names["kind"].lower()),
        list_kind=names.get("listKind", f"{names['kind']}List"),
        short_names=tuple(names.get("shortNames", ())),
        categories=tuple(names.get("categories", ())),
        namespaced=spec["scope"] == "Namespaced",
        schema=version["schema"]["openAPIV3Schema"],
        columns=tuple(column(each) for each in version.get("additionalPrinterColumns", ())),
        status="status" in subresources,
        scale=_scale(subresources["scale"]) if "scale" in subresources else None,
        custom=True,
    )


@cache
def builtin() -> tuple[Kind, ...]:
    """Kinds of Kubernetes itself, as far as Modelyard uses them."""
    return (
        _core("", "v1", "Namespace", core.NAMESPACE, short=("ns",), namespaced=False),
        _core("", "v1", "ConfigMap", core.CONFIG_MAP, short=("cm",)),
        _core("", "v1", "Secret", core.SECRET),
        _core("", "v1", "Event", core.EVENT, short=("ev",)),
        _core("apps", "v1", "ControllerRevision", core.CONTROLLER_REVISION),
        _core("coordination.k8s.io", "v1", "Lease", core.LEASE),
        replace(_core("", "v1", "ServiceAccount", core_access.SERVICE_ACCOUNT, short=("sa",)), tokens=True),
        _core(RBAC, "v1", "Role", core_access.ROLE),
        _core(RBAC, "v1", "RoleBinding", core_access.ROLE_BINDING),
        _core(RBAC, "v1", "ClusterRole", core_access.CLUSTER_ROLE, namespaced=False),
        _core(RBAC, "v1", "ClusterRoleBinding", core_access.CLUSTER_ROLE_BINDING, namespaced=False),
    )


@cache
def questions() -> tuple[Kind, ...]:
    """Kinds of Kubernetes that are created to be answered."""
    schemas = (
        ("authorization.k8s.io", "SelfSubjectAccessReview", core_access.SELF_SUBJECT_ACCESS_REVIEW),
        ("authorization.k8s.io", "SelfSubjectRulesReview", core_access.SELF_SUBJECT_RULES_REVIEW),
        ("authorization.k8s.io", "SubjectAccessReview", core_access.SUBJECT_ACCESS_REVIEW),
        ("authorization.k8s.io", "LocalSubjectAccessReview", core_access.LOCAL_SUBJECT_ACCESS_REVIEW),
        ("authentication.k8s.io", "SelfSubjectReview", core_access.SELF_SUBJECT_REVIEW),
    )
    return tuple(
        replace(_core(group, "v1", kind, schema, namespaced=kind.startswith("Local")), question=True)
        for group, kind, schema in schemas
    )


TOKEN_REQUEST = Kind(
    group="authentication.k8s.io",
    version="v1",
    kind="TokenRequest",
    plural="serviceaccounts/token",
    singular="",
    list_kind="TokenRequestList",
    short_names=(),
    categories=(),
    namespaced=True,
    schema=core_access.TOKEN_REQUEST,
    question=True,
)
"""What is sent to the token subresource; it has no place of its own."""


def _core(
    group: str, version: str, kind: str, schema: Schema, *, short: tuple[str, ...] = (), namespaced: bool = True
) -> Kind:
    return Kind(
        group=group,
        version=version,
        kind=kind,
        plural=f"{kind.lower()}s",
        singular=kind.lower(),
        list_kind=f"{kind}List",
        short_names=short,
        categories=(),
        namespaced=namespaced,
        schema=schema,
    )


def column(declared: Mapping[str, Any]) -> Column:
    """From an item of additionalPrinterColumns."""
    return Column(
        name=declared["name"],
        type=declared["type"],
        path=declared["jsonPath"],
        priority=declared.get("priority", 0),
        format=declared.get("format", ""),
        description=declared.get("description", ""),
    )


def _scale(scale: Mapping[str, Any]) -> Scale:
    return Scale(
        spec_path=scale["specReplicasPath"].removeprefix("."),
        status_path=scale["statusReplicasPath"].removeprefix("."),
        selector_path=scale.get("labelSelectorPath", "").removeprefix("."),
    )

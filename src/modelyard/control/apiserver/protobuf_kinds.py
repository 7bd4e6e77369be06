"""The fields of the kinds that kubectl sends as protobuf, by number.

Source: k8s.io/api core/v1, rbac/v1, authorization/v1, authentication/v1 and metav1 generated.proto.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Shape = Literal["text", "bytes", "flag", "integer", "message", "time", "texts", "bytes map"]
_RBAC = "rbac.authorization.k8s.io"
_AUTHORIZATION = "authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message; the shapes `texts` and `bytes map` are maps by text. message: the shape of its parts."""

    name: str
    shape: Shape = "text"
    repeated: bool = False
    message: Mapping[int, "Field"] = field(default_factory=dict)


_OWNER = {
    1: Field("kind"),
    3: Field("name"),
    4: Field("uid"),
    5: Field("apiVersion"),
    6: Field("controller", "flag"),
    7: Field("blockOwnerDeletion", "flag"),
}
_METADATA = {
    1: Field("name"),
    2: Field("generateName"),
    3: Field("namespace"),
    5: Field("uid"),
    6: Field("resourceVersion"),
    7: Field("generation", "integer"),
    8: Field("creationTimestamp", "time"),
    9: Field("deletionTimestamp", "time"),
    10: Field("deletionGracePeriodSeconds", "integer"),
    11: Field("labels", "texts"),
    12: Field("annotations", "texts"),
    13: Field("ownerReferences", "message", repeated=True, message=_OWNER),
    14: Field("finalizers", repeated=True),
}
_META = {1: Field("metadata", "message", message=_METADATA)}
_OBJECT_REFERENCE = {
    1: Field("kind"),
    2: Field("namespace"),
    3: Field("name"),
    4: Field("uid"),
    5: Field("apiVersion"),
    6: Field("resourceVersion"),
    7: Field("fieldPath"),
}
_RULE = {
    1: Field("verbs", repeated=True),
    2: Field("apiGroups", repeated=True),
    3: Field("resources", repeated=True),
    4: Field("resourceNames", repeated=True),
    5: Field("nonResourceURLs", repeated=True),
}
_BINDING = {
    **_META,
    2: Field(
        "subjects",
        "message",
        repeated=True,
        message={1: Field("kind"), 2: Field("apiGroup"), 3: Field("name"), 4: Field("namespace")},
    ),
    3: Field("roleRef", "message", message={1: Field("apiGroup"), 2: Field("kind"), 3: Field("name")}),
}
_AGGREGATION = {1: Field("clusterRoleSelectors", "message", repeated=True, message={1: Field("matchLabels", "texts")})}
_QUESTION = {
    1: Field(
        "resourceAttributes",
        "message",
        message={
            1: Field("namespace"),
            2: Field("verb"),
            3: Field("group"),
            4: Field("version"),
            5: Field("resource"),
            6: Field("subresource"),
            7: Field("name"),
        },
    ),
    2: Field("nonResourceAttributes", "message", message={1: Field("path"), 2: Field("verb")}),
}
_ABOUT = {**_QUESTION, 3: Field("user"), 4: Field("groups", repeated=True), 6: Field("uid")}
_BOUND = {1: Field("kind"), 2: Field("apiVersion"), 3: Field("name"), 4: Field("uid")}
KINDS: dict[tuple[str, str], Mapping[int, Field]] = {
    ("v1", "Namespace"): {
        **_META,
        2: Field("spec", "message", message={1: Field("finalizers", repeated=True)}),
        3: Field("status", "message", message={1: Field("phase")}),
    },
    ("v1", "ConfigMap"): {
        **_META,
        2: Field("data", "texts"),
        3: Field("binaryData", "bytes map"),
        4: Field("immutable", "flag"),
    },
    ("v1", "Secret"): {
        **_META,
        2: Field("data", "bytes map"),
        3: Field("type"),
        4: Field("stringData", "texts"),
        5: Field("immutable", "flag"),
    },
    ("v1", "ServiceAccount"): {
        **_META,
        2: Field("secrets", "message", repeated=True, message=_OBJECT_REFERENCE),
        3: Field("imagePullSecrets", "message", repeated=True, message={1: Field("name")}),
        4: Field("automountServiceAccountToken", "flag"),
    },
    (f"{_RBAC}/v1", "Role"): {**_META, 2: Field("rules", "message", repeated=True, message=_RULE)},
    (f"{_RBAC}/v1", "ClusterRole"): {
        **_META,
        2: Field("rules", "message", repeated=True, message=_RULE),
        3: Field("aggregationRule", "message", message=_AGGREGATION),
    },
    (f"{_RBAC}/v1", "RoleBinding"): _BINDING,
    (f"{_RBAC}/v1", "ClusterRoleBinding"): _BINDING,
    (f"{_AUTHORIZATION}/v1", "SelfSubjectAccessReview"): {**_META, 2: Field("spec", "message", message=_QUESTION)},
    (f"{_AUTHORIZATION}/v1", "SubjectAccessReview"): {**_META, 2: Field("spec", "message", message=_ABOUT)},
    (f"{_AUTHORIZATION}/v1", "LocalSubjectAccessReview"): {**_META, 2: Field("spec", "message", message=_ABOUT)},
    (f"{_AUTHORIZATION}/v1", "SelfSubjectRulesReview"): {
        **_META,
        2: Field("spec", "message", message={1: Field("namespace")}),
    },
    ("authentication.k8s.io/v1", "SelfSubjectReview"): _META,
    ("authentication.k8s.io/v1", "TokenRequest"): {
        **_META,
        2: Field(
            "spec",
            "message",
            message={
                1: Field("audiences", repeated=True),
                3: Field("boundObjectRef", "message", message=_BOUND),
                4: Field("expirationSeconds", "integer"),
            },
        ),
    },
}

"""Schemas of the kinds that say who may do what, and of the questions about it.

Source: k8s.io/api rbac/v1, authorization/v1, authentication/v1 and core/v1 ServiceAccount. A ClusterRole has no
aggregationRule here: it would be evaluated by nobody, so it is refused as an unknown field.
"""

from modelyard.control.apiserver.core import OBJECT_REFERENCE, Schema, count, flag, moment, root, struct, text, texts

_ATOMIC = {"x-kubernetes-list-type": "atomic"}


def _list(description: str, items: Schema) -> Schema:
    return {"type": "array", "description": description, "items": items, **_ATOMIC}


_RULE = struct(
    "What is allowed: verbs on resources, or on paths of the server.",
    {
        "verbs": texts("get, list, watch, create, update, patch, delete, deletecollection, predict ...; * for all."),
        "apiGroups": texts('Groups of the resources, "" for the core group; * for all.', **_ATOMIC),
        "resources": texts("Plurals such as modelservices, or modelservices/status, */scale; * for all.", **_ATOMIC),
        "resourceNames": texts("Names of the only objects that the rule is about; empty for all.", **_ATOMIC),
        "nonResourceURLs": texts("Paths that are no resources; * at the end for all below.", **_ATOMIC),
    },
    ("verbs",),
)
_SUBJECT = struct(
    "Who is meant.",
    {
        "kind": text("User, Group or ServiceAccount."),
        "apiGroup": text('rbac.authorization.k8s.io for User and Group, "" for ServiceAccount.'),
        "name": text("Name of the user, group or ServiceAccount."),
        "namespace": text("Namespace of the ServiceAccount."),
    },
    ("kind", "name"),
)
_ROLE_REFERENCE = struct(
    "The role that the subjects get. Cannot be changed.",
    {
        "apiGroup": text("Group of the role.", default="rbac.authorization.k8s.io"),
        "kind": text("Role or ClusterRole."),
        "name": text("Name of the role."),
    },
    ("kind", "name"),
)
_BINDING = {"subjects": _list("Who gets the role.", _SUBJECT), "roleRef": _ROLE_REFERENCE}

ROLE = root("A Role lists what may be done in its namespace.", {"rules": _list("What is allowed.", _RULE)})
CLUSTER_ROLE = root(
    "A ClusterRole lists what may be done, in all namespaces or in those that bind it.",
    {"rules": _list("What is allowed.", _RULE)},
)
ROLE_BINDING = root("A RoleBinding gives a role to subjects, in its namespace.", _BINDING, ("roleRef",))
CLUSTER_ROLE_BINDING = root("A ClusterRoleBinding gives a role to subjects, everywhere.", _BINDING, ("roleRef",))

SERVICE_ACCOUNT = root(
    "A ServiceAccount is an identity for programs and people; `kubectl create token` gives it a token.",
    {
        "automountServiceAccountToken": flag("Whether pods get a token; there are no pods here."),
        "imagePullSecrets": _list(
            "Secrets for images; there are no images here.",
            struct("A Secret.", {"name": text("Name of the Secret.", default="")}),
        ),
        "secrets": _list("Secrets that belong to the account; not used.", OBJECT_REFERENCE),
    },
)

_RESOURCE_ATTRIBUTES = struct(
    "A question about a resource.",
    {
        "namespace": text("Namespace; empty for the cluster or all namespaces."),
        "verb": text("What is to be done; * for everything."),
        "group": text("Group of the resource; * for all."),
        "version": text("Version; it plays no role."),
        "resource": text("Plural of the kind; * for all."),
        "subresource": text("For example status."),
        "name": text("Name of the object; empty for all."),
    },
)
_PATH_ATTRIBUTES = struct(
    "A question about a path that is no resource.",
    {"path": text("The path."), "verb": text("The HTTP method in lower case.")},
)
_QUESTION = {"resourceAttributes": _RESOURCE_ATTRIBUTES, "nonResourceAttributes": _PATH_ATTRIBUTES}
_EXTRA: Schema = {
    "type": "object",
    "description": "What else is known about the user.",
    "additionalProperties": {"type": "array", "items": {"type": "string"}},
}
_ABOUT_SOMEBODY = struct(
    "The question; about a resource or a path.",
    {
        **_QUESTION,
        "user": text("Name of the user."),
        "groups": texts("Groups of the user."),
        "uid": text("UID of the user."),
        "extra": _EXTRA,
    },
)
_ANSWER = struct(
    "The answer.",
    {
        "allowed": flag("Whether it is allowed."),
        "denied": flag("Whether something forbids it explicitly; never, with RBAC."),
        "reason": text("Why."),
        "evaluationError": text("What could not be evaluated."),
    },
)
_OPEN_RULES = {"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}

SELF_SUBJECT_ACCESS_REVIEW = root(
    "May I do this?", {"spec": struct("The question; about a resource or a path.", _QUESTION), "status": _ANSWER},
    ("spec",),
)  # fmt: skip
SUBJECT_ACCESS_REVIEW = root("May somebody do this?", {"spec": _ABOUT_SOMEBODY, "status": _ANSWER}, ("spec",))
LOCAL_SUBJECT_ACCESS_REVIEW = root(
    "May somebody do this in the namespace?", {"spec": _ABOUT_SOMEBODY, "status": _ANSWER}, ("spec",)
)
SELF_SUBJECT_RULES_REVIEW = root(
    "What may I do in a namespace?",
    {
        "spec": struct("Where.", {"namespace": text("The namespace.")}),
        "status": struct(
            "The answer.",
            {
                "resourceRules": {**_OPEN_RULES, "description": "What is allowed on resources."},
                "nonResourceRules": {**_OPEN_RULES, "description": "What is allowed on paths."},
                "incomplete": flag("Whether there may be more."),
                "evaluationError": text("What could not be evaluated."),
            },
        ),
    },
)
SELF_SUBJECT_REVIEW = root(
    "Who am I?",
    {
        "status": struct(
            "The answer.",
            {
                "userInfo": struct(
                    "The caller.",
                    {
                        "username": text("Name."),
                        "uid": text("UID."),
                        "groups": texts("Groups."),
                        "extra": _EXTRA,
                    },
                )
            },
        )
    },
)
TOKEN_REQUEST = root(
    "A TokenRequest asks for a token of a ServiceAccount.",
    {
        "spec": struct(
            "What the token should be like.",
            {
                "audiences": texts("For whom the token is meant; empty: for this server.", **_ATOMIC),
                "expirationSeconds": count("Seconds that it is valid.", 64),
                "boundObjectRef": struct(
                    "Not supported: tokens end with their ServiceAccount.",
                    {
                        "kind": text("Kind."),
                        "apiVersion": text("API version."),
                        "name": text("Name."),
                        "uid": text("UID."),
                    },
                ),
            },
        ),
        "status": struct("The answer.", {"token": text("The token."), "expirationTimestamp": moment("When it ends.")}),
    },
)

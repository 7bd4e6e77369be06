"""Types and parts that several kinds share. Attribute docstrings are the text of `kubectl explain`."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from modelyard.base import durations, ids, quantities


class Part(BaseModel):
    """Frozen, strict about unknown fields, camelCase on the outside."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        alias_generator=to_camel,
        use_attribute_docstrings=True,
    )


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """CEL rules and their messages, as a CRD spells them. Each must guard optional fields with `has()`."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in pairs]}


def keyed_by(*names: str) -> dict[str, Any]:
    """A list whose items are identified by these fields."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(names)}


def _not_negative(quantity: int | str) -> int | str:
    if quantities.parse(quantity) < 0:
        raise ValueError("must not be negative")
    return quantity


Name = Annotated[str, Field(pattern=ids.NAME_PATTERN, max_length=63)]
WORD_PATTERN = r"^[a-z0-9]([-a-z0-9_.]*[a-z0-9])?$"
Word = Annotated[str, Field(pattern=WORD_PATTERN, max_length=63)]
Duration = Annotated[str, Field(pattern=durations.PATTERN, max_length=32)]
Digest = Annotated[str, Field(pattern=ids.DIGEST_PATTERN, max_length=71)]
MAX_URI = 2048
Uri = Annotated[str, Field(min_length=1, max_length=MAX_URI)]
Quantity = Annotated[int | str, AfterValidator(_not_negative), Field(json_schema_extra={"pattern": quantities.PATTERN})]
DateTime = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Datatype = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BYTES",
]
Trust = Literal["pickle"]


class Tensor(Part):
    """One input or output, in Open Inference Protocol terms."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name under which requests and answers carry it."""
    datatype: Datatype
    """Element type: BOOL, UINT8 to UINT64, INT8 to INT64, FP16, FP32, FP64 or BYTES (UTF-8 text)."""
    shape: Annotated[tuple[Annotated[int, Field(ge=-1, le=2**31 - 1)], ...], Field(min_length=1, max_length=8)]
    """Dimensions, rows first; -1 is any size."""


Tensors = Annotated[tuple[Tensor, ...], Field(min_length=1, max_length=256, json_schema_extra=keyed_by("name"))]


class SecretKeySelector(Part):
    """A key of a Secret in the same namespace."""

    name: Name
    """Name of the Secret."""
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
    """Key within the Secret."""
    optional: bool | None = None
    """Start without the variable if the Secret or the key does not exist."""


class EnvVarSource(Part):
    """Where the value of a variable comes from."""

    secret_key_ref: SecretKeySelector
    """Key of a Secret in the same namespace."""


class EnvVar(Part):
    """One environment variable of the model's process."""

    model_config = ConfigDict(
        json_schema_extra=rules(("has(self.value) != has(self.valueFrom)", "set exactly one of value and valueFrom"))
    )

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=253)]
    """Name of the variable."""
    value: Annotated[str, Field(max_length=32768)] | None = None
    """Literal value. Not for secrets: everybody who may read the object sees it."""
    value_from: EnvVarSource | None = None
    """Take the value from a Secret."""


Env = Annotated[
    tuple[EnvVar, ...],
    Field(
        max_length=128,
        json_schema_extra={
            **keyed_by("name"),
            **rules(
                (
                    "self.all(v, !v.name.startsWith('MODELYARD_'))",
                    "names that start with MODELYARD_ are reserved",
                )
            ),
        },
    ),
]

GPU_RESOURCES = ("nvidia.com/gpu", "amd.com/gpu")
Quantities = Annotated[dict[str, Quantity], Field(json_schema_extra={"maxProperties": 8})]


class ResourceClaim(Part):
    """A claim of the pod that the model's container uses."""

    name: Name
    """Name of an entry of podTemplate.spec.resourceClaims."""


class Resources(Part):
    """Compute resources of one replica, spelled as core/v1 ResourceRequirements."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.requests) || self.requests.all(k, k in ['cpu', 'memory'])",
                "requests may name cpu and memory; GPUs are limits",
            ),
            (
                "!has(self.limits) || self.limits.all(k, k in ['cpu', 'memory'] || (k.contains('/') && "
                "!k.contains('kubernetes.io/')))",
                "limits may name cpu, memory and devices by their full names, such as nvidia.com/gpu",
            ),
        )
    )

    requests: Quantities | None = None
    """What a replica needs: it starts only where so much is free. Keys cpu and memory, for example 500m and 1Gi."""
    limits: Quantities | None = None
    """What a replica may use. The cpu limit also sets the number of inference threads. Keys cpu, memory, and devices
    in whole numbers: nvidia.com/gpu and amd.com/gpu; on Kubernetes any that its nodes offer, such as
    nvidia.com/mig-1g.5gb or google.com/tpu."""
    claims: Annotated[tuple[ResourceClaim, ...], Field(max_length=32, json_schema_extra=keyed_by("name"))] | None = None
    """Devices that were claimed (dynamic resource allocation) in podTemplate.spec.resourceClaims; only on
    Kubernetes."""


class Condition(Part):
    """The state of one aspect of an object."""

    type: Annotated[str, Field(max_length=316)]
    """Aspect, in CamelCase."""
    status: Literal["True", "False", "Unknown"]
    """True, False, or Unknown while it has not been found out."""
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    """One CamelCase word for programs."""
    message: Annotated[str, Field(max_length=32768)] = ""
    """A sentence for people: what is the matter, and the next step."""
    observed_generation: Annotated[int, Field(json_schema_extra={"format": "int64"})] | None = None
    """metadata.generation that the condition was found out for."""
    last_transition_time: DateTime
    """When status last changed."""


Conditions = Annotated[tuple[Condition, ...], Field(max_length=16, json_schema_extra=keyed_by("type"))]
Generation = Annotated[int, Field(json_schema_extra={"format": "int64"})]


class OwnerReference(Part):
    """The object that this one belongs to."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class Metadata(BaseModel):
    """The parts of metav1.ObjectMeta that decisions need; the rest is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True, alias_generator=to_camel)

    name: str
    namespace: str = ids.DEFAULT_NAMESPACE
    uid: str = ""
    generation: int = 1
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()

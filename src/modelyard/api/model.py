"""Model: where an artifact is, what it is, and how far it is trusted."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from modelyard.api import API_VERSION
from modelyard.api.fields import (
    Conditions,
    Digest,
    Generation,
    Metadata,
    Name,
    Part,
    Tensors,
    Trust,
    Uri,
    Word,
    rules,
)
from modelyard.api.pod import PodTemplate, ServiceAccountName

_IMMUTABLE = rules(
    ("self == oldSelf", "cannot be changed: make a new Model, or read it again with 'modelyard refresh'")
)


class ModelSpec(Part):
    """Where the artifact is and what is known about it. Everything but uri is found out when it is left out."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.digest) == has(oldSelf.digest)",
                "digest cannot be added or removed: make a new Model, or read it again with 'modelyard refresh'",
            )
        )
    )

    uri: Annotated[Uri, Field(json_schema_extra=_IMMUTABLE)]
    """Where the artifact is: a file or folder, s3://, gs://, az:// (an object or a prefix) or https://. A path
    without a scheme is relative to the project root of the local server (modelyard up DIR); modelyard apply reads it
    relative to the manifest."""
    credentials: Name | None = None
    """Secret in the same namespace with the keys of the store, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY;
    token for https://. Only the process that fetches the artifact gets them, before anything of the model runs."""
    service_account_name: ServiceAccountName | None = None
    """ServiceAccount of the pods that fetch and read the artifact on Kubernetes, and of those that run it and name no
    other. Its cloud identity opens the store where credentials hold no keys; no token of the API is mounted. Without
    effect on one machine."""
    pod_template: PodTemplate | None = None
    """Overlay over the pods that fetch and read the artifact on Kubernetes, once; those that run it have one of their
    own. Without effect on one machine."""
    digest: Annotated[Digest, Field(json_schema_extra=_IMMUTABLE)] | None = None
    """Pins the content: sha256: over the sorted paths and contents. Anything else is refused as DigestMismatch."""
    format: Word | None = None
    """Format of the artifact, for example onnx, skops, joblib or pickle; detected from the bytes when left out."""
    format_version: Annotated[str, Field(max_length=64)] | None = None
    """Version of the format or of the library that wrote the artifact; checked where the artifact records it."""
    trust: Trust | None = None
    """pickle allows loaders that run code from the artifact or skip bounds checks. Only for artifacts whose author you
    trust like your own code."""
    inputs: Tensors | None = None
    """Inputs; read from the artifact when left out."""
    outputs: Tensors | None = None
    """Outputs; read from the artifact when left out."""


class Prepared(Part):
    """Which request to read the artifact was answered."""

    generation: Generation
    """metadata.generation for which the artifact was read."""
    refresh: Annotated[str, Field(max_length=253)] = ""
    """Value of the annotation modelyard.dev/refresh for which it was read."""


class ModelStatus(Part):
    """What was found out about the artifact. Kept while a refresh is under way or has failed."""

    observed_generation: Generation | None = None
    """metadata.generation that this status was computed from."""
    digest: Digest | None = None
    """Content that services of this model run."""
    size_bytes: Annotated[int, Field(json_schema_extra={"format": "int64"})] | None = None
    """Size of all files of the artifact."""
    format: Annotated[str, Field(max_length=63)] | None = None
    """Format that was found."""
    format_version: Annotated[str, Field(max_length=64)] | None = None
    """Version that the artifact records."""
    inputs: Tensors | None = None
    """Inputs that requests must carry."""
    outputs: Tensors | None = None
    """Outputs that answers carry."""
    prepared: Prepared | None = None
    """Which request to read the artifact was answered."""
    conditions: Conditions | None = None
    """Ready: whether services can run the model."""


class Model(Part):
    """A Model is an artifact with its format, signature and trust; services refer to it by name."""

    api_version: Literal["modelyard.dev/v1alpha1"] = API_VERSION
    kind: Literal["Model"] = "Model"
    metadata: Metadata
    spec: ModelSpec
    status: ModelStatus = ModelStatus()

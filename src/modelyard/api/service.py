"""ModelService: serve a model."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from modelyard.api import API_VERSION
from modelyard.api.fields import (
    Conditions,
    Digest,
    Duration,
    Env,
    Generation,
    Metadata,
    Name,
    Part,
    Resources,
    Trust,
    Uri,
    Word,
    keyed_by,
    rules,
)

MAX_NAME = 40
"""Longest name: revisions, owned models and processes are named after the service."""
NAME_RULES = (
    (
        f"self.metadata.name.size() <= {MAX_NAME}",
        f"metadata.name is at most {MAX_NAME} characters, because revisions and processes are named after it",
    ),
    ("!self.metadata.name.contains('.')", "metadata.name must not contain dots: public ids are <name>.<namespace>"),
)


class ModelReference(Part):
    """A Model by name, or an artifact by uri."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.name) != has(self.uri)", "set exactly one of name and uri"),
            (
                "!has(self.name) || (!has(self.format) && !has(self.digest) && !has(self.trust) && "
                "!has(self.credentials))",
                "format, digest, trust and credentials go with uri; for a model by name they belong into the Model",
            ),
        )
    )

    name: Name | None = None
    """Name of a Model in the same namespace."""
    uri: Uri | None = None
    """Where the artifact is, for a service that needs no Model of its own; as Model.spec.uri."""
    format: Word | None = None
    """As Model.spec.format."""
    digest: Digest | None = None
    """As Model.spec.digest."""
    trust: Trust | None = None
    """As Model.spec.trust."""
    credentials: Name | None = None
    """As Model.spec.credentials."""


class ModelServiceSpec(Part):
    """What to serve and how."""

    model: ModelReference
    """The model to serve. A change makes a new revision, which gets the traffic when it is ready."""
    runtime: Name | None = None
    """Runtime in the same namespace that runs the model; by default the built-in way for its format."""
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """How many processes serve the model. With 0 none does, and requests get 503."""
    resources: Resources | None = None
    """Resources of one replica; the Runtime's by default."""
    env: Env | None = None
    """Environment variables of the model's process, besides the Runtime's."""
    timeout: Duration = "60s"
    """How long a request may take, retries included, before the caller gets 504."""


class TrafficTarget(Part):
    """A share of the requests."""

    revision: Annotated[str, Field(max_length=253)]
    """Name of the ControllerRevision that answers."""
    percent: Annotated[int, Field(ge=0, le=100)]
    """Share of the requests."""


class ModelServiceStatus(Part):
    """How the service does."""

    observed_generation: Generation | None = None
    """metadata.generation that this status was computed from."""
    url: Annotated[str, Field(max_length=2048)] | None = None
    """Base URL of the model: add /infer to predict."""
    latest_created_revision: Annotated[str, Field(max_length=253)] | None = None
    """Newest revision."""
    latest_ready_revision: Annotated[str, Field(max_length=253)] | None = None
    """Newest revision that has been ready."""
    digest: Digest | None = None
    """Content of the model in the newest revision that has been ready."""
    replicas: Annotated[int, Field(json_schema_extra={"format": "int32"})] | None = None
    """Replicas that run or start, of all revisions."""
    ready_replicas: Annotated[int, Field(json_schema_extra={"format": "int32"})] | None = None
    """Replicas that can answer."""
    desired_replicas: Annotated[int, Field(json_schema_extra={"format": "int32"})] | None = None
    """Replicas asked for."""
    selector: Annotated[str, Field(max_length=1024)] | None = None
    """Label selector of the replicas, for autoscalers."""
    traffic: Annotated[
        tuple[TrafficTarget, ...] | None, Field(max_length=16, json_schema_extra=keyed_by("revision"))
    ] = None
    """Where requests go now."""
    conditions: Conditions | None = None
    """Ready: the declared spec is what answers. Available: some revision answers. Others say why not."""


class ModelService(Part):
    """A ModelService serves a model to callers."""

    api_version: Literal["modelyard.dev/v1alpha1"] = API_VERSION
    kind: Literal["ModelService"] = "ModelService"
    metadata: Metadata
    spec: ModelServiceSpec
    status: ModelServiceStatus = ModelServiceStatus()

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
    Quantity,
    Resources,
    Trust,
    Uri,
    Word,
    rules,
)
from modelyard.api.pod import PodTemplate, ServiceAccountName

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


HEADER_PATTERN = r"^[A-Za-z0-9][-A-Za-z0-9]*$"
TAG_PATTERN = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
LATEST = "latest"
MAX_TARGETS = 8
_TRAFFIC_RULES = (
    (
        "self.filter(t, has(t.percent)).map(t, t.percent).sum() == 100",
        "the percent of all targets must add up to 100",
    ),
    ("self.filter(t, has(t.mirror)).size() <= 1", "at most one target may be a mirror"),
    (
        "self.all(t, !has(t.tag) || self.exists_one(o, has(o.tag) && o.tag == t.tag))",
        "each tag must be given once",
    ),
)


class MirrorSettings(Part):
    """Copies of requests, whose answers no caller sees."""

    percent: Annotated[int, Field(ge=1, le=100)] = 100
    """How many of a hundred requests are copied."""
    compare_percent: Annotated[int, Field(ge=0, le=100)] = 10
    """Of a hundred copies, how many are compared with what the serving revision answers."""


class TrafficSplit(Part):
    """A revision, and what it gets. While it is named it runs, with as many replicas as the service asks for."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("!(has(self.percent) && has(self.mirror))", "set percent or mirror, not both"),
            (
                "has(self.percent) || has(self.mirror) || has(self.tag)",
                "set percent, mirror or tag: otherwise the revision gets nothing",
            ),
        )
    )

    revision: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of a revision (digits-svc-00002), or latest: the newest one that has been ready."""
    percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """Share of the requests. While the revision is not ready, the others get it, in proportion to theirs."""
    tag: Annotated[str, Field(pattern=TAG_PATTERN, max_length=40)] | None = None
    """An address of its own, whatever the shares: /v2/models/<id>/versions/<tag>/infer."""
    mirror: MirrorSettings | None = None
    """The revision gets copies of requests."""


class Sticky(Part):
    """What keeps a caller with one revision."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!self.header.matches('(?i)^(authorization|x-api-key)$')",
                "header: callers' credentials are not used for this; name a header of its own, such as X-User",
            )
        )
    )

    header: Annotated[str, Field(pattern=HEADER_PATTERN, max_length=64)]
    """Requests with the same value of this header go to the same revision and, while it lives, the same replica."""


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
    service_account_name: ServiceAccountName | None = None
    """ServiceAccount of the pods on Kubernetes, by default that of the Model. Its cloud identity fetches the artifact
    where credentials hold no keys; no token of the API is mounted. A change makes a new revision. Without effect on one
    machine."""
    pod_template: PodTemplate | None = None
    """Overlay over the pods on Kubernetes. A change makes a new revision. The pod that reads an artifact named by
    model.uri runs where these do: see Model.spec.podTemplate."""
    timeout: Duration = "60s"
    """How long a request may take, retries included, before the caller gets 504."""
    visibility: Literal["public", "internal"] | None = None
    """internal: answered only by the gateway's internal listener; at the public one the model is unknown. By default
    public."""
    traffic: (
        Annotated[
            tuple[TrafficSplit, ...],
            Field(min_length=1, max_length=MAX_TARGETS, json_schema_extra=rules(*_TRAFFIC_RULES)),
        ]
        | None
    ) = None
    """Shares of the requests by revision, which take effect at once; by default the newest ready one gets all."""
    sticky: Sticky | None = None
    """Keep a caller with one revision."""
    retries: Annotated[int, Field(ge=0, le=10)] | None = None
    """How often a request is sent again when a replica was lost before it began to answer; by default 3."""
    max_concurrency: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Requests under way at one time for one revision, in each gateway; further ones get 503 with Retry-After."""
    max_request_size: Quantity | None = None
    """Largest body of a request, such as 10Mi, and 4Gi at most; larger ones get 413."""
    compression: bool | None = None
    """Compress answers for callers that accept gzip or zstd. By default they are not."""


_Count = Annotated[int, Field(ge=0)]
_Figure = Annotated[str, Field(max_length=32)]


class MirrorResult(Part):
    """How the answers to copies of requests compare with those of the revision that serves most, since the replicas
    that run were started. Numbers that differ by a millionth of the larger one are equal."""

    compared: _Count = 0
    """Copies that both revisions answered."""
    different: _Count = 0
    """Of these, how many got another answer, by more than the revision that serves differs from itself."""
    noisy: _Count = 0
    """For how many the revision that serves, asked twice, gave two different answers."""
    shadow_failed: _Count = 0
    """Copies that only the revision that serves answered."""
    serving_failed: _Count = 0
    """Copies that only this revision answered."""
    both_failed: _Count = 0
    """Copies that both refused or failed on."""
    skipped: _Count = 0
    """Copies that were to be compared and were not: too many at a time, too large, or nobody could be asked."""
    largest_difference: _Figure = "0"
    """Between two numbers of both answers."""
    largest_relative_difference: _Figure = "0"
    """The same, relative to the larger of the two numbers."""
    largest_noise: _Figure = "0"
    """Between two numbers of two answers of the revision that serves."""
    largest_relative_noise: _Figure = "0"
    """The same, relative to the larger of the two numbers."""
    latency_milliseconds: _Count | None = None
    """How long this revision takes for a request, the median lately; absent while it gets none. A new figure within a
    tenth of the one that stands here is left out."""
    serving_latency_milliseconds: _Count | None = None
    """The same, of the revision that serves most."""


class TrafficTarget(Part):
    """What a revision gets now."""

    revision: Annotated[str, Field(max_length=253)]
    """Name of the ControllerRevision that answers."""
    percent: Annotated[int, Field(ge=0, le=100)]
    """Share of the requests."""
    mirror_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """Share of the requests that it gets copies of."""
    mirror: MirrorResult | None = None
    """What came of comparing its answers to copies."""
    tag: Annotated[str, Field(max_length=40)] | None = None
    """Name of an address of its own."""
    url: Annotated[str, Field(max_length=2048)] | None = None
    """That address: add /infer to predict."""


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
    traffic: Annotated[tuple[TrafficTarget, ...], Field(max_length=2 * MAX_TARGETS)] | None = None
    """Where requests go now; a revision with several tags is there several times."""
    conditions: Conditions | None = None
    """Ready: the declared spec is what answers. Available: some revision answers. Others say why not."""


class ModelService(Part):
    """A ModelService serves a model to callers."""

    api_version: Literal["modelyard.dev/v1alpha1"] = API_VERSION
    kind: Literal["ModelService"] = "ModelService"
    metadata: Metadata
    spec: ModelServiceSpec
    status: ModelServiceStatus = ModelServiceStatus()

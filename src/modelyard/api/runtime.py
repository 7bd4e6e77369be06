"""Runtime: how to run a format or language when the built-in way does not do."""

from typing import Annotated, Literal

from pydantic import Field

from modelyard.api import API_VERSION
from modelyard.api.fields import (
    Conditions,
    Duration,
    Env,
    Generation,
    Metadata,
    Part,
    Resources,
    Word,
    keyed_by,
)

STARTUP_TIMEOUT = "60s"
"""What `probe.startupTimeout` is when nobody says otherwise."""


class Format(Part):
    """A model format that the runtime loads."""

    name: Word
    """Name of the format as Models spell it, for example sklearn, xgboost or my-format."""


class Process(Part):
    """The worker process that loads and scores."""

    command: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=4096)], ...], Field(min_length=1, max_length=64)
    ]
    """Program and arguments of a worker that speaks the worker protocol on file descriptors 3 and 4, or, in an image,
    by the pipes in the folder MODELYARD_PIPES. A relative program is looked up on PATH. The worker finds the artifact
    in the environment variable MODEL_DIR."""
    image: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Container image in which the worker runs, on Kubernetes, beside a server of Modelyard; for example
    ghcr.io/acme/r-worker:4.4. Nothing of Modelyard needs to be in it. Not supported on one machine."""


class Probe(Part):
    """When a replica counts as started."""

    startup_timeout: Duration | None = None
    """How long loading and the first inference may take before the replica is started again; 60s by default."""


class RuntimeSpec(Part):
    """How models of certain formats are run."""

    formats: Annotated[tuple[Format, ...], Field(min_length=1, max_length=64, json_schema_extra=keyed_by("name"))]
    """Formats that it loads. A service whose model has another format is refused. Formats that Modelyard does not run
    by itself use the first Runtime of the namespace, by name, that lists them."""
    process: Process
    """The worker process."""
    env: Env | None = None
    """Environment variables of the worker; a service's own win."""
    resources: Resources | None = None
    """Resources of a replica unless the service says otherwise."""
    probe: Probe | None = None
    """When a replica counts as started."""


class RuntimeStatus(Part):
    """What was found out about a Runtime."""

    observed_generation: Generation | None = None
    """metadata.generation that this status was computed from."""
    conditions: Conditions | None = None
    """Ready: whether the runtime can be used."""


class Runtime(Part):
    """A Runtime says how to run models of certain formats or languages that the built-in way does not cover."""

    api_version: Literal["modelyard.dev/v1alpha1"] = API_VERSION
    kind: Literal["Runtime"] = "Runtime"
    metadata: Metadata
    spec: RuntimeSpec
    status: RuntimeStatus = RuntimeStatus()

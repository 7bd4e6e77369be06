"""What a planner looks at and what it answers: frozen values, no IO."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard.api.access import AccessPolicy
from modelyard.api.job import ModelJob
from modelyard.api.model import Model, ModelSpec
from modelyard.api.runtime import Runtime
from modelyard.api.service import ModelService
from modelyard.api.stream import ModelStream
from modelyard.control.ir.access import Access
from modelyard.control.ir.desired import Desired
from modelyard.control.ir.observed import Capabilities, Load, Observed, ObservedRoute
from modelyard.control.ir.revision import JobRevision, Revision
from modelyard.control.ir.route import Route
from modelyard.control.ir.values import Key
from modelyard.control.plan.platform import Standing


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelView:
    """A Model, the Runtimes of its namespace sorted by name, and the tasks that the driver knows for it."""

    model: Model
    runtimes: tuple[Runtime, ...] = ()
    observed: Observed = Observed()
    capabilities: Capabilities = Capabilities()


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceView:
    """A ModelService and everything that decisions about it depend on.

    models: of its namespace that it names or owns. revisions: its own, in any order. capabilities: of the driver.
    gateway_url: `http://host:port` or https of the gateway, for status.url.
    in_transit: routes that were published and may be in force by now, the latest last.
    access: who may call it, as roles and AccessPolicies say. load: of its units that were called, seconds old.
    """

    service: ModelService
    models: tuple[Model, ...] = ()
    runtimes: tuple[Runtime, ...] = ()
    revisions: tuple[Revision, ...] = ()
    observed: Observed = Observed()
    route: ObservedRoute = ObservedRoute()
    in_transit: tuple[Route, ...] = ()
    capabilities: Capabilities = Capabilities()
    gateway_url: str = ""
    access: Access = Access()
    load: tuple[Load, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessPolicyView:
    """An AccessPolicy, and what became of it.

    services: those there are of what it is about, by name, and who may call them now. standing: None while it is not
    known.
    """

    policy: AccessPolicy
    services: Mapping[str, Access] = field(default_factory=dict)
    standing: Standing | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class JobView:
    """A ModelJob and everything that decisions about it depend on.

    models: of its namespace that it names, owns or makes. revision: the recorded one, None before it can start.
    """

    job: ModelJob
    models: tuple[Model, ...] = ()
    runtimes: tuple[Runtime, ...] = ()
    revision: JobRevision | None = None
    observed: Observed = Observed()
    capabilities: Capabilities = Capabilities()


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamView:
    """A ModelStream and everything that decisions about it depend on.

    models: of its namespace that it names or owns. revisions: its own, in any order.
    """

    stream: ModelStream
    models: tuple[Model, ...] = ()
    runtimes: tuple[Runtime, ...] = ()
    revisions: tuple[Revision, ...] = ()
    observed: Observed = Observed()
    capabilities: Capabilities = Capabilities()


@dataclass(frozen=True, kw_only=True, slots=True)
class GoingStreamView:
    """A ModelStream that is being deleted.

    stored: as the API server holds it; stream: the same, None where it cannot be read.
    """

    key: Key
    stored: dict[str, Any]
    stream: ModelStream | None = None
    revisions: tuple[Revision, ...] = ()
    observed: Observed = Observed()


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened to an object, for `kubectl describe`. type: Normal or Warning."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnedModel:
    """A Model to create for a service, job or stream with an inline artifact."""

    name: str
    spec: ModelSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeModel:
    """A Model of a job's output. annotations: tell whose it is; one by the same name that tells otherwise is kept."""

    name: str
    spec: ModelSpec
    annotations: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What must exist and be said. status: the whole `status` as JSON, None to leave it alone.

    models: owned Models to create if absent; obsolete_models: names of owned Models to delete. made: a Model to create
    from what a job left. expired: the object itself has had its time and is deleted.
    held: True: our finalizer must be on the object before anything is made for it; False: it is taken off, and the
    object goes. numbers_only: the status differs from the stored one in nothing else, so writing it may wait. passing:
    the status tells of something that ends by itself in a moment, as a rule, so writing it may wait for that.
    events: told when the status need not wait; happened: told in any case.
    wake_at: seconds since 1970 at which to look again even if nothing happens.
    """

    desired: Desired = field(default_factory=Desired)
    status: dict[str, Any] | None = None
    events: tuple[Event, ...] = ()
    happened: tuple[Event, ...] = ()
    models: tuple[OwnedModel, ...] = ()
    obsolete_models: tuple[str, ...] = ()
    made: MadeModel | None = None
    expired: bool = False
    held: bool | None = None
    numbers_only: bool = False
    passing: bool = False
    wake_at: float | None = None

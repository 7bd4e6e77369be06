"""Runtime: its own status, and which one runs a model."""

from dataclasses import dataclass

from modelyard.api.fields import EnvVar, Resources
from modelyard.api.runtime import STARTUP_TIMEOUT, Runtime
from modelyard.base import durations
from modelyard.base.conditions import Condition, Reason, Status
from modelyard.control.ir.observed import Capabilities
from modelyard.control.plan import status
from modelyard.control.plan.views import Outcome
from modelyard.wire.work import BUILTIN_FORMATS

IMAGE = "image"
"""Of `Capabilities.supports`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """How a model is run. command: of the worker, empty for ours. runtime: name of the Runtime, "" for the built-in.
    image: of the worker, "" where there is none of its own."""

    runtime: str = ""
    command: tuple[str, ...] = ()
    image: str = ""
    env: tuple[EnvVar, ...] = ()
    resources: Resources | None = None
    startup_timeout_seconds: float = durations.parse(STARTUP_TIMEOUT)


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why a model cannot be run: a reason and a sentence with the next step.

    itself: whatever its model is, who refers to it cannot run as it says.
    """

    reason: Reason
    message: str
    itself: bool = False


def desire(runtime: Runtime, capabilities: Capabilities, now: float) -> Outcome:
    """A Runtime is ready when it is valid, which admission saw to, and this place can run its worker."""
    refused = image_refusal(_selection(runtime), capabilities)
    if refused is None:
        formats = ", ".join(each.name for each in runtime.spec.formats)
        found = Condition(type="Ready", status=Status.TRUE, reason=Reason.VALID, message=f"runs {formats}")
    else:
        found = Condition(type="Ready", status=Status.FALSE, reason=refused.reason, message=refused.message)
    generation = runtime.metadata.generation
    stamped = status.conditions((found,), runtime.status.conditions, generation, now)
    return Outcome(status=status.status({}, stamped, generation))


def select(
    format_name: str, wanted: str | None, runtimes: tuple[Runtime, ...], *, path: str = "spec.runtime"
) -> Selection | Refusal:
    """The Runtime that a service or job names at `path`; else ours; else the first by name that lists the format."""
    if wanted is not None:
        named = next((runtime for runtime in runtimes if runtime.metadata.name == wanted), None)
        if named is None:
            return Refusal(
                reason=Reason.RUNTIME_NOT_FOUND,
                message=f"{path}: there is no Runtime {wanted} in this namespace; apply it or correct the name",
            )
        if not _lists(named, format_name):
            formats = ", ".join(each.name for each in named.spec.formats)
            return Refusal(
                reason=Reason.RUNTIME_MISMATCH,
                message=f"{path}: Runtime {wanted} runs {formats}, the model is {format_name}; "
                f"name another Runtime or add the format to it",
            )
        return _selection(named)
    if format_name in BUILTIN_FORMATS:
        return Selection()
    fitting = next((runtime for runtime in runtimes if _lists(runtime, format_name)), None)
    if fitting is None:
        return Refusal(
            reason=Reason.FORMAT_UNKNOWN,
            message=f"nothing here runs the format {format_name}; apply a Runtime whose spec.formats lists it "
            f"(built in: {', '.join(sorted(BUILTIN_FORMATS))})",
        )
    return _selection(fitting)


def image_refusal(selection: Selection, capabilities: Capabilities) -> Refusal | None:
    """Why its worker cannot run in this place."""
    if not selection.image or IMAGE in capabilities.supports:
        return None
    message = (
        f"Runtime {selection.runtime}: spec.process.image cannot be used on one machine without Kubernetes; leave it "
        "out, and install here what spec.process.command runs"
    )
    return Refusal(reason=Reason.UNSUPPORTED, message=message, itself=True)


def _lists(runtime: Runtime, format_name: str) -> bool:
    return any(each.name == format_name for each in runtime.spec.formats)


def _selection(runtime: Runtime) -> Selection:
    timeout = runtime.spec.probe.startup_timeout if runtime.spec.probe else None
    return Selection(
        runtime=runtime.metadata.name,
        command=runtime.spec.process.command,
        image=runtime.spec.process.image or "",
        env=runtime.spec.env or (),
        resources=runtime.spec.resources,
        startup_timeout_seconds=durations.parse(timeout or STARTUP_TIMEOUT),
    )

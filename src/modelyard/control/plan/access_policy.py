"""AccessPolicy: what to say about it. What it means for services is in `tightening` and `grants`."""

from collections.abc import Iterable, Iterator

from modelyard.api.settings import Strictness
from modelyard.base.conditions import Condition, Reason, Status
from modelyard.control.ir.access import ANONYMOUS
from modelyard.control.plan import status, tightening
from modelyard.control.plan.callers import Callers
from modelyard.control.plan.platform import Standing
from modelyard.control.plan.tightening import Tightening
from modelyard.control.plan.views import AccessPolicyView, Event, Outcome

_SHOWN = 5


def desire(view: AccessPolicyView, now: float) -> Outcome:
    """Its status. Nothing is said before it is known what it is measured by."""
    if view.standing is None:
        return Outcome()
    policy = view.policy
    found = (_ready(view, view.standing), *_open(view))
    generation = policy.metadata.generation
    stamped = status.conditions(found, policy.status.conditions, generation, now)
    return Outcome(
        status=status.status({"services": len(view.services)}, stamped, generation),
        events=_events(view, found),
    )


def _ready(view: AccessPolicyView, standing: Standing) -> Condition:
    problems = tuple(_problems(view, standing))
    if problems:
        message = "; ".join(message for _, message in problems)
        return Condition(type="Ready", status=Status.FALSE, reason=problems[0][0], message=message)
    count = len(view.services)
    message = f"holds for {count} service{'' if count == 1 else 's'}"
    return Condition(type="Ready", status=Status.TRUE, reason=Reason.VALID, message=message)


def _problems(view: AccessPolicyView, standing: Standing) -> Iterator[tuple[Reason, str]]:
    spec = view.policy.spec
    known = sorted(each.name for each in standing.platform.issuers)
    for index, name in enumerate(spec.issuers or ()):
        if name not in known:
            yield (
                Reason.ISSUER_NOT_FOUND,
                f"spec.issuers[{index}]: there is no issuer {name!r}, and nobody is let in through it; "
                f"known are {', '.join(known)}",
            )
    asked = spec.authentication
    if asked is not None and Strictness[asked] < Strictness[standing.floor]:
        yield (
            Reason.BELOW_FLOOR,
            f"spec.authentication: {asked} is less than the floor of this platform, so {standing.floor} holds; "
            f"ask for that, or lower gateway.floor in the platform's settings",
        )
    missing = [name for name in spec.services or () if name not in view.services]
    if missing:
        yield Reason.SERVICE_NOT_FOUND, f"spec.services: there is no ModelService {_listed(missing)} in this namespace"
    callers = Callers(standing.platform.issuers, {})
    for index, limit in enumerate(spec.rate_limits or ()):
        if limit.group and not limit.group.startswith("system:") and not callers.of((True, limit.group)):
            yield (
                Reason.GROUP_NOT_FOUND,
                f"spec.rateLimits[{index}].group: no issuer can name the group {limit.group!r}, so it limits nobody; "
                f"names of groups begin with the prefix of their issuer",
            )
    wanted = set(tightening.limits(Tightening.of(view.policy), callers))
    crowded = [name for name, access in view.services.items() if not wanted.issubset(access.limits)]
    if crowded:
        yield (
            Reason.TOO_MANY_LIMITS,
            f"spec.rateLimits: for {_listed(crowded)} not all of them count: a service has {tightening.MOST_LIMITS} "
            f"at most, and those of older policies come first; give limits that several policies name to one of them",
        )


def _open(view: AccessPolicyView) -> tuple[Condition, ...]:
    """What it lets in without a token: only a policy that asks for that can be the reason."""
    if view.policy.spec.authentication not in ("none", "optional"):
        return ()
    to_anybody = [name for name, access in view.services.items() if access.authentication == "none"]
    to_anonymous = [name for name, access in view.services.items() if ANONYMOUS in access.callers]
    if not to_anybody and not to_anonymous:
        return ()
    said = []
    if to_anybody:
        said.append(f"anybody may call {_listed(to_anybody)}")
    if to_anonymous:
        said.append(f"roles let callers without a token call {_listed(to_anonymous)}")
    reason = Reason.OPEN_TO_ANYBODY if to_anybody else Reason.OPEN_TO_ANONYMOUS
    return (Condition(type="Open", status=Status.TRUE, reason=reason, message="; ".join(said)),)


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = len(ordered) - _SHOWN
    return ", ".join(ordered[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _events(view: AccessPolicyView, found: tuple[Condition, ...]) -> tuple[Event, ...]:
    return status.events(found, view.policy.status.conditions)

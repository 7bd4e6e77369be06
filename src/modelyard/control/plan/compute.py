"""Declared resources and environment variables in the words of the IR."""

from modelyard.api import fields
from modelyard.base import quantities
from modelyard.control.ir.unit import Resources, SecretKey, Variable

_COUNTED = frozenset({"cpu", "memory"})
"""What is no device."""


def threads(resources: Resources) -> int:
    """Whole cores of the CPU limit, at least one; one without a limit, so that processes do not fight for cores."""
    return max(1, resources.cpu_limit_millis // 1000)


def resources(declared: fields.Resources | None) -> Resources:
    """Numbers. As in Kubernetes, a limit without a request is the request, too."""
    if declared is None:
        return Resources()
    requests = declared.requests or {}
    limits = declared.limits or {}
    return Resources(
        cpu_request_millis=quantities.millis(requests.get("cpu", limits.get("cpu", 0))),
        cpu_limit_millis=quantities.millis(limits.get("cpu", 0)),
        memory_request_bytes=quantities.whole(requests.get("memory", limits.get("memory", 0))),
        memory_limit_bytes=quantities.whole(limits.get("memory", 0)),
        gpus=sum(quantities.whole(limits.get(name, 0)) for name in fields.GPU_RESOURCES),
        devices=tuple(sorted((name, quantities.whole(limits[name])) for name in limits if name not in _COUNTED)),
        claims=tuple(each.name for each in declared.claims or ()),
    )


def variables(*layers: tuple[fields.EnvVar, ...]) -> tuple[Variable, ...]:
    """Later layers win; sorted by name."""
    merged = {each.name: each for layer in layers for each in layer}
    return tuple(_variable(merged[name]) for name in sorted(merged))


def _variable(declared: fields.EnvVar) -> Variable:
    source = declared.value_from
    if source is None:
        return Variable(name=declared.name, value=declared.value or "")
    selector = source.secret_key_ref
    return Variable(
        name=declared.name,
        secret=SecretKey(secret=selector.name, key=selector.key, optional=bool(selector.optional)),
    )

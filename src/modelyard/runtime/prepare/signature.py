"""A model's signature: the artifact's own, narrowed by what its owner declared."""

from collections.abc import Sequence

from modelyard.base.conditions import Reason
from modelyard.runtime.backends.port import LoadFailed
from modelyard.wire.work import TensorSpec

_MAX_TENSORS = 256
_MAX_DIMENSIONS = 8
_MAX_SIZE = 2**31 - 1
_MAX_NAME = 253


def agreed(role: str, declared: Sequence[TensorSpec], found: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The tensors of a model in its own order; a size that the model leaves open may be declared.

    role: `inputs` or `outputs`. Raises LoadFailed (SignatureMismatch) naming both sides.
    """
    if not declared:
        return tuple(found)
    wanted = {spec.name: spec for spec in declared}
    if wanted.keys() != {spec.name for spec in found} or not all(_fits(wanted[spec.name], spec) for spec in found):
        raise LoadFailed(
            Reason.SIGNATURE_MISMATCH,
            f"`{role}` says {listed(declared)}, and the artifact has {listed(found)}; correct it or leave it out",
        )
    return tuple(wanted[spec.name] for spec in found)


def check(role: str, specs: Sequence[TensorSpec]) -> None:
    """Refuse what a Model's status cannot say (`api.fields.Tensors`): raises LoadFailed."""
    if not specs:
        raise LoadFailed(Reason.SAMPLE_MISSING, f"the artifact names no {role}; declare them in `{role}`")
    if len(specs) > _MAX_TENSORS:
        raise LoadFailed(Reason.UNSUPPORTED, f"the model has {len(specs)} {role}; at most {_MAX_TENSORS} can be served")
    for spec in specs:
        if not 1 <= len(spec.shape) <= _MAX_DIMENSIONS or any(size > _MAX_SIZE for size in spec.shape):
            raise LoadFailed(
                Reason.UNSUPPORTED,
                f"{listed([spec])} of the {role} has no rows or more than {_MAX_DIMENSIONS} dimensions; export the "
                "model with the rows as first dimension",
            )
        if not 1 <= len(spec.name) <= _MAX_NAME:
            raise LoadFailed(
                Reason.UNSUPPORTED, f"a name among the {role} has {len(spec.name)} characters, not 1 to 253"
            )


def listed(specs: Sequence[TensorSpec]) -> str:
    """For people: `X FP64[-1,4], label INT64[-1]`."""
    shown = [f"{spec.name} {spec.datatype}[{','.join(map(str, spec.shape))}]" for spec in specs[:8]]
    return ", ".join(shown) + (f" and {len(specs) - 8} more" if len(specs) > 8 else "") or "nothing"


def _fits(declared: TensorSpec, found: TensorSpec) -> bool:
    return (
        declared.datatype == found.datatype
        and len(declared.shape) == len(found.shape)
        and all(theirs in (-1, ours) for ours, theirs in zip(declared.shape, found.shape, strict=True))
    )

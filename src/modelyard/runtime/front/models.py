"""Models that this process hosts: proven by an inference before they count as loaded."""

import logging

import numpy as np

from modelyard.base.conditions import Reason
from modelyard.base.errors import ModelyardError
from modelyard.runtime.backends.port import Array, Backend, LoadFailed, Tensors
from modelyard.runtime.front.batcher import Batcher, concatenated
from modelyard.runtime.front.metrics import ModelMetrics
from modelyard.runtime.front.tensors import DTYPES, Signature
from modelyard.wire.work import ModelWork, ServeWork, TensorSpec

_log = logging.getLogger(__name__)


class HostedModel:
    """One loaded model behind its queue."""

    def __init__(self, work: ModelWork, signature: Signature, batcher: Batcher, metrics: ModelMetrics) -> None:
        self.work = work
        self.signature = signature
        self.batcher = batcher
        self.metrics = metrics


async def host(work: ModelWork, backend: Backend, serve: ServeWork) -> HostedModel:
    """Prove that the model answers, and whether it may be batched. Raises LoadFailed."""
    signature = Signature(
        _declared(work, "input", work.inputs, backend.inputs), _declared(work, "output", work.outputs, backend.outputs)
    )
    try:
        found = await backend.infer(signature.zeros())
    except ModelyardError as error:
        raise LoadFailed(
            Reason.WARMUP_FAILED, f"the first inference of {work.name}, with zeros, failed: {error.message}"
        ) from error
    if missing := [spec.name for spec in signature.outputs if spec.name not in found]:
        raise LoadFailed(
            Reason.SIGNATURE_MISMATCH,
            f"{work.name} answers no output {', '.join(map(repr, missing))}; it answers {', '.join(map(repr, found))}",
        )
    batchable = signature.batchable and serve.max_batch_rows > 1 and await _rows_are_independent(backend, signature)
    if signature.batchable and serve.max_batch_rows > 1 and not batchable:
        _log.warning("%s: two rows in one call give other answers than one by one; requests are not batched", work.name)
    metrics = ModelMetrics(work.name)
    batcher = Batcher(
        backend,
        max_rows=serve.max_batch_rows,
        max_queue=serve.max_queue,
        batchable=batchable,
        on_batch=metrics.batch_rows.observe,
    )
    metrics.queue_length = batcher.waiting
    return HostedModel(work, signature, batcher, metrics)


def _declared(
    work: ModelWork, role: str, declared: tuple[TensorSpec, ...], found: tuple[TensorSpec, ...]
) -> tuple[TensorSpec, ...]:
    """The tensors as they were declared, else as the model says; names and datatypes must agree."""
    for spec in (*declared, *found):
        if spec.datatype not in DTYPES:
            raise LoadFailed(
                Reason.SIGNATURE_MISMATCH,
                f"{work.name}: {role} {spec.name!r} has the unknown datatype {spec.datatype!r}; "
                f"expected {', '.join(DTYPES)}",
            )
    if not declared:
        return found
    ours = {(spec.name, spec.datatype) for spec in declared}
    theirs = {(spec.name, spec.datatype) for spec in found}
    if ours != theirs:
        raise LoadFailed(
            Reason.SIGNATURE_MISMATCH,
            f"{work.name}: the declared {role}s are {_listed(declared)}, and the model has {_listed(found)}",
        )
    return declared


def _listed(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{spec.name} ({spec.datatype} {list(spec.shape)})" for spec in specs) or "none"


async def _rows_are_independent(backend: Backend, signature: Signature) -> bool:
    """Whether two rows in one call give what they give one by one.

    A first dimension of any size need not be the rows: words of one sentence, a softmax over everything. Batching such
    a model would mix the requests of different callers.
    """
    first = signature.zeros()
    second = {name: array if array.dtype == object else np.ones_like(array) for name, array in first.items()}
    try:
        apart = concatenated([await backend.infer(first), await backend.infer(second)])
        together = await backend.infer(concatenated([first, second]))
    except (ModelyardError, ValueError):  # ValueError: outputs that do not fit below one another
        return False
    return _alike(apart, together)


def _alike(apart: Tensors, together: Tensors) -> bool:
    return all(array.shape[:1] == (2,) and _close(array, together[name]) for name, array in apart.items())


def _close(one: Array, other: Array) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype.kind == "f":
        return bool(np.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True))
    return bool(np.array_equal(one, other))

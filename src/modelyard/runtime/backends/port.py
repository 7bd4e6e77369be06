"""The one interface behind which every engine and language hides."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from modelyard.base.errors import ModelyardError, RetryLater
from modelyard.wire.work import TensorSpec

Array = NDArray[Any]
Tensors = Mapping[str, Array]
"""Name -> array; the first dimension of each is the rows. BYTES tensors are object arrays of `bytes`."""


class LoadFailed(ModelyardError):
    """A model cannot be loaded. reason: a `base.conditions.Reason`; retry: the same attempt may succeed later."""

    def __init__(self, reason: str, message: str, *, retry: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry = retry


class WorkerDied(RetryLater):
    """The process that scored a batch ended; only that batch is affected."""


class WorkerMissing(WorkerDied):
    """It cannot be started again at this moment; nothing is known about the batch."""


class Backend(Protocol):
    """A loaded model."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    async def infer(self, inputs: Tensors) -> Tensors:
        """Score one batch: every input of the signature, in its datatype, with equal numbers of rows.

        Raises UserError when the model refuses the values, WorkerDied when its process ended. One call at a time.
        """
        ...

    async def close(self) -> None:
        """Release everything; idempotent."""
        ...


def rows(tensors: Tensors) -> int:
    """The number of rows of a batch."""
    return int(np.shape(next(iter(tensors.values())))[0])

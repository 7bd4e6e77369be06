"""Between the elements of a request and the arrays of a model: the signature's checks, both ways."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from modelyard.base.errors import UserError
from modelyard.runtime.backends.port import Array, Tensors
from modelyard.wire import oip
from modelyard.wire.work import TensorSpec

DTYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}
_DATATYPES = {dtype: datatype for datatype, dtype in DTYPES.items()}


class Sent(Protocol):
    """What any form of a request says about an input tensor."""

    @property
    def name(self) -> str: ...

    @property
    def datatype(self) -> str: ...

    @property
    def shape(self) -> list[int]: ...


_Sent = TypeVar("_Sent", bound=Sent)


def _loses_nothing(sent: str, taken: str) -> bool:
    """Whether every value of one datatype is a value of the other."""
    if sent == taken:
        return True
    if {sent, taken} & {"BOOL", "BYTES"}:
        return False
    if sent in ("INT64", "UINT64") and taken == "FP64":
        return False  # numpy calls it safe; 2**53 + 1 is not
    return bool(np.can_cast(DTYPES[sent], DTYPES[taken], "safe"))


class Signature:
    """What a model takes and gives.

    batchable: whether rows of different requests may be put into one call: every tensor has a first dimension of any
    size. (A model for which the first dimension means something else is found out by `models.host`.)
    """

    def __init__(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.batchable = bool(inputs) and all(spec.shape[:1] == (-1,) for spec in (*inputs, *outputs))
        self._inputs = {spec.name: spec for spec in inputs}
        self._output_names = frozenset(spec.name for spec in outputs)
        self._accepted = {
            spec.name: frozenset(datatype for datatype in DTYPES if _loses_nothing(datatype, spec.datatype))
            for spec in inputs
        }
        self._fixed = all(-1 not in spec.shape[1:] for spec in inputs)

    def read(self, request: oip.InferRequest) -> dict[str, Array]:
        """The model's inputs, complete and in its own datatypes. Raises UserError naming the field."""
        return self.take(request.inputs, _from_json)

    def take(self, inputs: Sequence[_Sent], elements: Callable[[int, _Sent], Array]) -> dict[str, Array]:
        """As `read`, of any form. elements: an input's elements, flat, in the datatype that was sent."""
        arrays: dict[str, Array] = {}
        rows = 0
        for position, tensor in enumerate(inputs):
            field = f"inputs[{position}]"
            spec = self._inputs.get(tensor.name)
            if spec is None:
                raise UserError(f"{field}.name: the model has no input {tensor.name[:64]!r}; it takes {self._names()}")
            if tensor.name in arrays:
                raise UserError(f"{field}.name: {tensor.name!r} is there twice")
            self._check(field, tensor, spec)
            if self.batchable:
                if rows and tensor.shape[0] != rows:
                    raise UserError(f"{field}.shape: has {tensor.shape[0]} rows, but inputs[0] has {rows}")
                rows = tensor.shape[0]
            array = elements(position, tensor)
            if tensor.datatype != spec.datatype:
                array = array.astype(DTYPES[spec.datatype])
            arrays[tensor.name] = array.reshape(tensor.shape)
        if len(arrays) < len(self._inputs):
            missing = ", ".join(repr(name) for name in self._inputs if name not in arrays)
            raise UserError(f"inputs: {missing} is missing; the model takes {self._names()}")
        return arrays

    def select(self, wanted: Sequence[oip.RequestedOutput] | None) -> tuple[str, ...]:
        """The names of the outputs to answer, in that order; () means all. Raises UserError on an unknown one."""
        if not wanted:
            return ()
        names = tuple(output.name for output in wanted)
        for position, name in enumerate(names):
            if name not in self._output_names:
                known = ", ".join(repr(spec.name) for spec in self.outputs)
                raise UserError(
                    f"outputs[{position}].name: the model has no output {name[:64]!r}; it gives {known or 'none'}"
                )
            if name in names[:position]:
                raise UserError(f"outputs[{position}].name: {name!r} is there twice")
        return names

    def group(self, arrays: Tensors) -> tuple[tuple[int, ...], ...]:
        """Requests with equal groups may share one call: the sizes of the rows, where they are not fixed."""
        if self._fixed:
            return ()
        return tuple(array.shape[1:] for _, array in sorted(arrays.items()))

    def zeros(self, rows: int = 1) -> dict[str, Array]:
        """Inputs for a first inference: zeros, or empty BYTES; dimensions of any size are 1, the first is rows."""
        arrays = {}
        for spec in self.inputs:
            shape = [1 if size < 0 else size for size in spec.shape]
            if spec.shape[:1] == (-1,):
                shape[0] = rows
            dtype = DTYPES[spec.datatype]
            arrays[spec.name] = np.full(shape, b"", dtype) if spec.datatype == "BYTES" else np.zeros(shape, dtype)
        return arrays

    def _check(self, field: str, tensor: Sent, spec: TensorSpec) -> None:
        if tensor.datatype not in self._accepted[spec.name]:
            accepted = self._accepted[spec.name]
            raise UserError(
                f"{field}.datatype: {tensor.datatype[:64]!r} cannot be sent to {spec.name!r}, which takes "
                f"{spec.datatype}; expected {', '.join(name for name in oip.DATATYPES if name in accepted)}"
            )
        expected = spec.shape
        if len(tensor.shape) != len(expected) or any(
            size not in (-1, sent) for size, sent in zip(expected, tensor.shape, strict=True)
        ):
            raise UserError(
                f"{field}.shape: {tensor.shape} does not fit {spec.name!r}, which takes {list(expected)} (-1: any size)"
            )

    def _names(self) -> str:
        return ", ".join(repr(name) for name in self._inputs) or "none"


def answer(outputs: Tensors, wanted: tuple[str, ...]) -> list[oip.ResponseOutput]:
    """The outputs of a model as the wire has them. Raises UserError where JSON cannot carry one."""
    return [_output(name, outputs[name]) for name in wanted or outputs]


def datatype_of(name: str, array: Array) -> str:
    """The datatype of an output; raises UserError where the protocol has none."""
    datatype = _DATATYPES.get(array.dtype)
    if datatype is None:
        raise UserError(f"output {name!r}: {array.dtype} has no Open Inference Protocol datatype")
    return datatype


def _output(name: str, array: Array) -> oip.ResponseOutput:
    datatype = datatype_of(name, array)
    elements = array.ravel().tolist()
    if datatype == "BYTES":
        try:
            elements = [element.decode() for element in elements]
        except UnicodeDecodeError:
            raise UserError(f"output {name!r}: its bytes are not UTF-8, and JSON cannot carry them") from None
    return oip.ResponseOutput(name, datatype, array.shape, elements)


def _from_json(position: int, tensor: oip.RequestInput) -> Array:
    elements = oip.elements(f"inputs[{position}]", tensor)
    if tensor.datatype == "BYTES":
        array: Array = np.empty(len(elements), object)
        array[:] = [str(element).encode() for element in elements]
        return array
    return np.array(elements, DTYPES[tensor.datatype])

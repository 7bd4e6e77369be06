"""Open Inference Protocol V2, REST with JSON: bytes <-> values, without numpy and without a signature.

Source: kserve/open-inference-protocol, `specification/protocol/inference_rest.md`, with these decisions where it is
silent or servers differ:

* A request is strict: unknown fields, fractions or booleans where integers belong and numbers outside of the datatype
  are errors that name the field (`inputs[0].data[3]: ...`).
* JSON has no NaN and no infinity. They are refused in requests (`null` is not a number either); where a model answers
  one, the response holds `null`.
* `data` is flat in row-major order, or nested exactly as `shape` says. FP16 travels as numbers, BYTES as UTF-8 strings.
* The binary tensor extension is not spoken; server metadata lists no extensions.
"""

import math
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Annotated, Any

import msgspec

from modelyard.base.errors import UserError
from modelyard.wire.work import TensorSpec

DATATYPES = (
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BYTES",
)
MAX_DIMENSIONS = 8

Element = bool | int | float | str
Parameters = dict[str, str | int | float | bool | None]
Dimension = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Name = Annotated[str, msgspec.Meta(max_length=1024)]


class _Struct(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    pass


class RequestInput(_Struct, kw_only=True):
    """One input tensor. data: its JSON, not looked at yet (`elements` does that)."""

    name: Name
    shape: Annotated[list[Dimension], msgspec.Meta(max_length=MAX_DIMENSIONS)]
    datatype: Name
    data: msgspec.Raw
    parameters: Parameters | None = None


class RequestedOutput(_Struct, kw_only=True):
    """One output that the caller wants."""

    name: Name
    parameters: Parameters | None = None


class InferRequest(_Struct, kw_only=True):
    """A `.../infer` request. outputs: None or empty means all."""

    inputs: list[RequestInput]
    id: Name | None = None
    parameters: Parameters | None = None
    outputs: list[RequestedOutput] | None = None


class ResponseOutput(msgspec.Struct, gc=False):
    """One output tensor. data: flat, row-major."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: Sequence[Any]


class InferResponse(msgspec.Struct, gc=False, omit_defaults=True):
    """The answer; the id of the request is echoed."""

    model_name: str
    model_version: str
    outputs: list[ResponseOutput]
    id: str | None = None


_REQUEST = msgspec.json.Decoder(InferRequest)
_ENCODER = msgspec.json.Encoder()


def decode_request(body: bytes) -> InferRequest:
    """Raise UserError, naming the field, on anything but a request; tensor data is checked by `elements`."""
    try:
        return _REQUEST.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(_sentence(error, "")) from error


def encode_response(response: InferResponse) -> bytes:
    """JSON; NaN and infinities become null."""
    return _ENCODER.encode(response)


def encode_error(message: str) -> bytes:
    """`{"error": "<message>"}`, the body of every answer that is not a success."""
    return _ENCODER.encode({"error": message})


def encode_model_metadata(
    name: str, versions: Sequence[str], platform: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> bytes:
    """The body of `GET /v2/models/{name}`."""
    return _ENCODER.encode(
        {"name": name, "versions": versions, "platform": platform, "inputs": inputs, "outputs": outputs}
    )


def elements(field: str, tensor: RequestInput) -> list[Element]:
    """The elements of a tensor, flat in row-major order, as many as its shape says.

    field: what errors call the tensor, such as `inputs[0]`. Every element is of the tensor's own datatype and in its
    range: bool, int, float (integers in JSON are floats too) or str. Raises UserError.
    """
    if tensor.datatype not in _ELEMENTS:
        raise UserError(f"{field}.datatype: {_quoted(tensor.datatype)} is unknown; expected {', '.join(DATATYPES)}")
    shape = tensor.shape
    opening = _OPENING.match(memoryview(tensor.data))
    depth = opening.group().count(b"[") if opening else 0
    if depth > 1 and depth != len(shape):
        raise UserError(
            f"{field}.data: is nested {depth} deep, but the shape {shape} has {len(shape)} dimensions; "
            "send a flat list, or nest it as the shape says"
        )
    try:
        found = _decoder(tensor.datatype, max(depth, 1))(tensor.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(_sentence(error, f"{field}.data")) from error
    if depth > 1:
        found = _flattened(f"{field}.data", found, shape)
    elif len(found) != math.prod(shape):
        raise UserError(f"{field}.data: has {len(found)} elements, but the shape {shape} says {math.prod(shape)}")
    return found


_OPENING = re.compile(rb"[\s\[]*")

_MAX_SENTENCE = 300  # an unknown field's name is the caller's
_FP16_LIMIT = 65519.99  # what rounds to the largest FP16, 65504, and not to infinity
_FP32_LIMIT = 3.4028235677973362e38

_ELEMENTS: dict[str, Any] = {
    "BOOL": bool,
    "UINT8": Annotated[int, msgspec.Meta(ge=0, le=2**8 - 1)],
    "UINT16": Annotated[int, msgspec.Meta(ge=0, le=2**16 - 1)],
    "UINT32": Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)],
    "UINT64": Annotated[int, msgspec.Meta(ge=0)],  # above 2**64 - 1: see `overflow`
    "INT8": Annotated[int, msgspec.Meta(ge=-(2**7), le=2**7 - 1)],
    "INT16": Annotated[int, msgspec.Meta(ge=-(2**15), le=2**15 - 1)],
    "INT32": Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)],
    "INT64": Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)],
    "FP16": Annotated[float, msgspec.Meta(ge=-_FP16_LIMIT, le=_FP16_LIMIT)],
    "FP32": Annotated[float, msgspec.Meta(ge=-_FP32_LIMIT, le=_FP32_LIMIT)],
    "FP64": float,
    "BYTES": str,
}


@lru_cache(maxsize=len(DATATYPES) * MAX_DIMENSIONS)
def _decoder(datatype: str, depth: int) -> Callable[[msgspec.Raw], list[Any]]:
    expected: Any = _ELEMENTS[datatype]
    for _ in range(depth):
        expected = list[expected]
    decode: Callable[[msgspec.Raw], list[Any]] = msgspec.json.Decoder(expected).decode
    if datatype == "UINT64":  # msgspec knows no bounds above 2**63 - 1
        return lambda raw: _within_uint64(decode(raw), depth)
    return decode


def _within_uint64(found: list[Any], depth: int) -> list[Any]:
    flat = found
    for _ in range(depth - 1):
        flat = list(chain.from_iterable(flat))
    if flat and max(flat) >= 2**64:
        raise msgspec.ValidationError(f"Expected `int` <= {2**64 - 1}")
    return found


def _flattened(field: str, rows: list[Any], shape: Sequence[int]) -> list[Element]:
    """Check the length of every list against the shape and join them."""
    if len(rows) != shape[0]:
        raise UserError(f"{field}: has {len(rows)} rows, but the shape {list(shape)} says {shape[0]}")
    for axis, size in enumerate(shape[1:], start=1):
        for position, row in enumerate(rows):
            if len(row) != size:
                raise UserError(
                    f"{field}: list {position} at depth {axis} has {len(row)} elements, "
                    f"but the shape {list(shape)} says {size}"
                )
        rows = list(chain.from_iterable(rows))
    return rows


def _sentence(error: Exception, field: str) -> str:
    """What msgspec says, as `field: expectation`. Its own form is `Expected int, got str - at $.inputs[0].shape[1]`."""
    if isinstance(error, RecursionError):
        return f"{field or 'the body'}: is nested too deep"
    if isinstance(error, UnicodeDecodeError):
        return f"{field or 'the body'}: is not UTF-8"
    text = " ".join(str(error).replace("`", "").split())
    if len(text) > _MAX_SENTENCE:
        text = f"{text[:_MAX_SENTENCE]} ..."
    if not isinstance(error, msgspec.ValidationError):
        return f"{field or 'the body'}: is not valid JSON: {text} (JSON has no NaN or Infinity)"
    what, _, path = text.partition(" - at ")
    where = f"{field}{path.removeprefix('$')}".removeprefix(".")
    return f"{where or 'the body'}: {what[:1].lower()}{what[1:]}"


def _quoted(text: str) -> str:
    """Somebody else's text inside an error: short and on one line."""
    return repr(text if len(text) <= 64 else text[:60] + " ...")

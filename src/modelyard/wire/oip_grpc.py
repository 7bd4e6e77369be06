"""Open Inference Protocol V2, gRPC: messages <-> values, without numpy and without a signature.

Source: kserve/open-inference-protocol, `specification/protocol/open_inference_grpc.proto`, and Triton's copy, which
clients are made from; with these decisions where they are silent or servers differ:

* Tensors come all in `contents` or all in `raw_input_contents`. FP16 has no contents and must be raw.
* A field of another wire type than the protocol's is an error that names it (a protobuf library would skip it); fields
  that the protocol does not have are skipped.
* The parameters of a request are echoed in its answer; parameters of tensors that ask for what is not done (shared
  memory, classification) are refused.
"""

from collections.abc import Sequence

import msgspec

from modelyard.base.errors import UserError
from modelyard.wire import oip
from modelyard.wire import protobuf as pb
from modelyard.wire.work import TensorSpec

SERVICE = "inference.GRPCInferenceService"

CONTENTS = {
    "BOOL": (1, "bool_contents"),
    "INT8": (2, "int_contents"),
    "INT16": (2, "int_contents"),
    "INT32": (2, "int_contents"),
    "INT64": (3, "int64_contents"),
    "UINT8": (4, "uint_contents"),
    "UINT16": (4, "uint_contents"),
    "UINT32": (4, "uint_contents"),
    "UINT64": (5, "uint64_contents"),
    "FP32": (6, "fp32_contents"),
    "FP64": (7, "fp64_contents"),
    "BYTES": (8, "bytes_contents"),
}
"""By datatype: the number and name of the field of InferTensorContents that has its elements."""

MAX_STRINGS = 2**22
"""Elements of one BYTES tensor: they are read one by one."""

_CONTENT_NAMES = dict(CONTENTS.values())
_CONTENT_WIRES = {6: pb.FIXED32, 7: pb.FIXED64}  # others are varints, or bytes
_BYTES_CONTENTS = CONTENTS["BYTES"][0]
_MAX_NAME = 1024
_MAX_INNER = 128  # fields of a message in a request: a list of numbers that is not packed has one for each
_MAX_DIMENSION = 2**31 - 1
_REFUSED = ("shared_memory_", "classification", "binary_data")
_PARAMETER_WIRES = {1: pb.VARINT, 2: pb.VARINT, 3: pb.BYTES, 4: pb.FIXED64, 5: pb.VARINT}


class RequestInput(msgspec.Struct, kw_only=True):
    """One input tensor.

    kind: the field of InferTensorContents that data comes from, 0: none. data: elements as protobuf packs them; of
    BYTES a list; where the request is raw, the bytes as they were sent.
    """

    name: str = ""
    datatype: str = ""
    shape: list[int] = msgspec.field(default_factory=list)
    kind: int = 0
    data: bytes | memoryview | list[bytes] = b""


class InferRequest(msgspec.Struct, kw_only=True):
    """A ModelInferRequest. outputs: names, none means all. parameters: map entries as they were sent."""

    model_name: str = ""
    model_version: str = ""
    id: str = ""
    inputs: list[RequestInput] = msgspec.field(default_factory=list)
    outputs: list[oip.RequestedOutput] = msgspec.field(default_factory=list)
    parameters: list[bytes] = msgspec.field(default_factory=list)
    raw: bool = False


class ResponseOutput(msgspec.Struct):
    """One output tensor. data: as in RequestInput."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: bytes | list[bytes]


def decode_named(message: bytes | memoryview) -> tuple[str, str]:
    """(name, version) of a ModelReadyRequest or a ModelMetadataRequest. Raises UserError naming the field."""
    found = {"name": "", "version": ""}
    for number, wire, value in pb.fields("the message", memoryview(message)):
        if number in (1, 2):
            name = ("name", "version")[number - 1]
            found[name] = _text(name, wire, value)
    return found["name"], found["version"]


def decode_infer(message: bytes | memoryview) -> InferRequest:
    """Raise UserError, naming the field, on anything but a ModelInferRequest; elements are not looked at."""
    request = InferRequest()
    raw: list[memoryview] = []
    for number, wire, value in pb.fields("the message", memoryview(message)):
        if number == 1:
            request.model_name = _text("model_name", wire, value)
        elif number == 2:
            request.model_version = _text("model_version", wire, value)
        elif number == 3:
            request.id = _text("id", wire, value)
        elif number == 4:
            data = _bytes("parameters", wire, value)
            _parameter("parameters", data)
            request.parameters.append(bytes(data))
        elif number == 5:
            field = f"inputs[{len(request.inputs)}]"
            request.inputs.append(_input(field, _bytes(field, wire, value)))
        elif number == 6:
            field = f"outputs[{len(request.outputs)}]"
            request.outputs.append(_output(field, _bytes(field, wire, value)))
        elif number == 7:
            raw.append(_bytes(f"raw_input_contents[{len(raw)}]", wire, value))
    if raw:
        _give(request, raw)
    return request


def encode_live(value: bool) -> bytes:
    """A ServerLiveResponse, ServerReadyResponse or ModelReadyResponse."""
    return pb.flag(1, value)


def encode_server_metadata(name: str, version: str) -> bytes:
    """A ServerMetadataResponse, without extensions."""
    return pb.text(1, name) + pb.text(2, version)


def encode_model_metadata(
    name: str, versions: Sequence[str], platform: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> bytes:
    """A ModelMetadataResponse."""
    parts = [pb.text(1, name), *(pb.chunk(2, each.encode()) for each in versions), pb.text(3, platform)]
    for number, specs in ((4, inputs), (5, outputs)):
        parts += [pb.chunk(number, _described(spec)) for spec in specs]
    return b"".join(parts)


def encode_response(request: InferRequest, version: str, outputs: Sequence[ResponseOutput], *, raw: bool) -> bytes:
    """A ModelInferResponse to a request: its model name, id and parameters are echoed. raw: so is the data."""
    parts = [pb.text(1, request.model_name), pb.text(2, version), pb.text(3, request.id)]
    parts += [pb.chunk(4, each) for each in request.parameters]
    tails: list[bytes] = []
    for output in outputs:
        described = _described(output)
        if raw:
            assert isinstance(output.data, bytes)
            tails += (pb.varint(6 << 3 | pb.BYTES), pb.varint(len(output.data)), output.data)
        else:
            described += pb.chunk(5, _contents(output))
        parts.append(pb.chunk(5, described))
    return b"".join((*parts, *tails))


def _described(tensor: TensorSpec | ResponseOutput) -> bytes:
    return pb.text(1, tensor.name) + pb.text(2, tensor.datatype) + pb.packed(3, tensor.shape)


def _contents(output: ResponseOutput) -> bytes:
    number = CONTENTS[output.datatype][0]
    if isinstance(output.data, list):
        return b"".join([pb.chunk(number, each) for each in output.data])
    return pb.chunk(number, output.data) if output.data else b""


def _input(field: str, data: memoryview) -> RequestInput:
    found = RequestInput()
    for number, wire, value in pb.fields(field, data, _MAX_INNER):
        if number == 1:
            found.name = _text(f"{field}.name", wire, value)
        elif number == 2:
            found.datatype = _text(f"{field}.datatype", wire, value)
        elif number == 3:
            _extend(f"{field}.shape", found.shape, wire, value)
        elif number == 4:
            _refuse(f"{field}.parameters", _bytes(f"{field}.parameters", wire, value))
        elif number == 5:
            where = f"{field}.contents"
            if found.kind:
                raise UserError(f"{where}: is there twice")
            found.kind, found.data = _elements(where, _bytes(where, wire, value))
    if not found.name:
        raise UserError(f"{field}.name: is missing")
    for size in found.shape:
        if not 1 <= size <= _MAX_DIMENSION:
            raise UserError(f"{field}.shape: expected sizes from 1 to {_MAX_DIMENSION}, got {size}")
    return found


def _output(field: str, data: memoryview) -> oip.RequestedOutput:
    name = ""
    for number, wire, value in pb.fields(field, data, _MAX_INNER):
        if number == 1:
            name = _text(f"{field}.name", wire, value)
        elif number == 2:
            _refuse(f"{field}.parameters", _bytes(f"{field}.parameters", wire, value))
    if not name:
        raise UserError(f"{field}.name: is missing")
    return oip.RequestedOutput(name=name)


def _extend(field: str, shape: list[int], wire: int, value: int | memoryview) -> None:
    if isinstance(value, int):
        more = [value]
    elif wire == pb.BYTES:
        more = pb.integers(field, value, oip.MAX_DIMENSIONS)
    else:
        raise UserError(f"{field}: expected integers, got {pb.KINDS[wire]}")
    shape += [pb.signed(each) for each in more]
    if len(shape) > oip.MAX_DIMENSIONS:
        raise UserError(f"{field}: has more than {oip.MAX_DIMENSIONS} dimensions")


def _elements(field: str, data: memoryview) -> tuple[int, bytes | memoryview | list[bytes]]:
    """What InferTensorContents has: the number of its one field and the elements. (0, b"") where it is empty."""
    if not data:
        return 0, b""
    if data[0] == _BYTES_CONTENTS << 3 | pb.BYTES:
        return _BYTES_CONTENTS, pb.strings(f"{field}.bytes_contents", _BYTES_CONTENTS, data, MAX_STRINGS)
    kind = 0
    parts: list[bytes | memoryview] = []
    for number, wire, value in pb.fields(field, data, _MAX_INNER):
        if number not in _CONTENT_NAMES:
            continue
        name = _CONTENT_NAMES[number]
        if kind and number != kind:
            raise UserError(f"{field}: has {_CONTENT_NAMES[kind]} and {name}; a tensor has one of them")
        kind = number
        if number == _BYTES_CONTENTS or wire not in (pb.BYTES, _CONTENT_WIRES.get(number, pb.VARINT)):
            raise UserError(f"{field}.{name}: is not a list of its elements, but {pb.KINDS[wire]}")
        parts.append(pb.varint(value) if isinstance(value, int) else value)
    return kind, parts[0] if len(parts) == 1 else b"".join(parts)


def _give(request: InferRequest, raw: list[memoryview]) -> None:
    """Every input gets its raw contents."""
    if len(raw) != len(request.inputs):
        raise UserError(f"raw_input_contents: has {len(raw)} entries, but there are {len(request.inputs)} inputs")
    for position, (tensor, data) in enumerate(zip(request.inputs, raw, strict=True)):
        if tensor.kind:
            raise UserError(f"inputs[{position}].contents: is set beside raw_input_contents; expected one of them")
        tensor.data = data
    request.raw = True


def _refuse(field: str, data: memoryview) -> None:
    key = _parameter(field, data)
    if key.startswith(_REFUSED):
        raise UserError(f"{field}.{key[:64]}: is not supported; send and take tensors in the messages themselves")


def _parameter(field: str, data: memoryview) -> str:
    """Check an entry of `map<string, InferParameter>`; returns its key."""
    key = ""
    for number, wire, value in pb.fields(field, data, _MAX_INNER):
        if number == 1:
            key = _text(field, wire, value)
        elif number == 2:
            where = f"{field}.{key[:64]}"
            for kind, inner, content in pb.fields(where, _bytes(where, wire, value), _MAX_INNER):
                if kind in _PARAMETER_WIRES and inner != _PARAMETER_WIRES[kind]:
                    raise UserError(f"{where}: is not a parameter, but {pb.KINDS[inner]}")
                if kind == 3:
                    _text(where, inner, content, limit=None)
    return key


def _bytes(field: str, wire: int, value: int | memoryview) -> memoryview:
    if isinstance(value, int) or wire != pb.BYTES:
        raise UserError(f"{field}: expected {pb.KINDS[pb.BYTES]}, got {pb.KINDS[wire]}")
    return value


def _text(field: str, wire: int, value: int | memoryview, limit: int | None = _MAX_NAME) -> str:
    data = _bytes(field, wire, value)
    if limit is not None and len(data) > limit:
        raise UserError(f"{field}: is longer than {limit} bytes")
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{field}: is not UTF-8") from None

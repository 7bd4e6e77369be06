"""The hand-written codec against the messages that protobuf makes, and against anything at all."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb2

from modelyard.base.errors import UserError
from modelyard.wire import oip_grpc, protobuf
from modelyard.wire.oip_grpc import ResponseOutput
from modelyard.wire.work import TensorSpec

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
SHAPE = st.lists(st.integers(1, 2**31 - 1), max_size=8)
INT32 = st.integers(-(2**31), 2**31 - 1)
LISTS: dict[str, st.SearchStrategy[Any]] = {
    "bool_contents": st.booleans(),
    "int_contents": INT32,
    "int64_contents": st.integers(-(2**63), 2**63 - 1),
    "uint_contents": st.integers(0, 2**32 - 1),
    "uint64_contents": st.integers(0, 2**64 - 1),
    "fp32_contents": st.floats(width=32),
    "fp64_contents": st.floats(),
    "bytes_contents": st.binary(max_size=300),
}
PARAMETER = st.one_of(
    st.builds(lambda value: pb2.InferParameter(bool_param=value), st.booleans()),
    st.builds(lambda value: pb2.InferParameter(int64_param=value), st.integers(-(2**63), 2**63 - 1)),
    st.builds(lambda value: pb2.InferParameter(string_param=value), TEXT),
    st.builds(lambda value: pb2.InferParameter(double_param=value), st.floats()),
    st.builds(lambda value: pb2.InferParameter(uint64_param=value), st.integers(0, 2**64 - 1)),
)


@st.composite
def contents(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from(sorted(LISTS)))
    return pb2.InferTensorContents(**{kind: draw(st.lists(LISTS[kind], max_size=20))})


@st.composite
def requests(draw: st.DrawFn) -> Any:
    raw = draw(st.booleans())
    inputs = [
        pb2.ModelInferRequest.InferInputTensor(
            name=draw(NAME), datatype=draw(TEXT), shape=draw(SHAPE), contents=None if raw else draw(contents())
        )
        for _ in range(draw(st.integers(0, 4)))
    ]
    return pb2.ModelInferRequest(
        model_name=draw(TEXT),
        model_version=draw(TEXT),
        id=draw(TEXT),
        parameters=draw(st.dictionaries(TEXT, PARAMETER, max_size=3)),
        inputs=inputs,
        outputs=[
            pb2.ModelInferRequest.InferRequestedOutputTensor(name=each) for each in draw(st.lists(NAME, max_size=3))
        ],
        raw_input_contents=[draw(st.binary(max_size=40)) for _ in inputs] if raw else [],
    )


def refused(message: bytes) -> str:
    with pytest.raises(UserError) as caught:
        oip_grpc.decode_infer(message)
    return caught.value.message


def outcome(decode: Callable[[bytes], Any], message: bytes) -> str:
    """The sentence of a refusal, or nothing; anything else that is raised fails the test."""
    try:
        decode(message)
    except UserError as error:
        return error.message
    return ""


@given(requests())
def test_a_request_is_read_as_protobuf_reads_it(message: Any) -> None:
    found = oip_grpc.decode_infer(message.SerializeToString())
    assert (found.model_name, found.model_version, found.id) == (message.model_name, message.model_version, message.id)
    assert [each.name for each in found.outputs] == [each.name for each in message.outputs]
    assert found.raw == bool(message.raw_input_contents)
    for position, tensor in enumerate(found.inputs):
        sent = message.inputs[position]
        assert (tensor.name, tensor.datatype, tensor.shape) == (sent.name, sent.datatype, list(sent.shape))
        if found.raw:
            assert isinstance(tensor.data, memoryview)
            assert bytes(tensor.data) == message.raw_input_contents[position]
        elif isinstance(tensor.data, list):
            assert tensor.data == list(sent.contents.bytes_contents)
        elif tensor.kind:  # a list of its elements, as protobuf would write it again
            again = pb2.InferTensorContents.FromString(protobuf.chunk(tensor.kind, tensor.data))
            assert again.SerializeToString() == sent.contents.SerializeToString()
        else:
            assert not sent.contents.SerializeToString()


@given(requests(), st.booleans(), st.lists(st.tuples(TEXT, SHAPE, st.binary(max_size=30)), max_size=3))
def test_protobuf_reads_an_answer(message: Any, raw: bool, outputs: list[tuple[str, list[int], bytes]]) -> None:
    request = oip_grpc.decode_infer(message.SerializeToString())
    sent = [ResponseOutput(name, "BYTES", shape, data if raw else [data]) for name, shape, data in outputs]
    found = pb2.ModelInferResponse.FromString(oip_grpc.encode_response(request, "7", sent, raw=raw))
    assert (found.model_name, found.model_version, found.id) == (message.model_name, "7", message.id)
    assert found.parameters.keys() == message.parameters.keys()
    for key, value in message.parameters.items():
        assert found.parameters[key].SerializeToString() == value.SerializeToString()
    assert [(each.name, each.datatype, list(each.shape)) for each in found.outputs] == [
        (name, "BYTES", shape) for name, shape, _ in outputs
    ]
    given_back = found.raw_output_contents if raw else [each.contents.bytes_contents[0] for each in found.outputs]
    assert list(given_back) == [data for _, _, data in outputs]


@given(st.binary(max_size=200))
def test_anything_else_is_refused_in_a_sentence(message: bytes) -> None:
    for decode in (oip_grpc.decode_infer, oip_grpc.decode_named):
        said = outcome(decode, message)
        assert not said or ": " in said
        assert len(said) < 500


@given(requests(), st.data())
def test_damaged_requests_are_read_or_refused(message: Any, data: st.DataObject) -> None:
    damaged = bytearray(message.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    assert len(outcome(oip_grpc.decode_infer, bytes(damaged))) < 500


def tensor(**fields: Any) -> Any:
    return pb2.ModelInferRequest.InferInputTensor(**{"name": "x", "datatype": "FP32", "shape": [1], **fields})


@pytest.mark.parametrize(
    ("request_fields", "said"),
    [
        ({"inputs": [tensor(name="")]}, "inputs[0].name: is missing"),
        ({"inputs": [tensor(), tensor(shape=[0])]}, "inputs[1].shape: expected sizes from 1 to 2147483647, got 0"),
        ({"inputs": [tensor(shape=[-1])]}, "inputs[0].shape: expected sizes from 1 to 2147483647, got -1"),
        ({"inputs": [tensor(shape=[1] * 9)]}, "inputs[0].shape: has more than 8 elements"),
        ({"inputs": [tensor(name="n" * 1025)]}, "inputs[0].name: is longer than 1024 bytes"),
        ({"inputs": [tensor()], "raw_input_contents": [b"", b""]}, "has 2 entries, but there are 1 inputs"),
        (
            {
                "inputs": [tensor(contents=pb2.InferTensorContents(fp32_contents=[1]))],
                "raw_input_contents": [b"1234"],
            },
            "inputs[0].contents: is set beside raw_input_contents",
        ),
        (
            {"inputs": [tensor(contents=pb2.InferTensorContents(fp32_contents=[1], fp64_contents=[1]))]},
            "inputs[0].contents: has fp32_contents and fp64_contents",
        ),
        (
            {"inputs": [tensor(parameters={"shared_memory_region": pb2.InferParameter(string_param="a")})]},
            "inputs[0].parameters.shared_memory_region: is not supported",
        ),
        ({"inputs": [tensor() for _ in range(4097)]}, "the message: has more than 4096 fields"),
    ],
)
def test_what_is_wrong_with_a_request_names_its_field(request_fields: dict[str, Any], said: str) -> None:
    assert said in refused(pb2.ModelInferRequest(**request_fields).SerializeToString())


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"\x0a\x05ab", "the message: is cut off in field 1"),
        (b"\x0a", "the message: is cut off"),
        (b"\x08\x01", "model_name: expected a string, message or packed list, got an integer"),
        (b"\x0a\x02\xff\xff", "model_name: is not UTF-8"),
        (b"\x0b", "field 1 has the wire type 3"),
        (b"\x00\x00", "no field has the number 0"),
        (b"\x0a" + b"\xff" * 11, "an integer has more than ten bytes"),
        (b"\x2a\x03\x0a\x05a", "inputs[0]: is cut off in field 1"),
        (b"\x2a\x02\x2a\x01", "inputs[0]: is cut off in field 5"),
        (b"\x2a\x04\x2a\x02\x35\x01", "inputs[0].contents: is cut off in field 6"),
        (b"\x2a\x04\x2a\x02\x42\x05", "inputs[0].contents.bytes_contents: is cut off in element 0"),
        (b"\x2a\x04\x2a\x02\x40\x05", "inputs[0].contents.bytes_contents: is not a list of its elements"),
        (b"\x2a\x02\x1d\x00", "inputs[0]: is cut off in field 3"),
        (b"\x22\x04\x12\x02\x0a\x00", "parameters.: is not a parameter"),
    ],
)
def test_what_is_wrong_with_the_bytes_names_its_field(message: bytes, said: str) -> None:
    assert said in refused(message)


def test_lists_that_are_not_packed_and_unknown_fields_are_read() -> None:
    inner = b"\x0a\x01x" + b"\x18\x02\x18\x03" + b"\x2a\x06\x18\x05\x1a\x02\x06\x07" + b"\x98\x06\x01"
    found = oip_grpc.decode_infer(b"\xa2\x06\x01?" + b"\x2a" + bytes([len(inner)]) + inner)
    assert (found.inputs[0].shape, found.inputs[0].data) == ([2, 3], b"\x05\x06\x07")


@given(TEXT, TEXT, st.lists(st.tuples(TEXT, TEXT, st.lists(st.integers(-1, 2**31), max_size=4)), max_size=3))
def test_protobuf_reads_metadata(name: str, version: str, specs: list[tuple[str, str, list[int]]]) -> None:
    given_specs = [TensorSpec(name=each, datatype=datatype, shape=tuple(shape)) for each, datatype, shape in specs]
    body = oip_grpc.encode_model_metadata(name, [version], "onnx", given_specs, given_specs[:1])
    found = pb2.ModelMetadataResponse.FromString(body)
    assert (found.name, list(found.versions), found.platform) == (name, [version], "onnx")
    assert [(each.name, each.datatype, list(each.shape)) for each in found.inputs] == specs
    assert len(found.outputs) == len(specs[:1])
    asked = pb2.ModelReadyRequest(name=name, version=version).SerializeToString()
    assert oip_grpc.decode_named(asked) == (name, version)
    assert pb2.ServerMetadataResponse.FromString(oip_grpc.encode_server_metadata(name, version)).version == version
    assert pb2.ModelReadyResponse.FromString(oip_grpc.encode_live(True)).ready
    assert not pb2.ModelReadyResponse.FromString(oip_grpc.encode_live(False)).ready

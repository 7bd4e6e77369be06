import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.wire import frames
from modelyard.wire.frames import Frame, FrameError, Kind, Tensor
from modelyard.wire.work import TensorSpec


def read(data: bytes) -> Frame:
    return frames.decode(frames.decode_header(data[: frames.HEADER_BYTES]), data[frames.HEADER_BYTES :])


def written(frame: Frame) -> bytes:
    return b"".join(bytes(piece) for piece in frames.encode(frame))


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    name = draw(st.text(max_size=20))
    elements = draw(st.lists(st.binary(max_size=9), max_size=4))
    if draw(st.booleans()):
        return Tensor(name, "BYTES", (len(elements), 1), frames.join(elements))
    return Tensor(name, "FP64", (len(elements), 2), bytes(16 * len(elements)))


texts = st.lists(st.tuples(st.text(max_size=16), st.text(max_size=40)), max_size=4).map(tuple)


@given(st.sampled_from(Kind), st.integers(0, 2**32 - 1), texts, st.lists(tensors(), max_size=3).map(tuple))
def test_a_frame_reads_back(kind: Kind, number: int, texts: frames.Texts, tensors: tuple[Tensor, ...]) -> None:
    frame = Frame(kind=kind, number=number, texts=texts, tensors=tensors)
    data = written(frame)
    assert read(data) == frame
    assert len(data) % 8 == 0


def test_every_tensor_lies_at_a_multiple_of_eight_bytes() -> None:
    found = read(written(Frame(kind=Kind.INFER, tensors=(Tensor("abc", "BOOL", (3,), b"abc"),) * 2)))
    data = written(Frame(kind=Kind.INFER, tensors=found.tensors))
    assert [position % 8 for position in (data.index(b"abc\0\0\0\0\0abc"), data.rindex(b"abc"))] == [0, 0]


@given(st.binary(max_size=300))
def test_no_header_breaks_the_decoder(data: bytes) -> None:
    with pytest.raises(FrameError):
        frames.decode_header(data[:16].ljust(16, b"\xff"))


@given(st.binary(max_size=300), st.integers(0, 3), st.integers(0, 3))
def test_no_body_breaks_the_decoder(data: bytes, text_count: int, tensor_count: int) -> None:
    body = struct.pack("<II", text_count, tensor_count) + data
    try:
        frames.decode(frames.Header(Kind.RESULT, 0, len(body)), body)
    except FrameError:
        return


@given(st.data())
def test_no_change_of_one_byte_breaks_the_decoder(data: st.DataObject) -> None:
    frame = Frame(
        kind=Kind.RESULT,
        texts=(("key", "text"),),
        tensors=(Tensor("X", "FP32", (2, 1), bytes(8)), Tensor("s", "BYTES", (2,), frames.join([b"a", b"bc"]))),
    )
    sound = bytearray(written(frame))
    sound[data.draw(st.integers(16, len(sound) - 1))] = data.draw(st.integers(0, 255))
    cut = sound[: data.draw(st.integers(16, len(sound)))]
    try:
        frames.decode(frames.decode_header(sound[:16]), cut[16:])
    except FrameError:
        return


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (Tensor("X", "FP64", (2, 2), bytes(8)), "has 8 bytes"),
        (Tensor("X", "FP64", (-1,), b""), "has shape"),
        (Tensor("X", "BYTES", (2,), frames.join([b"a"])), "exactly 2 elements"),
        (Tensor("X", "BYTES", (0,), b"\0"), "exactly 0 elements"),
        (Tensor("X", "UINT8", (2**40, 2**40), bytes(1)), "has 1 bytes"),
    ],
)
def test_a_tensor_that_contradicts_itself_is_refused(tensor: Tensor, expected: str) -> None:
    with pytest.raises(FrameError, match=expected):
        read(written(Frame(kind=Kind.RESULT, tensors=(tensor,))))


def test_a_frame_above_the_limit_is_refused_before_its_body_is_read() -> None:
    with pytest.raises(FrameError, match="expected 8 to"):
        frames.decode_header(struct.pack("<QIB3x", frames.MAX_BODY_BYTES + 1, 0, Kind.RESULT))


names = st.text(min_size=1, max_size=20)
specs = st.builds(
    TensorSpec,
    name=names,
    datatype=st.sampled_from([*frames.DATATYPES, "BYTES"]),
    shape=st.lists(st.integers(-1, 2**40), max_size=4).map(tuple),
)


@given(specs)
def test_an_input_reads_back_from_its_text(spec: TensorSpec) -> None:
    assert frames.parse_spec(frames.spec_text(spec)) == spec


@given(st.text("0123456789-,x", max_size=30))
def test_no_text_breaks_the_reader_of_inputs(text: str) -> None:
    with pytest.raises(FrameError, match="expected such as"):
        frames.parse_spec(f"FP64 {text}")

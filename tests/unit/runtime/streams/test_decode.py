"""Values are taken exactly as the signature says, or are an error of their record; no bytes end the runner."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.runtime.streams import payloads
from modelyard.runtime.streams.encode import Codec
from modelyard.wire.work import TensorSpec
from streams_codec_testing import X, message, read, run, spec, stream_of, table_of, work

I = spec("i", "INT32")  # noqa: E741  short names of inputs
T = spec("t", "BYTES")
M = spec("m", "FP32", 3)


def bad(inputs: Any, payload: Any, **more: Any) -> tuple[str, str]:
    """The code and message of the only record."""
    decoded = Codec(work(inputs, **more)).decode([message(payload)])
    (error,) = decoded.batch.errors
    assert not len(decoded.batch.rows)
    return error.code, error.message


def taken(inputs: Any, payload: Any, **more: Any) -> dict[str, Any]:
    """The columns for the model."""
    decoded = Codec(work(inputs, **more)).decode([message(payload)])
    assert decoded.batch.errors == ()
    columns: dict[str, Any] = decoded.batch.table.to_pydict()
    return columns


def test_fields_are_found_by_name() -> None:
    assert taken((X, I, T), {"t": "ü", "i": 2.0, "x": 3, "more": [1]}) == {"x": [3.0], "i": [2], "t": ["ü".encode()]}


def test_whole_numbers_are_fine_for_floats_however_large() -> None:
    assert taken((X,), [{"x": 2**53 + 1}, {"x": -1}, {"x": 10**300}]) == {"x": [float(2**53), -1.0, 1e300]}


def test_columns_make_up_a_row_in_their_order() -> None:
    assert taken((M,), {"a": 1, "b": 2.5, "c": 3}, columns=("c", "a", "b")) == {"m": [[3.0, 1.0, 2.5]]}
    assert taken((spec("m", "FP32", -1),), {"a": 1, "b": 2}, columns=("b", "a")) == {"m": [[2.0, 1.0]]}
    assert taken((M,), {"f": [1, 2, 3]}, columns=("f",)) == {"m": [[1.0, 2.0, 3.0]]}
    assert taken((X,), {"other": 4}, columns=("other",)) == {"x": [4.0]}
    assert taken(
        (M,), pa.table({"c": [1], "a": [2], "z": ["?"], "b": [3]}), source="arrow", columns=("a", "b", "c")
    ) == {"m": [[2.0, 3.0, 1.0]]}


def test_lists_are_rows_of_wider_inputs() -> None:
    assert taken((M,), [{"m": [1, 2, 3]}, {"m": [4, 5, 6.5]}]) == {"m": [[1, 2, 3], [4, 5, 6.5]]}
    assert taken((spec("m", "INT64", 2, 1),), {"m": [[1], [2]]}) == {"m": [[[1], [2]]]}
    assert taken((spec("m", "INT64", 1),), [{"m": [1]}, {"m": 2}]) == {"m": [1, 2]}


@pytest.mark.parametrize(
    ("inputs", "payload", "code", "told"),
    [
        ((X,), {}, "MissingField", "there is no field x"),
        ((M,), {"a": 1}, "MissingField", "list the fields that make up a row of m in spec.source.columns"),
        ((X,), {"x": None}, "NullValue", "x is null"),
        ((X,), {"x": "1"}, "WrongType", "x is text, and the model takes FP64"),
        ((X,), {"x": True}, "WrongType", "x is true or false, and the model takes FP64"),
        ((X,), {"x": [1]}, "ShapeMismatch", "x does not have the shape []"),
        ((X,), {"x": {"x": 1}}, "WrongType", "x is an object"),
        ((I,), {"i": 1.5}, "WrongType", "i is 1.5, and INT32 takes whole numbers"),
        ((I,), {"i": 2**31}, "OutOfRange", "i is 2147483648, which INT32 cannot hold"),
        ((I,), {"i": -(10**80)}, "OutOfRange", "which INT32 cannot hold"),
        ((I,), {"i": 1e300}, "OutOfRange", "i is 1e+300, which INT32 cannot hold"),
        ((spec("u", "UINT64"),), {"u": -1}, "OutOfRange", "u is -1, which UINT64 cannot hold"),
        ((spec("f", "FP32"),), {"f": 1e300}, "OutOfRange", "f is 1e+300, which FP32 cannot hold"),
        ((X,), {"x": 10**400}, "OutOfRange", "which FP64 cannot hold"),
        ((spec("b", "BOOL"),), {"b": 1}, "WrongType", "b is 1, and the model takes BOOL"),
        ((T,), {"t": 1}, "WrongType", "t is 1, and the model takes BYTES"),
        ((M,), {"m": 1}, "ShapeMismatch", "m is a number, expected lists of the shape [3]"),
        ((M,), {"m": [1, None, 3]}, "NullValue", "m holds a null"),
        ((M,), {"m": [1, "a", 3]}, "WrongType", "m holds a value that is text"),
        ((M,), {"m": [1, [2], 3]}, "ShapeMismatch", "m does not have the shape [3]"),
        ((X,), 5, "WrongType", "the record is a number, not an object"),
        ((X,), [[1]], "WrongType", "the record is a list, not an object"),
        ((X,), None, "WrongType", "the record is null, not an object"),
        ((X,), b'{"x": NaN}', "Unreadable", "the message is no JSON: JSON is malformed"),
        ((X,), b'{"x": 1} {"x": 2}', "Unreadable", "the message is no JSON"),
        ((X,), b'{"x": 1, "x": 2}', "Unreadable", "an object has the name x twice"),
        ((X,), b'{"x": 1, "n": {"a": 1, "\\u0061": 2}}', "Unreadable", "an object has the name a twice"),
        ((X,), b'[{"x": 1, "t": "\\ud800"}]', "Unreadable", "no JSON"),
        ((X,), b'{"x": 1, "t": "\xff"}', "Unreadable", "no JSON"),
        ((X,), b'{"x": 1e400}', "Unreadable", "no JSON: Number out of range"),
        ((X,), b'{"x": ' + b"9" * 5000 + b"}", "Unreadable", "no JSON: Integer value out of range"),
        ((X,), b"[" * 100_000, "Unreadable", "no JSON: maximum recursion depth"),
        ((X,), b"", "Unreadable", "no JSON"),
    ],
)
def test_whatever_else_a_record_holds_is_its_error(inputs: Any, payload: Any, code: str, told: str) -> None:
    found = bad(inputs, payload)
    assert found[0] == code
    assert told in found[1]


def test_only_the_bad_elements_of_a_list_are_bad() -> None:
    body = b'[{"x": 1}, {"x": 1e400}, {"x": 2, "t": "\xff"}, {"x": 3, "x": 4}, {"x": 5, "t": "\\":"}]'
    decoded = Codec(work()).decode([message(body)])
    assert decoded.batch.table["x"].to_pylist() == [1.0, 5.0]
    assert [each.row for each in decoded.batch.errors] == [1, 2, 3]


def test_a_byte_order_mark_is_passed_over() -> None:
    assert taken((X,), b'\xef\xbb\xbf{"x": 1}') == {"x": [1.0]}
    assert bad((X,), b"\xef\xbb\xbf" * 2000)[0] == "Unreadable"


def test_names_are_compared_only_where_there_may_be_two_of_one() -> None:
    for body in (
        b'{"x" : 1, "y" : {"x" : [{"x" : 2}]}}',
        b'{"x": 1, "t": "{\\"x\\": 1, \\"x\\": 2}"}',
        b'{\n  "x"\n:1}',
    ):
        assert taken((X,), body) == {"x": [1.0]}


def test_what_is_kept_may_not_be_nested_too_deeply() -> None:
    deep = b'{"x": 1, "k": ' + b"[" * 100 + b"]" * 100 + b"}"
    assert bad((X,), deep, keep=("k",)) == ("Unreadable", "k is nested too deeply")
    assert taken((X,), deep, keep=("x",)) == {"x": [1.0]}, "what is not kept may be"


def test_rows_of_several_sizes_are_all_scored_where_the_signature_leaves_them_open() -> None:
    asked = work((spec("m", "FP64", -1),), keep=("id",))
    lists = [[1], [2, 2], [], [3], [4, 4], [5, 5, 5]]
    found = run(asked, [message({"m": each, "id": number}, number) for number, each in enumerate(lists)])
    assert [read(each.payload) for each in found.outgoing] == [
        {"id": number, "y": float(sum(each))} for number, each in enumerate(lists)
    ]
    kind = pa.list_(pa.float64())
    tables = [pa.table({"m": pa.array([each], kind)}) for each in lists]
    found = run(work((spec("m", "FP64", -1),), source="arrow", sink="json"), [message(each) for each in tables])
    assert [read(each.payload) for each in found.outgoing] == [[{"y": float(sum(each))}] for each in lists]
    whole = pa.table({"m": pa.array([*lists, None], kind)})
    output, letter = run(work((spec("m", "FP64", -1),), source="arrow", sink="json"), [message(whole)]).outgoing
    assert read(output.payload) == [{"y": float(sum(each))} for each in lists]
    assert letter.headers["Modelyard-Error"] == "m is null"


def test_rows_of_another_size_than_the_signature_says_are_errors() -> None:
    found = run(work((M,)), [message({"m": [1, 2]}, 1), message({"m": [1, 2, 3]}, 2)])
    assert [each.dead for each in found.outgoing] == [True, False]
    assert found.outgoing[0].headers["Modelyard-Error"] == "m has the shape [2], expected [3]"


@pytest.mark.parametrize(
    ("table", "code", "told"),
    [
        (pa.table({"y": [1.0]}), "MissingField", "there is no column x; there are y"),
        (pa.table({"x": ["1"]}), "SchemaMismatch", "column x is string, and input x of the model takes FP64"),
        (pa.table([[1.0], [2.0]], names=["x", "x"]), "SchemaMismatch", "there are several columns x"),
        (pa.table({"x": pa.array([None], pa.null())}), "SchemaMismatch", "column x is null"),
        (pa.table({"x": [None]}, schema=pa.schema([("x", pa.int64())])), "NullValue", "x is null"),
        (pa.table({"x": [[1.0]]}), "SchemaMismatch", "column x is list"),
    ],
)
def test_arrow_that_does_not_fit_is_an_error_of_its_records(table: pa.Table, code: str, told: str) -> None:
    found = bad((X,), table, source="arrow")
    assert found[0] == code
    assert told in found[1]


def test_a_column_is_never_taken_by_its_place() -> None:
    assert bad((spec("m", "FP64", 1),), pa.table({"a": [1.0]}), source="arrow")[0] == "MissingField"


def test_arrow_bytes_that_are_damaged_or_go_on_are_errors() -> None:
    whole = stream_of(pa.table({"x": [1.0, 2.0]}))
    for payload in (b"", b"junk", whole[:-20], whole[:10], whole + whole, b"ARROW1\0\0" + whole):
        assert bad((X,), payload, source="arrow")[0] == "Unreadable"


ODD = "odd"
NAMED = [
    pa.table({"x": [1.0], ODD: [1]}),
    pa.table({"x": [1.0], "k": [[{ODD: 1}]]}),
    pa.table({"x": [1.0], "k": pa.array([[1]], pa.list_(pa.timestamp("us", ODD)))}),
    pa.table({"x": [1.0], "k": pa.array([[("a", {ODD: 1})]], pa.map_(pa.string(), pa.struct([(ODD, pa.int8())])))}),
]


@pytest.mark.parametrize("table", NAMED)
def test_names_that_are_no_text_are_an_error(table: pa.Table) -> None:
    payload = stream_of(table).replace(ODD.encode(), b"\xffdd")
    assert bad((X,), payload, source="arrow", keep=("k",))[0] == "Unreadable"


def test_few_bytes_that_claim_to_be_very_many_rows_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = payloads.MOST_ROWS + 1
    assert bad((X,), pa.table({"n": pa.nulls(rows)}), source="arrow")[0] == "TooLarge"
    monkeypatch.setattr(payloads, "MOST_TABLE_BYTES", 10_000)
    zeros = stream_of(pa.table({"x": np.zeros(100_000)}), compression="zstd")
    assert len(zeros) < 10_000
    assert bad((X,), zeros, source="arrow")[0] == "TooLarge"


def test_several_record_batches_of_a_stream_are_its_records() -> None:
    sink = pa.BufferOutputStream()
    batches = pa.table({"x": np.arange(10.0)}).to_batches(max_chunksize=3)
    with pa.ipc.new_stream(sink, batches[0].schema) as writer:
        for each in batches:
            writer.write_batch(each)
    (found,) = run(work(source="arrow"), [message(sink.getvalue().to_pybytes())]).outgoing
    assert table_of(found.payload)["y"].to_pylist() == list(range(10))


def test_types_of_kept_columns_that_no_file_holds_are_an_error() -> None:
    table = pa.table({"x": [1.0], "k": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))})
    code, told = bad((X,), table, source="arrow", sink="json", keep=("k",))
    assert code == "SchemaMismatch"
    assert told.startswith("the type of k (map<string, int64>) cannot be kept")
    assert taken((X,), table, source="arrow", keep=("k",)) == {"x": [1.0]}, "Arrow keeps it as it is"


# Whatever comes, nothing is raised, and every record goes somewhere exactly once.

SPECS = st.sampled_from([(X,), (I,), (T,), (M,), (spec("m", "INT64", -1),), (X, T), (spec("b", "BOOL", 1),)])
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([2**31, 2**64])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3)
)
RECORDS = st.dictionaries(st.sampled_from("ximtbk"), VALUES | st.lists(st.integers(0, 9), min_size=3, max_size=3))


@st.composite
def texts(draw: Any) -> bytes:
    """JSON, mostly; with NaN, broken surrogates and cut ends."""
    value = draw(RECORDS | st.lists(RECORDS | VALUES, max_size=6) | VALUES)
    text: bytes = json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    odd = (text[:-1], text + b" ", text * 2, text.replace(b"k", b"x"))
    found: bytes = draw(st.sampled_from([text, text, text, *odd]))
    return found


def check(inputs: tuple[TensorSpec, ...], bodies: list[bytes], *, source: str, sink: str, files: bool) -> None:
    asked = work(inputs, source=source, sink=sink, files=files, keep=() if source == "raw" else ("k",))
    found = run(asked, [message(each, number) for number, each in enumerate(bodies)])
    records = Codec(asked).decode([message(each) for each in bodies]).starts[-1]
    assert found.records == records
    dead = [each for each in found.outgoing if each.dead]
    good = sum(_count(each.payload, sink or source) for each in found.outgoing if not each.dead)
    good += 0 if found.table is None else found.table.num_rows
    assert good == records - found.dead_letters
    listed = sum(_listed(each.headers) for each in dead)
    assert listed == found.dead_letters
    positions = [(each.position, each.dead) for each in found.outgoing]
    assert positions == sorted(set(positions)), "in order, and never two of a kind"


def _count(payload: bytes, format_name: str) -> int:
    if format_name == "arrow":
        return int(table_of(payload).num_rows)
    value = read(payload)
    return len(value) if isinstance(value, list) else 1


def _listed(headers: Any) -> int:
    return len(json.loads(headers["Modelyard-Errors"])) if "Modelyard-Errors" in headers else 1


@settings(max_examples=100, deadline=None)
@given(SPECS, st.lists(texts(), max_size=5), st.sampled_from([("json", False), ("arrow", False), ("", True)]))
def test_every_record_of_json_goes_somewhere_once(inputs: Any, bodies: list[bytes], sink: tuple[str, bool]) -> None:
    check(inputs, bodies, source="json", sink=sink[0], files=sink[1])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=4), st.sampled_from(["json", "arrow"]))
def test_any_bytes_go_somewhere_once(bodies: list[bytes], source: str) -> None:
    check((X,), bodies, source=source, sink="json", files=False)


UNION = pa.UnionArray.from_sparse(pa.array([0, 1, 0], pa.int8()), [pa.array([1, 2, 3]), pa.array(["a", "b", "c"])])
COLUMNS = st.sampled_from(
    [
        pa.array([1, 2, None], pa.int8()),
        pa.array([1.5, float("nan"), 2]),
        pa.array(["a", None, "b"]),
        pa.array(["a", None, "b"]).dictionary_encode(),
        pa.array([[1, 2, 3], None, [4]]),
        pa.array([[1, 2, 3]] * 3, pa.list_(pa.float32(), 3)),
        pa.array([True, False, None]),
        pa.array([1, 2, 3], pa.timestamp("ns")),
        pa.array([{"a": 1}, None, {"a": 2}]),
        pa.nulls(3),
        pa.array([1, 2, 3], pa.decimal128(10, 2)),
        pa.array([[["a"]], [], None]),
        pa.array([b"a", b"b", b"c"], pa.binary(1)),
        pa.array(["a", "b", "c"], pa.string_view()),
        pa.array([2**63, 0, 1], pa.uint64()),
        pa.RunEndEncodedArray.from_arrays([2, 3], [1.5, 2.5]),
        UNION,
        pa.array([pa.MonthDayNano([1, 2, 3])] * 3),
        pa.array([[1], None, [2]], pa.list_view(pa.int64())),
        pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
    ]
)


@st.composite
def streams(draw: Any) -> bytes:
    """Arrow IPC of odd columns, mostly; some with changed bytes or cut."""
    names = draw(st.lists(st.sampled_from("ximtbk"), min_size=1, max_size=4))
    table = pa.table([draw(COLUMNS) for _ in names], names=names)
    body = bytearray(stream_of(table, compression=draw(st.sampled_from([None, "lz4", "zstd"]))))
    for _ in range(draw(st.integers(0, 3))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body[: draw(st.sampled_from([len(body), len(body), len(body) - 5]))])


@settings(max_examples=120, deadline=None)
@given(SPECS, st.lists(streams(), max_size=3), st.sampled_from([("json", False), ("arrow", False), ("", True)]))
def test_every_record_of_arrow_goes_somewhere_once(inputs: Any, bodies: list[bytes], sink: tuple[str, bool]) -> None:
    check(inputs, bodies, source="arrow", sink=sink[0], files=sink[1])

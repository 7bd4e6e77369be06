"""What goes out: outputs in the shape in which records came, dead letters with their reasons, tables for files."""

import json
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.streams import letters
from modelyard.runtime.streams.encode import Codec
from streams_codec_testing import X, Y, message, read, run, spec, stream_of, table_of, work


def test_an_object_becomes_an_object_and_a_list_a_list() -> None:
    found = run(
        work(keep=("id",)), [message({"id": 7, "x": 1, "z": 0}, 5), message([{"x": 2, "id": "a"}, {"x": 3}], 8)]
    )
    assert [(each.position, read(each.payload), each.dead) for each in found.outgoing] == [
        (5, {"id": 7, "y": 1.0}, False),
        (8, [{"id": "a", "y": 2.0}, {"y": 3.0}], False),
    ]
    assert (found.records, found.dead_letters, found.table) == (3, 0, None)


def test_kept_values_are_as_they_came() -> None:
    kept = {"id": 2**70, "n": {"deep": [1, None, {"t": "ü"}]}, "d": 0.1, "null": None}
    found = run(work(keep=("id", "n", "d", "null", "absent")), [message({"x": 1, **kept})])
    assert read(found.outgoing[0].payload) == {**kept, "y": 1.0}


def test_an_output_called_as_a_kept_field_gets_another_name() -> None:
    asked = work(outputs=(Y, spec("y_1")), keep=("y", "x"))
    assert read(run(asked, [message({"x": 1, "y": "mine"})]).outgoing[0].payload) == {
        "y": "mine",
        "x": 1,
        "y_1": 1.0,
        "y_1_1": 1.0,
    }


def test_outputs_are_scalars_or_lists_and_text() -> None:
    outputs = (
        spec("a", "FP64", 1),
        spec("b", "INT64", 2),
        spec("c", "FP32", -1, 1),
        spec("d", "BYTES"),
        spec("e", "BOOL"),
    )
    assert read(run(work(outputs=outputs), [message({"x": 3})]).outgoing[0].payload) == {
        "a": 3.0,
        "b": [3, 3],
        "c": [[3.0], [3.0]],
        "d": "3\ufffd",
        "e": True,
    }


def test_numbers_that_json_does_not_have_are_null() -> None:
    table = pa.table({"x": [float("nan"), float("inf"), 1.0], "k": [float("nan"), 1.5, None]})
    found = run(work(source="arrow", sink="json", keep=("k",)), [message(table)])
    assert read(found.outgoing[0].payload) == [{"k": None, "y": None}, {"k": 1.5, "y": None}, {"k": None, "y": 1.0}]


def test_a_list_without_records_yields_nothing() -> None:
    found = run(work(), [message([]), message({"x": 1}, 2), message(b" [ ] ", 3)])
    assert [each.position for each in found.outgoing] == [2]
    assert found.records == 1
    assert run(work(), [message([])]).records == 0
    empty = pa.table({"x": pa.array([], pa.float64())})
    assert run(work(source="arrow"), [message(empty)]).outgoing == ()


def test_bad_records_of_a_list_are_a_dead_letter_beside_the_output_of_the_others() -> None:
    bad = b'{"x": "1.0", "big":  1.000}'
    found = run(work(), [message(b'[{"x": 1}, ' + bad + b', {"x": 666}, 5, {"x": 4}]', 9)])
    output, letter = found.outgoing
    assert read(output.payload) == [{"y": 1.0}, {"y": 4.0}]
    assert (letter.dead, letter.position) == (True, 9)
    assert letter.payload == b"[" + bad + b',{"x": 666},5]', "as they came"
    assert letter.headers["Modelyard-Error-Code"] == "WrongType"
    assert letter.headers["Modelyard-Error"] == "x is text, and the model takes FP64"
    assert letter.headers["Modelyard-Source-Sequence"] == "9"
    assert letter.headers["Modelyard-Source-Subject"] == "in.1"
    assert json.loads(letter.headers["Modelyard-Errors"]) == [
        {"row": 1, "code": "WrongType", "message": "x is text, and the model takes FP64"},
        {"row": 2, "code": "Refused", "message": "666 is no number"},
        {"row": 3, "code": "WrongType", "message": "the record is a number, not an object"},
    ]
    assert (found.records, found.dead_letters) == (5, 3)


@pytest.mark.parametrize("payload", [b"no json", b'{"x": null}', b'[{"x": 666}, {}]', b"", b"[1, NaN]", b"\xff\xfe"])
def test_what_is_bad_as_a_whole_is_a_dead_letter_as_it_came(payload: bytes) -> None:
    found = run(work(), [message(payload, 3, headers={"a": "b", "Content-Type": "text/x"})])
    (letter,) = found.outgoing
    assert (letter.payload, letter.dead, letter.headers["a"]) == (payload, True, "b")
    assert letter.headers["Content-Type"] == "text/x", "it still is what it was"
    assert found.records == found.dead_letters


def test_headers_of_the_source_stay_but_those_that_brokers_act_upon() -> None:
    headers = {
        "ce-id": "1",
        "ce-source": "/pay",
        "content-type": "application/vnd.x+json",
        "Nats-Msg-Id": "x",
        "nats-expected-last-sequence": "3",
        "Modelyard-Error": "of an earlier stream",
    }
    asked = work(sink="arrow")
    (found,) = run(asked, [message({"x": 1}, 4, headers=headers)]).outgoing
    assert found.headers == {
        "ce-id": "1",
        "ce-source": "/pay",
        "Content-Type": "application/vnd.apache.arrow.stream",
        "Modelyard-Source-Sequence": "4",
    }
    (letter,) = run(asked, [message({"x": None}, 4, headers=headers)]).outgoing
    assert {name for name in letter.headers if name.lower().startswith("nats-")} == set()
    assert letter.headers["Modelyard-Error"] == "x is null"
    ours = {"ce-datacontenttype": "text/x"}
    (found,) = run(work(), [message({"x": 1}, headers=ours)]).outgoing
    assert found.headers["ce-datacontenttype"] == "application/json"


def test_reasons_are_fit_for_headers() -> None:
    reason = letters.Reason(0, "Refused", "two\r\nlines: ü\x00" + "z" * 1000)
    found = letters.dead_letter(message({}), [reason] * 30).headers
    assert found["Modelyard-Error"].startswith("two lines: ??zzz")
    assert len(found["Modelyard-Error"]) == 400
    assert len(json.loads(found["Modelyard-Errors"])) == 20
    assert all(value.isascii() and value.isprintable() for value in found.values())


def test_arrow_goes_out_as_one_stream_with_its_own_types() -> None:
    table = pa.table(
        {"id": pa.array([1, 2, 3], pa.int16()), "x": [1.0, None, 3.0], "t": pa.array([1, 2, 3], pa.timestamp("ns"))}
    )
    found = run(work(source="arrow", keep=("t", "id")), [message(stream_of(table, compression="zstd"), 2)])
    output, letter = found.outgoing
    assert table_of(output.payload).equals(
        pa.table({"t": pa.array([1, 3], pa.timestamp("ns")), "id": pa.array([1, 3], pa.int16()), "y": [1.0, 3.0]})
    )
    assert table_of(letter.payload).equals(table.slice(1, 1))
    assert letter.headers["Modelyard-Error-Code"] == "NullValue"
    assert json.loads(letter.headers["Modelyard-Errors"])[0]["row"] == 1


def test_formats_go_over_into_each_other() -> None:
    table = pa.table({"id": [b"a", b"\xff"], "x": [1, 2]})
    found = run(work(source="arrow", sink="json", keep=("id",)), [message(table)])
    assert read(found.outgoing[0].payload) == [{"id": "a", "y": 1.0}, {"id": "\ufffd", "y": 2.0}]
    assert found.outgoing[0].headers["Content-Type"] == "application/json"
    found = run(work(sink="arrow", keep=("id",)), [message({"id": "a", "x": 1}), message([{"x": 2, "id": 5}], 2)])
    assert [table_of(each.payload).to_pylist() for each in found.outgoing] == [
        [{"id": "a", "y": 1.0}],
        [{"id": 5, "y": 2.0}],
    ]


def test_raw_bytes_go_in_and_out_unchanged() -> None:
    text, out = spec("text", "BYTES"), spec("out", "BYTES", 1)
    found = run(work((text,), (out,), source="raw"), [message(b"\x00\xff", 1), message(b"", 2)])
    assert [each.payload for each in found.outgoing] == [b"2\xff", b"0\xff"]
    assert found.outgoing[0].headers["Content-Type"] == "application/octet-stream"
    found = run(work((text,), (Y,), source="raw", sink="json"), [message(b"abc", 1)])
    assert read(found.outgoing[0].payload) == {"y": 3.0}


def test_a_message_that_ended_its_runners_and_an_output_that_is_too_large_are_dead_letters() -> None:
    asked = work(outputs=(spec("y", "FP64", 200),))
    codec = Codec(asked)
    given_up = codec.give_up(message({"x": 1}, 4, delivered=6))
    assert (given_up.dead, given_up.headers["Modelyard-Error-Code"], given_up.position) == (True, "MaxDeliver", 4)
    found = run(asked, [message([{"x": 1}, {"x": 2}, {"x": None}], 4), message({"x": 3}, 5)], most_bytes=1900)
    large, fits = found.outgoing
    assert (large.dead, large.headers["Modelyard-Error-Code"]) == (True, "OutputTooLarge")
    assert large.payload == msgspec.json.encode([{"x": 1}, {"x": 2}, {"x": None}]), "once and as a whole"
    assert (fits.dead, found.records, found.dead_letters) == (False, 4, 3)


def test_a_dead_letter_that_is_too_large_is_cut_and_says_so() -> None:
    big = message(b"x" * 5000, 1, headers={"a": "b" * 3000})
    (letter,) = run(work(), [big], most_bytes=7000).outgoing
    assert (letter.payload, "a" in letter.headers) == (big.payload, False)
    (letter,) = run(work(), [big], most_bytes=3000).outgoing
    assert 1000 < len(letter.payload) < 3000
    assert letters.size(letter) <= 3000
    assert letter.headers["Modelyard-Payload-Bytes"] == "5000"


def test_files_get_a_table_and_dead_letters() -> None:
    messages = [message({"x": 1, "id": 1}, 1), message([{"x": 2, "id": 2.5}, {"x": "a"}], 2), message(b"?", 3)]
    found = run(work(files=True, keep=("id",)), messages)
    assert found.table is not None
    assert found.table.to_pydict() == {"id": [1.0, 2.5], "y": [1.0, 2.0]}
    assert [(each.position, each.dead) for each in found.outgoing] == [(2, True), (3, True)]
    assert (found.records, found.dead_letters) == (4, 2)
    assert run(work(files=True), [message(b"?", 3)]).table is None


def test_kept_values_of_several_types_are_text_in_a_table() -> None:
    values: dict[str, list[Any]] = {
        "mixed": [1, "a", {"b": [1]}, None],
        "whole": [1, None, 3, 4],
        "numbers": [1, 2.5, None, 4],
        "large": [2**64, 1, 2, 3],
        "exact": [2**53 + 1, 0.5, 1, 2],
        "flags": [True, None, False, True],
        "none": [None, None, None, None],
    }
    records = [{"x": 1, **{name: column[row] for name, column in values.items()}} for row in range(4)]
    found = run(work(files=True, keep=tuple(values)), [message(records)]).table
    assert found is not None
    assert found.drop_columns(["y"]).to_pydict() == {
        **values,
        "mixed": ["1", "a", '{"b":[1]}', None],
        "numbers": [1.0, 2.5, None, 4.0],
        "large": ["18446744073709551616", "1", "2", "3"],
        "exact": ["9007199254740993", "0.5", "1", "2"],
    }
    kinds = {each.name: str(each.type) for each in found.schema}
    assert (kinds["whole"], kinds["numbers"], kinds["flags"], kinds["none"]) == ("int64", "double", "bool", "string")


def test_arrow_messages_of_other_types_and_columns_are_one_table() -> None:
    first = pa.table({"x": [1.0], "id": pa.array([1], pa.int32()), "tag": ["a"]})
    second = pa.table({"x": [2.0], "id": pa.array([2**40], pa.int64())})
    third = pa.table({"x": pa.array([3], pa.int8()), "id": [0.5], "tag": [b"b"]})
    asked = work(source="arrow", files=True, keep=("id", "tag", "never"))
    found = run(asked, [message(each, number) for number, each in enumerate((first, second, third))]).table
    assert found is not None
    assert found.to_pydict() == {
        "id": [1.0, 2.0**40, 0.5],
        "tag": ["a", None, "b"],
        "never": [None] * 3,
        "y": [1.0, 2.0, 3.0],
    }


M = spec("m", "FP32", 3)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (work(source="csv"), "spec.source.format: csv is none of json, arrow, raw"),
        (work(sink="parquet"), "spec.sink.format: parquet is none of json, arrow, raw"),
        (work(files=True, sink="json"), "spec.sink.format: json is none of parquet, csv, jsonl, arrow"),
        (work(source="raw"), "raw needs a model with one input, BYTES of shape [-1] or [-1, 1]; it has x FP64 [-1]"),
        (
            work((spec("t", "BYTES"),), source="raw", sink="json", keep=("id",)),
            "raw messages have no fields; leave it out",
        ),
        (work((spec("t", "BYTES"),), source="raw", sink="json", columns=("id",)), "spec.source.columns: raw messages"),
        (work((spec("t", "BYTES"),), source="raw"), "spec.sink.format: raw needs a model with one output, BYTES"),
        (work(outputs=(spec("t", "BYTES"),), sink="raw"), "it needs spec.source.format: raw"),
        (work((M,), columns=("a", "b")), "spec.source.columns: there are 2, and input m of the model takes 3"),
        (work(columns=("a", "b")), "input x of the model is no matrix; name one field"),
        (work((X, M), columns=("a",)), "the model has 2 inputs, whose fields are found by name"),
        (work((M,), columns=("a", "a", "b")), "spec.source.columns: the same field is there twice"),
        (work(keep=("a", "a")), "spec.sink.keep: the same field is there twice"),
        (work(()), "the model has no inputs"),
        (work((X,), ()), "the model has no outputs"),
    ],
)
def test_what_cannot_go_together_is_refused_at_once(asked: Any, told: str) -> None:
    with pytest.raises(Refused) as caught:
        Codec(asked)
    assert caught.value.reason is Reason.SCHEMA_MISMATCH
    assert told in caught.value.message

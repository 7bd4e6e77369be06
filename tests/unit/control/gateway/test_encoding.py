"""The short way to the wire says the same as protobuf's own."""

from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor as Field
from hypothesis import given, settings
from hypothesis import strategies as st

import xds_testing
from modelyard.base.errors import UserError
from modelyard.control.gateway import descriptors
from modelyard.control.gateway.encoding import Codecs, Unusual
from modelyard.control.render import xds
from modelyard.control.render.part import Part

KINDS = {"scopes": xds.SCOPE, "clusters": xds.CLUSTER, "assignments": xds.ASSIGNMENT}
POOL = descriptors._pool()


def briefly(kind: str, body: dict[str, Any]) -> bytes:
    return Codecs(POOL).named(kind)(body)


def read(kind: str, wire: bytes) -> dict[str, Any]:
    """As a dictionary, since protobuf itself writes maps inside an Any in no order of their own."""
    message = descriptors.message_class(kind).FromString(wire)
    found: dict[str, Any] = json_format.MessageToDict(message, descriptor_pool=POOL)
    return found


@pytest.mark.parametrize("path", xds_testing.CASES, ids=lambda path: path.name.removesuffix(".in.yaml"))
def test_everything_that_is_rendered_goes_the_short_way_and_says_the_same(path: Any) -> None:
    for what, found in xds_testing.rendered(*xds_testing.case(path)).items():
        for body in found if isinstance(found, list) else [found]:
            kind = KINDS.get(what, body.get("@type", xds.LISTENER).rpartition("/")[2])
            wire, official = briefly(kind, body), descriptors.encode_officially(kind, body)
            assert read(kind, wire) == read(kind, official)
            assert len(wire) == len(official)


PLAIN: dict[int, st.SearchStrategy[Any]] = {
    Field.TYPE_STRING: st.text(max_size=4),
    Field.TYPE_BOOL: st.booleans(),
    Field.TYPE_UINT32: st.integers(0, 2**32 - 1) | st.just(0) | st.just("17"),
    Field.TYPE_UINT64: st.integers(0, 2**64 - 1),
    Field.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    Field.TYPE_INT64: st.integers(-(2**63), 2**63 - 1) | st.just("-3"),
    Field.TYPE_DOUBLE: st.floats(-1e9, 1e9) | st.integers(-5, 5),
    Field.TYPE_FLOAT: st.floats(-1e9, 1e9, width=32),
    Field.TYPE_BYTES: st.sampled_from(["", "AAEC", "not base64"]),
}
SPECIAL: dict[str, st.SearchStrategy[Any]] = {
    "google.protobuf.Duration": st.sampled_from(["0s", "1s", "0.025s", "3.000000001s", "-1s", "60", "9999999999999s"]),
    "google.protobuf.Struct": st.dictionaries(
        st.text(max_size=2),
        st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=2), st.lists),
    ),
    "google.protobuf.Any": st.just({"@type": f"type.googleapis.com/{xds.ASSIGNMENT}", "cluster_name": "a"}),
}
WRONG = st.sampled_from([None, True, -1, 2**70, 1.5, "word", [], {}, ["x"], {"no_such_field": 1}])


def value(field: Any, depth: int) -> st.SearchStrategy[Any]:
    """Mostly what belongs there."""
    return one(field, depth) if not field.is_repeated else st.lists(one(field, depth), max_size=2)


def one(field: Any, depth: int) -> st.SearchStrategy[Any]:
    if field.type == Field.TYPE_ENUM:
        return st.sampled_from([each.name for each in field.enum_type.values])
    if field.type != Field.TYPE_MESSAGE:
        return PLAIN[field.type]
    return message(field.message_type, depth - 1)


def message(descriptor: Any, depth: int) -> st.SearchStrategy[Any]:
    if descriptor.full_name in SPECIAL:
        return SPECIAL[descriptor.full_name]
    if descriptor.full_name.startswith("google.protobuf."):
        return one(descriptor.fields[0], 0) if descriptor.full_name.endswith("Value") else st.just({})
    if depth <= 0:
        return st.just({})

    @st.composite
    def body(draw: st.DrawFn) -> Any:
        chosen = draw(st.lists(st.sampled_from(list(descriptor.fields)), max_size=4, unique_by=lambda each: each.name))
        wrong = draw(st.integers(0, 40)) == 0
        found = {}
        for each in chosen:
            if each.message_type is not None and each.message_type.GetOptions().map_entry:
                inside = value(each.message_type.fields_by_name["value"], depth - 1)
                found[each.name] = draw(WRONG if wrong else st.dictionaries(st.text(max_size=2), inside, max_size=2))
            else:
                found[each.name] = draw(WRONG if wrong else value(each, depth))
        return found

    return body() if descriptor.fields else st.just({})


ANY_KIND = st.sampled_from([xds.SCOPE, xds.CLUSTER, xds.ASSIGNMENT, "envoy.config.route.v3.RouteAction"])


@settings(max_examples=300, deadline=None)
@given(st.data(), ANY_KIND)
def test_what_it_takes_protobuf_takes_and_reads_the_same(data: st.DataObject, kind: str) -> None:
    body = data.draw(message(POOL.FindMessageTypeByName(kind), 5))
    try:
        wire = briefly(kind, body)
    except Unusual:
        return  # then the official way decides
    assert read(kind, wire) == read(kind, descriptors.encode_officially(kind, body))


@pytest.mark.parametrize(
    "body",
    [
        {"no_such_field": 1},
        {"name": 3},
        {"connect_timeout": "1"},
        {"type": "EDS", "cluster_type": {}},
        {"type": "NO_SUCH_TYPE"},
        {"circuit_breakers": {"thresholds": {}}},
        {"circuit_breakers": {"thresholds": [{"max_requests": 2**32}]}},
        {"typed_extension_protocol_options": {"a": {"@type": "type.googleapis.com/no.such.Type"}}},
    ],
)
def test_what_is_wrong_is_said_in_protobufs_words(body: dict[str, Any]) -> None:
    with pytest.raises(Unusual):
        briefly(xds.CLUSTER, body)
    with pytest.raises(UserError, match="cannot be said to Envoy"):
        descriptors.encode(xds.CLUSTER, body)


def test_what_is_spelled_in_another_way_is_understood() -> None:
    assert descriptors.encode(xds.CLUSTER, {"connectTimeout": "1s"}) == briefly(xds.CLUSTER, {"connect_timeout": "1s"})


def test_a_shared_part_is_encoded_once_for_each_type() -> None:
    part = Part(name="a")
    whole = {"name": "a", "virtual_hosts": [part, part]}
    kind = "envoy.config.route.v3.RouteConfiguration"
    assert briefly(kind, whole) == descriptors.encode_officially(kind, whole)
    assert list(part.wire) == ["envoy.config.route.v3.VirtualHost"]

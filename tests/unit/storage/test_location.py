"""Where a uri points, spelled in one way; tricks are refused."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.base.conditions import Reason
from modelyard.storage.errors import StoreRefused
from modelyard.storage.location import parse


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("./models/a.onnx", "/project/models/a.onnx"),
        ("models/a:b.onnx", "/project/models/a:b.onnx"),
        ("v1:final.onnx", "/project/v1:final.onnx"),
        ("/abs/a.onnx", "/abs/a.onnx"),
        ("../beside/a", "/beside/a"),
        ("file:///abs/with%20space", "/abs/with space"),
        ("file://localhost/abs/a", "/abs/a"),
        ("file:/abs/a", "/abs/a"),
    ],
)
def test_local_uris_become_paths(uri: str, expected: str) -> None:
    found = parse(uri, "/project")
    assert (found.scheme, found.path, found.uri) == ("file", expected, f"file://{expected}")


@pytest.mark.parametrize(
    ("uri", "same"),
    [
        ("s3://lake/in/dt=2026-11-22/", "s3://lake/in/dt=2026-11-22"),
        ("S3://lake", "s3://lake"),
        ("gs://b/a b/c", "gs://b/a b/c"),
        ("az://container/x", "az://container/x"),
        ("https://example.org/m.onnx?v=1", "https://example.org/m.onnx?v=1"),
        ("http://127.0.0.1:8/m", "http://127.0.0.1:8/m"),
        ("https://example.org/m/", "https://example.org/m/"),
        ("https://example.org//m", "https://example.org//m"),
    ],
)
def test_places_far_away_are_spelled_in_one_way(uri: str, same: str) -> None:
    assert parse(uri).uri == same
    assert parse(parse(uri).uri) == parse(uri)


@pytest.mark.parametrize("uri", ["hf://a", "ftp://x/y", "file://host/a", "file:relative", "http://example.org/a"])
def test_other_schemes_say_what_works(uri: str) -> None:
    with pytest.raises(StoreRefused, match=r"https://|file:///absolute/path") as caught:
        parse(uri, "/project")
    assert caught.value.reason == Reason.UNSUPPORTED


@pytest.mark.parametrize(
    "uri",
    ["s3://", "s3:///key", "s3://b/../c", "s3://b//c", "s3://b/c?d", "s3://b/c#d", "s3://a:s3cret@b/c", "gs://b/./c"],
)
def test_tricks_are_refused_and_secrets_are_not_repeated(uri: str) -> None:
    with pytest.raises(StoreRefused) as caught:
        parse(uri)
    assert "s3cret" not in caught.value.message
    with pytest.raises(StoreRefused) as caught:
        parse("https://me:s3cret@example.org/x?sig=s3cret")
    assert "s3cret" not in caught.value.message


def test_a_relative_path_needs_a_project_root() -> None:
    with pytest.raises(StoreRefused, match="no project root"):
        parse("a.onnx")


@given(st.text(max_size=60))
def test_any_text_is_a_place_or_a_sentence(text: str) -> None:
    for uri in (text, f"s3://{text}", f"https://{text}", f"file://{text}"):
        with contextlib.suppress(StoreRefused):
            found = parse(uri, "/project")
            assert ".." not in found.path.split("/") or found.scheme in ("https", "http")

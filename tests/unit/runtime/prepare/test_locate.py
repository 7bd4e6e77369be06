from pathlib import Path

import pytest

from modelyard.base.conditions import Reason
from modelyard.runtime.backends.port import LoadFailed
from modelyard.runtime.prepare.locate import locate


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("./models/a.onnx", "/project/models/a.onnx"),
        ("models/a:b.onnx", "/project/models/a:b.onnx"),
        ("v1:final.onnx", "/project/v1:final.onnx"),
        ("/abs/a.onnx", "/abs/a.onnx"),
        ("file:///abs/with%20space", "/abs/with space"),
        ("file://localhost/abs/a", "/abs/a"),
        ("file:/abs/a", "/abs/a"),
    ],
)
def test_local_uris_become_paths(uri: str, expected: str) -> None:
    assert locate(uri, "/project") == Path(expected)


@pytest.mark.parametrize("uri", ["s3://bucket/key", "https://x/y.onnx", "hf://a", "file://host/a", "file:relative"])
def test_other_schemes_say_what_works(uri: str) -> None:
    with pytest.raises(LoadFailed, match="file:///absolute/path") as caught:
        locate(uri, "/project")
    assert caught.value.reason == Reason.UNSUPPORTED


def test_a_relative_path_needs_a_project_root() -> None:
    with pytest.raises(LoadFailed, match="no project root"):
        locate("a.onnx", "")

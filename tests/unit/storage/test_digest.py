import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.base.conditions import Reason
from modelyard.base.ids import is_digest
from modelyard.storage import digest as digests
from modelyard.storage.digest import Limits, digest
from modelyard.storage.errors import StoreRefused, StoreUnavailable


def _folder(root: Path) -> Path:
    (root / "model" / "sub").mkdir(parents=True)
    (root / "model" / "b.bin").write_bytes(b"bb")
    (root / "model" / "sub" / "a.bin").write_bytes(b"a")
    (root / "model" / "sub.txt").write_bytes(b"t")
    return root / "model"


def test_the_digest_of_a_file_does_not_depend_on_its_name(tmp_path: Path) -> None:
    (tmp_path / "one.onnx").write_bytes(b"bytes")
    (tmp_path / "other").write_bytes(b"bytes")
    assert is_digest(digest(tmp_path / "one.onnx"))
    assert digest(tmp_path / "one.onnx") == digest(tmp_path / "other")


def test_a_folder_with_one_file_is_not_that_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "-").write_bytes(b"x")
    assert digest(tmp_path / "folder") != digest(tmp_path / "folder" / "-")


names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\\n\0", exclude_categories=["Cs"]), min_size=1, max_size=20
)


@given(
    st.dictionaries(names.filter(lambda name: name not in (".", "..")), st.binary(max_size=20), min_size=1, max_size=4)
)
def test_renaming_or_changing_any_file_changes_the_digest(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    before = digest(folder)
    first = folder / next(iter(files))
    first.write_bytes(first.read_bytes() + b"!")
    changed = digest(folder)
    first.rename(folder / ("x" * 30))
    assert len({before, changed, digest(folder)}) == 3


def test_links_inside_the_artifact_count_as_files_and_links_out_of_it_are_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    (folder / "inside").symlink_to("b.bin")
    assert len(digests.inventory(folder).files) == 4
    (tmp_path / "secret").write_bytes(b"s")
    (folder / "outside").symlink_to("../secret")
    with pytest.raises(StoreRefused, match="may only link to files inside itself") as caught:
        digest(folder)
    assert caught.value.reason == Reason.ARTIFACT_INVALID


@pytest.mark.parametrize("limits", [Limits(files=2), Limits(size_bytes=3)])
def test_an_artifact_above_a_limit_is_too_large(tmp_path: Path, limits: Limits) -> None:
    with pytest.raises(StoreRefused, match="more than") as caught:
        digest(_folder(tmp_path), limits)
    assert caught.value.reason == Reason.ARTIFACT_TOO_LARGE


@pytest.mark.parametrize("kind", ["nothing", "empty", "pipe"])
def test_what_is_no_artifact_is_refused_with_the_next_step(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "empty":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(StoreRefused) as caught:
        digest(path)
    expected = {"nothing": Reason.ARTIFACT_NOT_FOUND}
    assert caught.value.reason == expected.get(kind, Reason.ARTIFACT_INVALID)


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"x" * 100)
    original = digests._hash

    def slow(blocks: object, sink: object = None) -> str:
        with path.open("ab") as file:
            file.write(b"y")
        return original(blocks, sink)  # type: ignore[arg-type]

    monkeypatch.setattr(digests, "_hash", slow)
    with pytest.raises(StoreUnavailable, match="changed while it was read"):
        digest(path)

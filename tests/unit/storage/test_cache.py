import errno
import os
from pathlib import Path

import pytest

from modelyard.base.conditions import Reason
from modelyard.base.errors import UserError
from modelyard.storage import digest as digests
from modelyard.storage.cache import Cache
from modelyard.storage.errors import StoreRefused, StoreUnavailable


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "iris.onnx"
    path.write_bytes(b"model" * 1000)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_a_stored_copy_survives_the_original_being_overwritten(cache: Cache, model: Path) -> None:
    digest = cache.put(model)
    model.write_bytes(b"retrained")
    stored = cache.path(digest)
    assert stored.read_bytes() == b"model" * 1000
    assert stored.name == "iris.onnx"
    assert stored.parent.name == digest.replace(":", "-")
    assert stored.stat().st_mode & 0o222 == 0


def test_a_folder_is_stored_with_its_tree(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "model" / "sub").mkdir(parents=True)
    (tmp_path / "model" / "sub" / "a").write_bytes(b"a")
    (tmp_path / "model" / "link").symlink_to("sub/a")
    stored = cache.path(cache.put(tmp_path / "model"))
    assert sorted(path.relative_to(stored).as_posix() for path in stored.rglob("*")) == ["link", "sub", "sub/a"]
    assert not (stored / "link").is_symlink()


def test_storing_the_same_content_twice_keeps_one_entry(cache: Cache, model: Path, tmp_path: Path) -> None:
    digest = cache.put(model)
    before = cache.path(digest).stat().st_ino
    assert cache.put(model.rename(tmp_path / "other.onnx")) == digest
    assert cache.path(digest).stat().st_ino == before
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_damaged_or_missing_copy_is_told_and_mended_by_storing_it_again(cache: Cache, model: Path) -> None:
    digest = cache.put(model)
    stored = cache.path(digest)
    stored.chmod(0o600)
    stored.write_bytes(b"moDel" * 1000)
    for _ in range(2):
        with pytest.raises(StoreRefused, match="modelyard refresh") as caught:
            cache.path(digest)
        assert caught.value.reason == Reason.ARTIFACT_CHANGED
        stored.unlink(missing_ok=True)
    cache.put(model)
    assert cache.path(digest).read_bytes() == model.read_bytes()


def test_other_times_with_the_same_content_are_no_damage(cache: Cache, model: Path) -> None:
    digest = cache.put(model)
    os.utime(cache.path(digest), (1, 1))
    assert cache.path(digest).read_bytes() == model.read_bytes()


def test_a_file_added_to_an_entry_is_damage(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_bytes(b"a")
    digest = cache.put(tmp_path / "model")
    (cache.path(digest) / "b").write_bytes(b"b")
    with pytest.raises(StoreRefused):
        cache.path(digest)


def test_a_full_disk_is_said_so_and_leaves_nothing(
    cache: Cache, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreUnavailable, match="no space is left") as caught:
        cache.put(model)
    assert caught.value.reason == Reason.DISK_FULL
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_a_killed_process_left_is_swept_but_not_what_another_is_writing(
    cache: Cache, model: Path, tmp_path: Path
) -> None:
    left = tmp_path / "cache" / ".new-left"
    left.mkdir(parents=True)
    os.utime(left, (1, 1))
    fresh = tmp_path / "cache" / ".new-fresh"
    fresh.mkdir()
    cache.put(model)
    assert not left.exists()
    assert fresh.exists()


def test_content_that_changed_since_it_was_hashed_is_not_stored(cache: Cache, model: Path, tmp_path: Path) -> None:
    found = digests.inventory(model)
    model.write_bytes(b"other")
    with pytest.raises(StoreUnavailable, match="changed while it was read"):
        cache.put(model, found)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("digest", ["", "../../etc", "sha256:xyz", "sha256:" + "a" * 63])
def test_a_digest_that_is_none_never_becomes_a_path(cache: Cache, digest: str) -> None:
    with pytest.raises(UserError, match="is not a digest"):
        cache.path(digest)

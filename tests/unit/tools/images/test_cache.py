"""Layers are made once, and again when something they are made from changed."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tools.images import oci
from tools.images.cache import IN_USE_SECONDS, KEPT, Cache, Kept, Made
from tools.images.sbom import Component


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def layer(tmp_path: Path, calls: list[str]) -> Callable[..., Kept]:
    outside = tmp_path / "libwords.so"
    outside.write_bytes(b"one")

    def make(work: Path) -> Made:
        calls.append("made")
        (work / "own").write_bytes(b"own")
        entries = {"own": oci.File(work / "own"), "lib": oci.File(outside)}
        return Made(entries, [Component("words", "1", "pkg:pypi/words@1", "MIT", "0")])

    def found(key: str = "key", compression: int = 0) -> Kept:
        store = Cache(tmp_path / "cache", 0, compression)
        with store.locked():
            return store.layer("kind", key, make)

    return found


def test_the_same_key_gives_the_layer_that_is_there(layer: Callable[..., Kept], calls: list[str]) -> None:
    first = layer()
    assert layer() == first
    assert first.paths == {"own", "lib"}
    assert first.layer.path.is_file()
    assert calls == ["made"]


def test_another_key_or_compression_gives_another_layer(layer: Callable[..., Kept], calls: list[str]) -> None:
    layer(), layer("other"), layer(compression=1)
    assert calls == ["made"] * 3


def test_a_library_of_this_machine_that_changed_makes_the_layer_anew(
    layer: Callable[..., Kept], calls: list[str], tmp_path: Path
) -> None:
    first = layer()
    (tmp_path / "libwords.so").write_bytes(b"two")
    assert layer().layer.digest != first.layer.digest
    assert calls == ["made"] * 2


def test_a_record_without_its_layer_counts_for_nothing(layer: Callable[..., Kept], calls: list[str]) -> None:
    layer().layer.path.unlink()
    assert layer().layer.path.is_file()
    assert calls == ["made"] * 2


def test_of_layers_not_used_lately_only_some_are_kept(layer: Callable[..., Kept], tmp_path: Path) -> None:
    made = [layer(str(number)) for number in range(KEPT + 2)]
    assert all(each.layer.path.exists() for each in made)
    for age, each in enumerate(reversed(made)):
        then = time.time() - IN_USE_SECONDS - 60 * (age + 1)
        os.utime(each.layer.path, (then, then))
    assert layer("0").layer == made[0].layer  # used again
    newest = layer("new")
    kept = [made[0], newest]
    assert len(kept) == KEPT
    names = sorted(path.name for path in (tmp_path / "cache").iterdir() if path.suffix == ".layer")
    assert names == sorted(each.layer.path.name for each in kept)
    assert len(list((tmp_path / "cache").glob("*.json"))) == len(names)


def test_what_a_killed_build_left_is_removed(layer: Callable[..., Kept], tmp_path: Path) -> None:
    (tmp_path / "cache" / "tmpleft").mkdir(parents=True)
    layer()
    assert not (tmp_path / "cache" / "tmpleft").exists()

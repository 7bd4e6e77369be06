"""Archives of images: the same bytes from the same content, and digests that hold."""

import gzip
import hashlib
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tools.images import oci
from tools.images.oci import Config, File, Folder, Image, Link

NAME = "localhost/example:1"


def made(folder: Path, *, compression: int = 0) -> Image:
    program = folder / "program"
    program.write_bytes(b"#!/bin/true\n" * 100)
    entries: dict[str, oci.Entry] = {
        "usr/bin/program": File(program, 0o755),
        "etc/words": File(b"words\n"),
        "tmp": Folder(0o1777),
        "bin": Link("usr/bin"),
    }
    layers = [
        oci.pack(entries, folder / "first.layer", "first", compression=compression),
        oci.pack({"etc/more": File(b"more\n")}, folder / "second.layer", "second", compression=compression),
    ]
    config = Config(entrypoint=("/usr/bin/program",), labels={"b": "2", "a": "1"}, ports=(8080,))
    return oci.write(folder / "image.tar", NAME, layers, config)


def content(archive: Path) -> dict[str, bytes]:
    found = {}
    with tarfile.open(archive) as whole:
        for member in whole:
            if member.isfile():
                file = whole.extractfile(member)
                assert file
                found[member.name] = file.read()
    return found


def blob(found: dict[str, bytes], described: dict[str, Any]) -> bytes:
    data = found[described["digest"].replace("sha256:", "blobs/sha256/")]
    assert described["size"] == len(data)
    return data


def test_two_folders_with_the_same_content_give_the_same_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "deeper" / "two"]
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True)
        (folder / "tree").mkdir()
        for name in ("b", "a", "c")[:: 1 - 2 * number]:
            (folder / "tree" / name).write_text(name)
            os.utime(folder / "tree" / name, (number * 1000, number * 1000))
    trees = [oci.pack(oci.tree(folder / "tree"), folder / "tree.layer") for folder in folders]
    images = [made(folder) for folder in folders]
    assert trees[0].digest == trees[1].digest
    assert images[0].digest == images[1].digest
    assert images[0].archive.read_bytes() == images[1].archive.read_bytes()


def test_every_blob_has_the_name_of_its_content_and_all_that_is_named_is_there(tmp_path: Path) -> None:
    found = content(made(tmp_path).archive)
    for name, data in found.items():
        if name.startswith("blobs/"):
            assert name.rpartition("/")[2] == hashlib.sha256(data).hexdigest()
    described = json.loads(found["index.json"])["manifests"][0]
    manifest = json.loads(blob(found, described))
    config = json.loads(blob(found, manifest["config"]))
    layers = [blob(found, each) for each in manifest["layers"]]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in layers]
    assert len(config["history"]) == len(layers)
    assert json.loads(found["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}


def test_the_name_is_where_containerd_skopeo_and_docker_look_for_it(tmp_path: Path) -> None:
    found = content(made(tmp_path).archive)
    notes = json.loads(found["index.json"])["manifests"][0]["annotations"]
    assert notes == {"io.containerd.image.name": NAME, "org.opencontainers.image.ref.name": "1"}
    docker = json.loads(found["manifest.json"])[0]
    assert docker["RepoTags"] == [NAME]
    assert {docker["Config"], *docker["Layers"]} <= set(found)


def test_a_compressed_image_is_the_same_image(tmp_path: Path) -> None:
    (tmp_path / "packed").mkdir()
    plain, packed = made(tmp_path), made(tmp_path / "packed", compression=1)
    assert packed.id == plain.id
    assert packed.digest != plain.digest
    assert packed.size < plain.size
    found = content(packed.archive)
    manifest = json.loads(blob(found, json.loads(found["index.json"])["manifests"][0]))
    config = json.loads(blob(found, manifest["config"]))
    unpacked = [gzip.decompress(blob(found, each)) for each in manifest["layers"]]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(each).hexdigest()}" for each in unpacked]
    assert {each["mediaType"] for each in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar+gzip"}


def test_files_belong_to_root_and_keep_only_whether_they_run(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "tool").write_bytes(b"")
    (folder / "tool").chmod(0o4777)
    (folder / "words").write_bytes(b"")
    (folder / "words").chmod(0o666)
    (folder / "link").symlink_to("words")
    packed = oci.pack(oci.tree(folder), tmp_path / "tree.layer", seconds=7)
    with tarfile.open(packed.path) as whole:
        seen = {each.name: (each.mode, each.uid, each.gid, each.uname, each.mtime) for each in whole}
        assert whole.getmember("link").linkname == "words"
    assert seen == {
        "link": (0o777, 0, 0, "", 7),
        "tool": (0o755, 0, 0, "", 7),
        "words": (0o644, 0, 0, "", 7),
    }


def test_a_layer_that_is_a_file_already_is_taken_as_it_is(tmp_path: Path) -> None:
    for compression in (0, 1):
        packed = oci.pack({"a": File(b"a")}, tmp_path / "a.layer", "words", compression=compression)
        assert oci.layer(packed.path, "words") == packed


def test_what_was_written_unpacks(tmp_path: Path) -> None:
    for compression in (0, 1):
        config = oci.unpack(made(tmp_path, compression=compression).archive, tmp_path / f"root{compression}")
        root = tmp_path / f"root{compression}"
        assert (root / "bin/program").read_bytes() == (tmp_path / "program").read_bytes()
        assert os.access(root / "usr/bin/program", os.X_OK)
        assert (root / "etc/words").read_text() + (root / "etc/more").read_text() == "words\nmore\n"
        assert config["config"]["Entrypoint"] == ["/usr/bin/program"]
        assert config["config"]["User"] == "65532:65532"
        assert config["config"]["ExposedPorts"] == {"8080/tcp": {}}


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../../up", "a//b", "", ".", "a/./b"])
def test_a_path_that_is_not_plain_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="relative and plain"):
        oci.pack({path: File(b"")}, tmp_path / "layer")
    assert list(tmp_path.iterdir()) == []


def test_a_path_through_a_link_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lib/x: lib is not a folder"):
        oci.pack({"lib": Link("usr/lib"), "lib/x": File(b"")}, tmp_path / "layer")


@pytest.mark.parametrize("name", ["localhost/example", "localhost:5000/example", ""])
def test_a_name_without_a_tag_is_refused(name: str, tmp_path: Path) -> None:
    layer = oci.pack({"a": File(b"a")}, tmp_path / "layer")
    with pytest.raises(ValueError, match="needs a tag"):
        oci.write(tmp_path / "image.tar", name, [layer], Config())


def test_an_archive_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    image = made(tmp_path)
    before = image.archive.read_bytes()
    lost = oci.Layer(tmp_path / "gone.layer", "sha256:0", "sha256:0", 1)
    with pytest.raises(FileNotFoundError):
        oci.write(image.archive, NAME, [lost], Config())
    assert image.archive.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []

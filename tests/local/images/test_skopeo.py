"""Another tool reads our archives: skopeo, where it is installed."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tools.images import oci


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
@pytest.mark.parametrize("compression", [0, 1])
def test_skopeo_reads_and_copies_an_archive(compression: int, tmp_path: Path) -> None:
    layer = oci.pack({"etc/words": oci.File(b"words\n")}, tmp_path / "layer", compression=compression)
    image = oci.write(tmp_path / "image.tar", "localhost/words:1", [layer], oci.Config(labels={"a": "b"}))
    place = f"oci-archive:{image.archive}"
    told = json.loads(subprocess.run(["skopeo", "inspect", place], capture_output=True, text=True, check=True).stdout)
    assert (told["Digest"], told["Labels"], told["Layers"]) == (image.digest, {"a": "b"}, [layer.digest])
    for source in (place, f"docker-archive:{image.archive}"):
        target = tmp_path / source.partition(":")[0]
        command = ["skopeo", "--insecure-policy", "copy", "--quiet", source, f"dir:{target}"]
        subprocess.run(command, check=True, capture_output=True)
        assert (target / image.id.removeprefix("sha256:")).is_file()

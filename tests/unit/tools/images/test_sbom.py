"""The list of what an image is made of."""

import hashlib
import json
from pathlib import Path

import pytest
from tools.images import sbom
from tools.images.sbom import Component


def installed(folder: Path, *fields: str) -> Component:
    data = folder / "wordy-1.2.dist-info"
    data.mkdir(parents=True)
    head = ["Metadata-Version: 2.4", "Name: Wordy_Pack", "Version: 1.2", *fields]
    (data / "METADATA").write_text("\n".join(head) + "\n\nA long description: License :: not this\n")
    (folder / "wordy.py").write_text("x = 1\n")
    (data / "RECORD").write_text("wordy.py,sha256=x,6\nleft/out.py,,\nwordy-1.2.dist-info/RECORD,,\n")
    (found,) = sbom.packages(folder)
    return found


def test_a_package_is_named_with_version_and_address(tmp_path: Path) -> None:
    found = installed(tmp_path)
    assert (found.name, found.version, found.url) == ("Wordy_Pack", "1.2", "pkg:pypi/wordy-pack@1.2")


def test_its_hash_is_that_of_the_list_of_its_files_as_sha256sum_prints_it(tmp_path: Path) -> None:
    found = installed(tmp_path)
    names = sorted(["wordy.py", "wordy-1.2.dist-info/RECORD"])
    lines = "".join(f"{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    assert found.digest == hashlib.sha256(lines.encode()).hexdigest()


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        (["License: BSD", "License-Expression: BSD-3-Clause"], "BSD-3-Clause"),
        (["License: MIT"], "MIT"),
        (["License: MIT License", "        Permission is hereby granted"], "MIT License"),
        (["Classifier: License :: OSI Approved :: Apache Software License"], "Apache Software License"),
        (["Classifier: License :: OSI Approved"], ""),
        ([], ""),
    ],
)
def test_its_licence_is_what_its_makers_say(fields: list[str], licence: str, tmp_path: Path) -> None:
    assert installed(tmp_path, *fields).licence == licence


def test_the_document_is_the_same_in_any_order() -> None:
    one, two = (Component(name, "1", f"pkg:pypi/{name}@1", "MIT", "0" * 64) for name in ("one", "two"))
    document = sbom.document("image", "1", [one, two], 0)
    assert document == sbom.document("image", "1", [two, one], 0)
    found = json.loads(document)
    assert (found["bomFormat"], found["metadata"]["timestamp"]) == ("CycloneDX", "1970-01-01T00:00:00Z")
    assert found["components"][0] == {
        "type": "library",
        "name": "one",
        "version": "1",
        "bom-ref": "pkg:pypi/one@1",
        "purl": "pkg:pypi/one@1",
        "licenses": [{"license": {"name": "MIT"}}],
        "hashes": [{"alg": "SHA-256", "content": "0" * 64}],
    }


def test_a_library_of_this_machine_is_named_at_least_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "libwords.so.1").write_bytes(b"words")
    (found,) = sbom.libraries([tmp_path / "libwords.so.1"])
    assert (found.name, found.version) == ("libwords.so.1", "")

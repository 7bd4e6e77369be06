"""What an image is made of, as a CycloneDX document: from the metadata of what is really in it.

A component's hash is the SHA-256 of its files' list as `sha256sum` prints it, so it can be checked in the image.
Source: CycloneDX 1.6, package URLs.
"""

import csv
import hashlib
import json
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tools.images import elf


@dataclass(frozen=True)
class Component:
    """One thing that others made; `licence` is an SPDX expression or the words its makers use, or nothing."""

    name: str
    version: str
    url: str  # a package URL, pkg:pypi/numpy@2.4.6
    licence: str
    digest: str


def packages(folder: Path) -> list[Component]:
    """The Python packages installed in a folder."""
    found = []
    for metadata in sorted(folder.glob("*.dist-info/METADATA")):
        fields = HeaderParser().parsestr(metadata.read_text(errors="replace"))
        name, version = str(fields["Name"]), str(fields["Version"])
        with (metadata.parent / "RECORD").open(newline="") as file:
            listed = [row[0] for row in csv.reader(file) if row]
        present = {each: elf.digest(folder / each) for each in listed if (folder / each).is_file()}
        url = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
        found.append(Component(name, version, url, _licence(fields.items()), listing(present)))
    return found


def libraries(paths: Iterable[Path]) -> list[Component]:
    """Shared libraries of this machine, by the Debian package that brought each, or one by one."""
    grouped: dict[tuple[str, str, str], dict[str, str]] = {}
    for path in sorted(paths):
        package, version = _brought(path)
        url = f"pkg:deb/{_distribution()}/{package}@{quote(version, safe=':')}"
        key = (package, version, url) if package else (path.name, "", "")
        grouped.setdefault(key, {})[path.name] = elf.digest(path)
    return [Component(*key, "", listing(files)) for key, files in sorted(grouped.items())]


def copyrights(paths: Iterable[Path]) -> dict[str, Path]:
    """Path in the image -> where the licences of these libraries lie on this machine, where Debian brought them."""
    named = sorted({package for path in paths if (package := _brought(path)[0])})
    found = {f"usr/share/doc/{name}/copyright": Path("/usr/share/doc", name, "copyright") for name in named}
    return {place: path for place, path in found.items() if path.is_file()}


def listing(files: Mapping[str, str]) -> str:
    """The hash of a list of files, path -> SHA-256."""
    lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def document(title: str, version: str, components: Iterable[Component], seconds: int) -> bytes:
    """The document of an image, the same bytes each time."""
    made = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    own = {"type": "container", "name": title, "version": version, "licenses": [{"license": {"id": "Apache-2.0"}}]}
    listed = sorted(components, key=lambda each: (each.url, each.name))
    whole = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"timestamp": made, "component": own},
        "components": [_described(each) for each in listed],
    }
    return json.dumps(whole, indent=1).encode() + b"\n"


def plain(components: Iterable[Component]) -> list[dict[str, str]]:
    """For a file; `Component(**each)` reads it."""
    return [asdict(each) for each in components]


def _described(component: Component) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "library", "name": component.name}
    if component.version:
        found["version"] = component.version
    if component.url:
        found |= {"bom-ref": component.url, "purl": component.url}
    if component.licence:
        found["licenses"] = [{"license": {"name": component.licence}}]
    return found | {"hashes": [{"alg": "SHA-256", "content": component.digest}]}


def _licence(fields: Iterable[tuple[str, str]]) -> str:
    """The expression where there is one, else the old field's first line where that is short, else the classifiers."""
    given = [(key.lower(), str(value).strip()) for key, value in fields]
    named = dict(given)
    classified = [value.rpartition(" :: ")[2] for _, value in given if value.startswith("License :: ")]
    first = named.get("license", "").partition("\n")[0]
    told = ", ".join(each for each in classified if each != "OSI Approved")
    return named.get("license-expression") or (first if len(first) <= 60 else "") or told


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["ID"]
    except OSError:
        return "debian"


def _brought(path: Path) -> tuple[str, str]:
    """The Debian package that a file belongs to and its version; empty where dpkg or the package is not there."""
    if shutil.which("dpkg-query") is None:
        return "", ""
    real = path.resolve()
    for place in dict.fromkeys((str(path), str(real), str(real).removeprefix("/usr"))):
        asked = subprocess.run(["dpkg-query", "--search", place], check=False, capture_output=True, text=True)
        if asked.returncode == 0 and not asked.stdout.startswith("diversion"):
            package = asked.stdout.partition(": ")[0].partition(",")[0]
            show = ["dpkg-query", "--show", "--showformat=${Package} ${Version}", package]
            name, _, version = subprocess.run(show, capture_output=True, text=True, check=True).stdout.partition(" ")
            return name, version
    return "", ""

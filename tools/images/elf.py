"""Which shared libraries programs need here, and which of them are libc's."""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from tools.images.errors import CannotBuild

_LIBC = re.compile(r"(ld-linux.*|lib(c|m|mvec|pthread|dl|rt|util|resolv|anl|nss_files|nss_dns))\.so\.\d+$")
_FOUND = re.compile(r"^\s+(?P<name>\S+)(?: => (?P<path>/\S+|not found))?(?: \(0x[0-9a-f]+\))?$")


def of_libc(name: str) -> bool:
    """Whether a library's name is one of glibc's; every image holds all of these."""
    return _LIBC.match(name) is not None


def needed(files: Sequence[Path], given: Iterable[str] = ()) -> list[Path]:
    """The libraries, each once, that these programs and libraries load, also indirectly.

    `given`: names of libraries that come with the files and are found otherwise, so they may be missing here.
    CannotBuild names what is found nowhere.
    """
    if shutil.which("ldd") is None:
        raise CannotBuild("ldd was not found; it comes with glibc (Debian and Ubuntu: apt-get install libc-bin)")
    found: dict[str, Path] = {}
    missing: set[str] = set()
    own = {path.name for path in files} | set(given)
    for start in range(0, len(files), 200):
        asked = subprocess.run(
            ["ldd", *map(str, files[start : start + 200])], check=False, capture_output=True, text=True
        )
        for line in asked.stdout.splitlines():
            match = _FOUND.match(line)
            if match is None:
                continue
            name, path = match["name"], match["path"] or match["name"]
            if path == "not found":
                missing.add(name)
            elif path.startswith("/"):
                found.setdefault(Path(name).name, Path(path))
    if lost := sorted(missing - own - set(found)):
        raise CannotBuild(f"libraries that the packages need are not on this machine: {', '.join(lost)}; install them")
    return sorted(found.values())


def libraries(folder: Path) -> list[Path]:
    """The shared libraries and programs below a folder, links left out."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink() and _is_elf(path))


def _is_elf(path: Path) -> bool:
    if ".so" not in path.name and not path.stat().st_mode & 0o100:
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def digest(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

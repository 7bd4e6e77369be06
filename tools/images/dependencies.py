"""The locked packages of an image, installed by uv, without what is only for building and testing them."""

import os
import shutil
import subprocess
from pathlib import Path

from tools.images import bytecode, elf, system
from tools.images.errors import CannotBuild
from tools.images.interpreter import CERTIFICATES, Interpreter
from tools.images.oci import Entry, File, Link, tree

_ROOT = Path(__file__).parents[2]
BUILD = _ROOT / "requirements/build.lock"
_LEFT_OUT_FOLDERS = ("tests", "test", "__pycache__", "include", "_pyinstaller")
_LEFT_OUT_SUFFIXES = (".pyx", ".pxd", ".pxi", ".pyi", ".h", ".hpp", ".c", ".cc", ".cpp", ".a", ".lib", ".cmake", ".f90")
# A second copy of ONNX Runtime for programs in C, and Arrow's own network clients: nothing of ours calls them.
_LEFT_OUT_FILES = ("onnxruntime/capi/libonnxruntime.so.*", "pyarrow/*flight*", "pyarrow/*_s3*")


def install(python: Interpreter, lock: Path, root: Path) -> Path:
    """Install what the lock names below `root`; returns the folder of packages."""
    uv = _ROOT / ".tools/uv/bin/uv"
    if not uv.is_file():
        raise CannotBuild("uv is not set up: run `make setup` first")
    target = root / python.packages
    target.mkdir(parents=True)
    command = [str(uv), "pip", "install", "--quiet", "--no-config", "--no-deps", "--python", str(python.program)]
    # nkeys comes as source only; what builds it is locked as well.
    chosen = ["--target", str(target), "--require-hashes", "-r", str(lock), "--build-constraints", str(BUILD)]
    kept = {key: value for key, value in os.environ.items() if key != "UV_COMPILE_BYTECODE"}
    done = subprocess.run([*command, *chosen], check=False, env=kept, capture_output=True, text=True)
    if done.returncode:
        raise CannotBuild(f"{lock.name} could not be installed: {done.stderr[-2000:]}")
    return target


def entries(python: Interpreter, packages: Path, root: Path, present: set[str]) -> dict[str, Entry]:
    """The layer of installed packages, and the libraries they need of which the layers below have none (`present`)."""
    _trim(packages)
    files = elf.libraries(packages)
    bundled = [path.name for path in files]
    bytecode.write(python.program, root, packages)
    found = tree(root)
    where = system.folder()
    for path in elf.needed(files, bundled):
        name = f"{where}/{path.name}"
        if not path.is_relative_to(root) and not elf.of_libc(path.name) and name not in present:
            found[name] = File(path.resolve(), 0o755)
    return found | linked(python.packages, packages)


def linked(place: str, packages: Path) -> dict[str, Entry]:
    """Certificates and time zones where programs look for those of a distribution."""
    found: dict[str, Entry] = {}
    if (packages / "certifi/cacert.pem").is_file():
        found[CERTIFICATES] = Link(f"/{place}/certifi/cacert.pem")
    if (packages / "tzdata/zoneinfo").is_dir():
        found["usr/share/zoneinfo"] = Link(f"/{place}/tzdata/zoneinfo")
    return found


def _trim(packages: Path) -> None:
    shutil.rmtree(packages / "bin", ignore_errors=True)  # scripts that name this machine's Python
    (packages / ".lock").unlink(missing_ok=True)
    for path in (path for pattern in _LEFT_OUT_FILES for path in packages.glob(pattern)):
        path.unlink()
    for path in sorted(packages.rglob("*"), reverse=True):
        if path.is_dir():
            if path.name in _LEFT_OUT_FOLDERS and path.parent != packages:
                shutil.rmtree(path)
        elif path.name.endswith(_LEFT_OUT_SUFFIXES):
            path.unlink()

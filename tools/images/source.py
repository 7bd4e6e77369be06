"""Our own packages: each image gets those of its half."""

import hashlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from tools.images import bytecode
from tools.images.errors import CannotBuild
from tools.images.interpreter import Interpreter
from tools.images.oci import Entry, tree

PACKAGE = Path(__file__).parents[2] / "src/modelyard"
_GENERATED = Path("control/gateway/envoy_api.binpb.z")


def version() -> str:
    """Modelyard's version, read from the source."""
    match = re.search(r'^__version__ = "([^"]+)"', (PACKAGE / "__init__.py").read_text(), re.MULTILINE)
    if match is None:
        raise CannotBuild(f"{PACKAGE / '__init__.py'} has no line __version__ = ...")
    return match[1]


def files(parts: Sequence[str]) -> list[Path]:
    """The files of these packages, relative to ours; CannotBuild where one that is generated is not there."""
    found = [Path("__init__.py")]
    for part in parts:
        paths = (path for path in (PACKAGE / part).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        found += [path.relative_to(PACKAGE) for path in paths]
    if _GENERATED.parts[0] in parts and _GENERATED not in found:
        raise CannotBuild(f"src/modelyard/{_GENERATED} is not there: run `make setup` first")
    return sorted(found)


def identity(parts: Sequence[str]) -> str:
    """Changes when a file does."""
    found = hashlib.sha256()
    for path in files(parts):
        found.update(f"{path}\0{hashlib.sha256((PACKAGE / path).read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


def entries(python: Interpreter, parts: Sequence[str], root: Path) -> dict[str, Entry]:
    """The layer, laid out below `root` and compiled."""
    target = root / python.packages / "modelyard"
    for path in files(parts):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PACKAGE / path, target / path)
    bytecode.write(python.program, root, target)
    return tree(root)

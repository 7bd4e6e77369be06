"""Byte code that is the same each time: no times in it, no folder of this machine, no hash seed."""

import os
import subprocess
from pathlib import Path

from tools.images.errors import CannotBuild


def write(program: Path, root: Path, *folders: Path) -> None:
    """Compile every module below the folders, which lie in `root`; tracebacks will show paths as they are in the image.

    The byte code is not compared with its source when it is loaded: layers do not change. One process, in order of
    names: what it met before decides how marshal writes some constants.
    """
    command = [str(program), "-I", "-m", "compileall", "-q", "-q", "-j", "1", "--invalidation-mode", "unchecked-hash"]
    places = [*("-s", str(root)), *("-p", "/"), *map(str, folders)]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    # -I ignores the seed's variable, so it is passed without.
    command.remove("-I")
    done = subprocess.run(
        [*command, *places], check=False, env=clean | {"PYTHONHASHSEED": "0"}, capture_output=True, text=True
    )
    if done.returncode and not any(folder.rglob("*.pyc") for folder in folders):
        raise CannotBuild(f"the byte code could not be written: {done.stdout[-2000:]}{done.stderr[-2000:]}")

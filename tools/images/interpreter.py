"""The Python that runs this, without what no image needs, as entries below /usr/local.

Any CPython for Linux with glibc serves: one that was built here, one that uv or a distribution brought.
"""

import json
import shutil
import ssl
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tools.images import bytecode, elf
from tools.images.errors import CannotBuild
from tools.images.oci import Entry, File, Folder, Link, tree

RELEASE = sys.version_info[:3]
VERSION = f"{RELEASE[0]}.{RELEASE[1]}"
HOME = f"usr/local/{sys.platlibdir}/python{VERSION}"
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"

_NEEDED = ("asyncio", "bz2", "ctypes", "lzma", "sqlite3", "ssl", "zlib", "zoneinfo")
_LEFT_OUT = (
    *(
        "__pycache__",
        "test",
        "tests",
        "idlelib",
        "tkinter",
        "_tkinter*",
        "turtledemo",
        "turtle.py",
        "ensurepip",
        "venv",
    ),
    *(
        "lib2to3",
        "pydoc_data",
        "config-*",
        "site-packages",
        "dist-packages",
        "sitecustomize.py",
        "_test*",
        "xxlimited*",
    ),
    *("_curses*", "curses", "readline.*", "nis.*", "_dbm.*", "_gdbm.*", "ossaudiodev.*"),
    *("*.a", "*.o", "EXTERNALLY-MANAGED"),
)


@dataclass(frozen=True)
class Interpreter:
    """Where the base interpreter lies (not a virtual environment's), and where it looks for packages in an image."""

    program: Path
    library: Path
    packages: str  # "usr/local/lib/python3.11/site-packages"


def find() -> Interpreter:
    """The base of the running Python; CannotBuild says what it lacks."""
    if not sys.platform.startswith("linux"):
        raise CannotBuild("images are for Linux and are made from the Python that runs here: build them on Linux")
    missing = [name for name in _NEEDED if find_spec(name) is None]
    library = Path(sysconfig.get_path("stdlib"))
    program = next((path for path in _programs() if path.is_file()), None)
    if program is None or not (library / "os.py").is_file():
        raise CannotBuild(f"no bin/python{VERSION} with its library below {sys.base_prefix}: use another Python")
    if missing:
        advice = "on Debian and Ubuntu: apt-get install python3 python3-venv libpython3-stdlib"
        raise CannotBuild(f"{program} lacks the modules {', '.join(missing)}, which the images need ({advice})")
    return Interpreter(program, library, _packages(program))


def identity(python: Interpreter) -> str:
    """Changes when the interpreter does, or what can be left out of it."""
    own = [python.program.resolve(), *(path for path in elf.needed([python.program.resolve()]) if _own(path))]
    return json.dumps([sys.version, *map(elf.digest, own), shutil.which("strip") is not None])


def entries(python: Interpreter, work: Path, where: str) -> dict[str, Entry]:
    """Interpreter, standard library and the shared libraries that these need beyond libc.

    `work` is an empty folder, which must live until the entries are packed; `where` is the libraries' folder.
    """
    program, library = work / "usr/local/bin" / f"python{VERSION}", work / HOME
    program.parent.mkdir(parents=True)
    shutil.copy(python.program.resolve(), program)
    shutil.copytree(python.library, library, ignore=shutil.ignore_patterns(*_LEFT_OUT), ignore_dangling_symlinks=True)
    (work / where).mkdir(parents=True)
    found: dict[str, Entry] = {}
    modules = [python.library / "lib-dynload" / path.name for path in sorted(library.glob("lib-dynload/*.so"))]
    for path in elf.needed([python.program.resolve(), *modules]):
        if _own(path):
            shutil.copy(path, work / where / path.name)
        elif not elf.of_libc(path.name):
            found[f"{where}/{path.name}"] = File(path.resolve(), 0o755)
    _strip([program, *library.glob("lib-dynload/*.so"), *(work / where).iterdir()])
    bytecode.write(python.program, work, library)
    found |= tree(work)
    found[f"usr/local/bin/python{VERSION}"] = File(program, 0o755)
    for name in ("python3", "python"):
        found[f"usr/local/bin/{name}"] = Link(f"python{VERSION}")
    found[python.packages] = Folder()
    trusted = ssl.get_default_verify_paths().openssl_cafile.removeprefix("/")
    if trusted != CERTIFICATES:
        found[trusted] = Link(f"/{CERTIFICATES}")
    return found


def _own(path: Path) -> bool:
    """Whether a library is the interpreter itself, where it is built as one."""
    return path.name.startswith("libpython")


def _programs() -> list[Path]:
    return [Path(sys.base_prefix, "bin", name) for name in (f"python{VERSION}", "python3")]


def _packages(program: Path) -> str:
    """Where this interpreter, moved to /usr/local, looks for packages: Debian's look elsewhere than others."""
    code = "import json, site; print(json.dumps(site.getsitepackages(['/usr/local'])))"
    asked = subprocess.run([program, "-I", "-c", code], capture_output=True, text=True, check=True)
    found = [path.removeprefix("/") for path in json.loads(asked.stdout)]
    return next((path for path in found if path.startswith(f"{HOME}/")), f"{HOME}/site-packages")


def _strip(paths: list[Path]) -> None:
    """Leave out symbols that only debuggers read, where the tool is installed; it saves half of the interpreter."""
    if tool := shutil.which("strip"):
        for path in paths:
            path.chmod(0o755)
            subprocess.run([tool, "--strip-unneeded", str(path)], check=True, capture_output=True)

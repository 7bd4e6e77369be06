"""What every image stands on: libc, names of users, folders to mount at, and nothing that can be run.

There is no base image to start from, so libc is this machine's. Its licences come along where the machine has them.
"""

import os
import sys
from pathlib import Path

from tools.images import elf
from tools.images.errors import CannotBuild
from tools.images.oci import Entry, File, Folder, Link

USER = 65532
_PASSWD = f"""root:x:0:0:root:/root:/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin
modelyard:x:{USER}:{USER}:Modelyard:/var/lib/modelyard:/sbin/nologin
"""
_GROUP = f"""root:x:0:
nogroup:x:65534:
modelyard:x:{USER}:
"""


def libc() -> list[Path]:
    """glibc's libraries and its loader, as they lie here."""
    named = [path for path in elf.needed([Path(sys.executable).resolve()]) if elf.of_libc(path.name)]
    folder = next((path.parent for path in named if path.name == "libc.so.6"), None)
    loader = next((path for path in named if path.name.startswith("ld-linux")), None)
    if folder is None or loader is None:
        raise CannotBuild(
            "this Python does not run on glibc, which the locked packages are built for: use one that does"
        )
    beside = [path for path in sorted(folder.iterdir()) if elf.of_libc(path.name) and path.name != loader.name]
    return [loader, *beside]


def place(path: Path) -> str:
    """A library's path in the image: the folder of this machine's, below /usr as all of them are."""
    folder = Path(os.path.realpath(path.parent)).relative_to("/").as_posix()
    return f"{folder if folder.startswith('usr/') else f'usr/{folder}'}/{path.name}"


def folder() -> str:
    """Where libraries go in the image; the loader looks there without being told: it is where libc lies."""
    return str(Path(place(next(path for path in libc() if path.name == "libc.so.6"))).parent)


def entries() -> dict[str, Entry]:
    """The whole layer."""
    found: dict[str, Entry] = {
        "etc/passwd": File(_PASSWD.encode()),
        "etc/group": File(_GROUP.encode()),
        "etc/hosts": File(b"127.0.0.1 localhost\n::1 localhost\n"),
        "etc/nsswitch.conf": File(b"passwd: files\ngroup: files\nhosts: files dns\n"),
        "etc/modelyard": Folder(),
        "run/modelyard": Folder(),
        "run/secrets": Folder(),
        "tmp": Folder(0o1777),
        "var/lib/modelyard": Folder(),
    }
    found |= {name: Link(f"usr/{name}") for name in ("bin", "lib", "lib64", "sbin")}
    found |= {f"usr/{name}": Folder() for name in ("bin", "lib", "lib64", "sbin")}
    for path in libc():
        if path.name.startswith("ld-linux"):  # named by every program, so exactly there: /lib64 or /lib
            found[f"usr/{path.parent.name}/{path.name}"] = File(path.resolve(), 0o755)
        else:
            found[place(path)] = File(path.resolve(), 0o755)
    return found

"""The image of `tests/cluster/stand_in.py`: Python, and what obeys levers in place of the runtime half."""

import hashlib
from pathlib import Path

from tools.images import build, interpreter, layers, oci, system
from tools.images.cache import Cache, Made

PROGRAM = Path(__file__).parent / "cluster" / "stand_in.py"
PARTS = ("front", "fetch", "prepare", "jobs", "streams", "progress")
PREFIX = "localhost/modelyard-stand-in-"
VERSION = "1"


def archive() -> Path:
    """The archive of `<PREFIX>runtime:<VERSION>`, made anew where something it is made from changed."""
    store = Cache(build.folder().absolute(), build.CREATED, 0)
    content = PROGRAM.read_bytes()
    with store.locked():
        python = interpreter.find()
        below = [layers.base(store), layers.python(store, python)]
        files: dict[str, oci.Entry] = {
            f"{python.packages}/modelyard/runtime/{part}.py": oci.File(content) for part in PARTS
        }
        mine = store.layer("stand-in", hashlib.sha256(content).hexdigest(), lambda _: Made(files))
        packed = [each.layer for each in (*below, mine)]
        key = hashlib.sha256("".join(each.digest for each in packed).encode()).hexdigest()[:20]
        config = oci.Config(entrypoint=("/usr/local/bin/python3",), user=f"{system.USER}:{system.USER}")
        path = store.folder / f"stand-in-{key}.tar"
        if not path.is_file():
            oci.write(path, f"{PREFIX}runtime:{VERSION}", packed, config)
            store.prune("stand-in", ".tar")
    return path

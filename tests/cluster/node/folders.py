"""The folders whose names are fixed in the kubelet and in the network plugins.

Each node mounts something of its own over them, seen by itself alone, so they only have to be there. Removing one ends
what is mounted over it in other namespaces; that is why they go with the last node that needs them.
"""

import contextlib
import json
from pathlib import Path

from cluster.node import build

_FIXED = tuple(Path(name) for name in ("/var/lib/kubelet", "/var/lib/cni", "/var/log/containers", "/var/log/pods"))


def make(node: str) -> None:
    """Have them there for one more node."""
    with build.alone(_note().with_suffix(".lock")):
        made, nodes = _noted()
        missing = [path for path in _FIXED if not path.exists()]
        _write([*made, *missing], [*nodes, node])
        for path in missing:
            path.mkdir(parents=True)


def release(node: str) -> None:
    """One node is gone; with the last one go those that were made for them."""
    with build.alone(_note().with_suffix(".lock")):
        made, nodes = _noted()
        others = [each for each in nodes if each != node]
        if not others:
            for path in made:
                with contextlib.suppress(OSError):  # what is not empty is used by others by now
                    path.rmdir()
        _write([] if not others else made, others)


def _note() -> Path:
    return build.cache() / "folders.json"


def _noted() -> tuple[list[Path], list[str]]:
    """Those that were made, and the nodes that need them."""
    if not _note().exists():
        return [], []
    found = json.loads(_note().read_text())
    return [Path(each) for each in found["made"]], found["nodes"]


def _write(made: list[Path], nodes: list[str]) -> None:
    if not nodes:
        _note().unlink(missing_ok=True)
        return
    _note().write_text(json.dumps({"made": list(map(str, made)), "nodes": nodes}))

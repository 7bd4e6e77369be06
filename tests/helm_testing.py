"""Real helm: from PATH, else built from tools/helm where go is there."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION = "v3.21.4"
_TOLD = (
    f"internal/version.version={VERSION}",
    *(f"pkg/{each}.k8sVersion{part}" for each in ("chartutil", "lint/rules") for part in ("Major=1", "Minor=36")),
)
"""What a build is told, as helm's own Makefile does; it takes the cluster for Kubernetes 1.20 otherwise."""


@cache
def helm() -> str:
    """Path of a helm of version 3 or newer."""
    found = shutil.which("helm")
    if found:
        return found
    built = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "modelyard-tests" / f"helm-{VERSION}"
    if not built.exists():
        go = shutil.which("go")
        if go is None:
            raise AssertionError("there is no helm on PATH, and no go to build tools/helm with")
        built.parent.mkdir(parents=True, exist_ok=True)
        temporary = built.with_name(f"helm-{os.getpid()}")
        flags = f"-ldflags=-s -w {' '.join(f'-X helm.sh/helm/v3/{each}' for each in _TOLD)}"
        command = [go, "build", "-trimpath", flags, "-o", str(temporary), "helm.sh/helm/v3/cmd/helm"]
        place, environment = ROOT / "tools" / "helm", {**os.environ, "CGO_ENABLED": "0"}
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"tools/helm could not be built with go:\n{done.stderr[-2000:]}")
        temporary.replace(built)
    return str(built)


def run(home: Path, *arguments: str, code: int = 0) -> str:
    """What helm prints, both outputs together; with folders of its own."""
    folders = {f"HELM_{each}_HOME": str(home / each.lower()) for each in ("CACHE", "CONFIG", "DATA")}
    environment = {**os.environ, **folders}
    done = subprocess.run(
        [helm(), *arguments], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == code, (
        f"helm {' '.join(arguments)} ended with {done.returncode}\n{done.stdout}{done.stderr}"
    )
    return done.stdout + done.stderr

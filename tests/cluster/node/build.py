"""What the node is made of: Debian's packages, programs built from Go modules, and two small images."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.images import oci

HERE = Path(__file__).parent
VERSION = "v1.36.3"  # of k8s.io/kubernetes in go.mod
PACKAGES = {  # where a program is -> the package that brings it
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
}
_SEARCHED = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"


class Missing(Exception):
    """Something that the node needs is not there; the text says what to do."""


@dataclass(frozen=True)
class Program:
    """One program of ours: where its sources are, relative to this folder, and how it is built."""

    name: str
    folder: str
    package: str = "."
    version: str = ""
    static: bool = False

    @property
    def command(self) -> list[str]:
        flags = "-s -w"
        if self.version:
            major, minor, _ = self.version.removeprefix("v").split(".")
            where = "k8s.io/component-base/version.git"
            flags += f" -X {where}Version={self.version} -X {where}Major={major} -X {where}Minor={minor}"
        return ["build", "-trimpath", "-tags", "providerless", "-ldflags", flags]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **({"CGO_ENABLED": "0"} if self.static else {})}

    def digest(self) -> str:
        """Of everything that the program is built from."""
        found = hashlib.sha256(repr((self.command, self.package, self.static)).encode())
        folder = HERE / self.folder
        for path in (folder / "go.mod", folder / "go.sum", *sorted((folder / self.package).glob("*.go"))):
            found.update(path.read_bytes())
        return found.hexdigest()[:16]


KUBERNETES = Program("kubernetes", ".", version=VERSION)
COREDNS = Program("coredns", "coredns", static=True)
PAUSE = Program("pause", ".", package="./pause", static=True)


def say(text: str) -> None:
    """Tell who waits."""
    print(text, file=sys.stderr, flush=True)


def cache() -> Path:
    """Where what is built stays. It is given by XDG_CACHE_HOME, else it is in ~/.cache."""
    found = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(found).absolute() / "modelyard-tests" / "node"


def install() -> None:
    """Have Debian's packages installed, those only that are missing. Raises Missing."""
    packages = sorted({package for where, package in PACKAGES.items() if shutil.which(where, path=_SEARCHED) is None})
    if not packages:
        return
    wanted = " ".join(packages)
    if shutil.which("apt-get") is None:
        raise Missing(f"the node needs {wanted} (their names in Debian); install them, there is no apt-get here")
    say(f"node: installing {wanted}")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    done = subprocess.CompletedProcess[str](command, 1, "", "")
    for step in (command, ["apt-get", "update", "-qq"], command):
        done = subprocess.run(step, env=quiet, capture_output=True, text=True, check=False)
        if step is command and done.returncode == 0:
            return
    raise Missing(f"{' '.join(command)} failed, and the node needs these packages:\n{done.stderr.strip()[-2000:]}")


def everything() -> None:
    """Debian's packages, and meanwhile the programs. Raises Missing."""
    with ThreadPoolExecutor(1) as beside:
        installed = beside.submit(install)
        for program in (KUBERNETES, COREDNS, PAUSE):
            build(program)
        installed.result()


def build(program: Program) -> Path:
    """The program's path; it is built when there is none of these sources. Raises Missing."""
    built = cache() / "built" / f"{program.name}-{program.digest()}"
    built.parent.mkdir(parents=True, exist_ok=True)
    with alone(built.parent / ".lock"):
        if built.exists():
            return built
        go = shutil.which("go", path=f"{_SEARCHED}:/usr/local/go/bin")
        if go is None:
            raise Missing(
                "the node is built from source: install Go 1.26 or newer (https://go.dev/dl) and put it on PATH"
            )
        with tempfile.TemporaryDirectory(dir=built.parent) as work:
            made = Path(work) / program.name
            _compile(go, program, made)
            for old in built.parent.glob(f"{program.name}-*"):
                old.unlink()
            made.replace(built)
    return built


def image(program: Program) -> Path:
    """An image localhost/NAME:1 that holds nothing but the program, as an archive."""
    binary = build(program)
    archive = binary.with_name(f"{program.name}.{program.digest()}.tar")
    with alone(binary.parent / ".lock"):
        if not archive.exists():
            for old in binary.parent.glob(f"{program.name}.*.tar"):
                old.unlink()
            layer = oci.pack({program.name: oci.File(binary, 0o755)}, archive.with_suffix(".layer"))
            oci.write(archive, f"localhost/{program.name}:1", [layer], oci.Config(entrypoint=(f"/{program.name}",)))
            layer.path.unlink()
    return archive


def _compile(go: str, program: Program, into: Path) -> None:
    folder, environment = HERE / program.folder, program.environment
    listed = subprocess.run(
        [go, "list", "-deps", "-tags", "providerless", program.package],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        raise Missing(f"Go could not get the modules of {folder}:\n{listed.stderr.strip()[-2000:]}")
    total, began, told = len(listed.stdout.split()), time.monotonic(), time.monotonic()
    say(f"node: building {program.name}, {total} packages; once, for these sources")
    command = [go, *program.command, "-v", "-o", str(into), program.package]
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines: list[str] = []
        for line in process.stderr:
            lines.append(line)
            if time.monotonic() - told > 20:
                told = time.monotonic()
                say(f"node: {program.name}: {len(lines)} of at most {total} packages, {told - began:.0f} s")
    if process.returncode:
        raise Missing(f"{program.name} could not be built from {folder}:\n{''.join(lines)[-2000:]}")
    say(f"node: {program.name} is built, {time.monotonic() - began:.0f} s")


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One process at a time."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

"""A real Kubernetes node in namespaces of its own, up and down.

Its work folder is `run` (`run-b` of the second node of a machine) under the cache folder. A lock there is held by the
node's first process and by the one that waits for it, so the kernel gives it back when the node is gone, however it
went: whoever holds the lock is the node.
"""

import contextlib
import fcntl
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

from cluster.node import build, files, folders, keys
from cluster.node.build import Missing, say
from kubectl_testing import Kubectl

Result = TypeVar("Result")

_CGROUPS = Path("/sys/fs/cgroup")
# Of the node's programs: nothing of the machine's, such as its proxies.
_ENVIRONMENT = {"PATH": os.environ["PATH"] + ":/usr/local/sbin:/usr/sbin:/sbin", "HOME": "/root"}
_SECONDS = 120.0  # how long any one step of coming up may take
NAME = "MODELYARD_TEST_NODE"
"""Variable that names the node, one of files.NAMES; without it there is one."""


class NotUp(Exception):
    """The node did not come up, or is not up; the text says why."""


class Node:
    """A node of this machine; by default the one that the environment names. Raises Missing."""

    def __init__(self, name: str | None = None) -> None:
        name = name or os.environ.get(NAME) or files.NAMES[0]
        if name not in files.NAMES:
            raise Missing(f"{NAME}={name}: expected one of {', '.join(files.NAMES)}")
        self.which = files.Which(name)
        self.work = build.cache() / f"run{self.which.suffix}"
        self._lock = build.cache() / f"lock{self.which.suffix}"
        self._holding = -1

    @property
    def kubeconfig(self) -> Path:
        """Complete in itself, and good from the machine as well as from inside the node."""
        return self.work / "keys" / "admin.kubeconfig"

    @property
    def running(self) -> bool:
        """Whether a node is up, or comes up."""
        lock = self._locked()
        if lock is not None:
            lock.close()
        return lock is None

    def up(self, held: bool = False) -> None:
        """Bring it up; returns when it is Ready and its DNS answers. Raises NotUp, Missing.

        held: the node ends with this process, however that ends; else it stays until `down`.
        """
        if sys.platform != "linux" or os.geteuid() != 0:
            raise Missing(
                "the test cluster's node needs Linux and root; elsewhere, set KUBECONFIG to use another cluster"
            )
        build.everything()
        _check_routes(self.which)
        at = self._places()
        images = [build.image(program) for program in (build.PAUSE, build.COREDNS)]
        lock = self._locked()
        if lock is None:
            raise NotUp(f"a node is up already ({self.work}); `tests/cluster/node/node.sh down` ends it")
        with lock:
            self._clean()
            began = time.monotonic()
            try:
                self._begin(at, lock, held)
                self._start(at, images)
            except BaseException:
                lock.close()
                self.down()
                raise
        say(f"node: Ready, {time.monotonic() - began:.1f} s")

    def down(self) -> None:
        """End it without a trace; nothing happens when there is none."""
        if self._holding >= 0:
            os.close(self._holding)
            self._holding = -1
        pid = self._pid()
        if pid is not None and self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        lock = _until(self._locked, "the end of the node's processes")
        with lock:
            self._clean()

    def left(self) -> list[str]:
        """What there is of a node: when none is up there must be nothing."""
        places = [self.work, *self._groups()]
        found = [f"network {self.which.link}"] if self._linked() else []
        found += [str(path) for path in places if path.exists()]
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # it may be gone by now
                said = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if f"{self.work}/" in said or f"{self.work} " in said:
                    found.append(f"process {path.parent.name}: {said[:200]}")
        return found

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command line that runs a command in the node's namespaces. Raises NotUp."""
        pid = self._pid()
        if pid is None or not self.running:
            raise NotUp("no node is up; `tests/cluster/node/node.sh up` starts one")
        return ["nsenter", "-t", str(pid), "-m", "-n", "-p", "-u", "-i", "--", *command]

    def exec(self, *command: str, stdin: str | None = None) -> str:
        """Run a command inside; its output. Raises AssertionError with what it printed when it fails."""
        done = subprocess.run(
            self.inside(command), input=stdin, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def load(self, archive: Path) -> None:
        """Give the node an image, from an archive."""
        self.exec("ctr", "-n", "k8s.io", "images", "import", str(archive.absolute()))

    def start(self, name: str) -> None:
        """Start a component (the names are those of `files.commands`) that does not run."""
        command = files.commands(self._places())[name]
        with (self.work / "log" / name).open("ab") as log:
            beside = ["setsid", "--fork", *self._noted(name, command)]  # a child of nobody here
            subprocess.run(beside, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a component a signal; with SIGKILL it is gone, and its port free, when this returns."""
        pid = (self.work / "pids" / name).read_text().strip()
        self.exec("kill", f"-{int(number)}", pid)
        if number == signal.SIGKILL:
            self.exec("sh", "-c", 'while kill -0 "$0" 2>/dev/null; do sleep 0.05; done', pid)

    def _locked(self) -> IO[str] | None:
        """The lock, for who is not the node; None while there is one."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        lock = self._lock.open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        return lock

    def _pid(self) -> int | None:
        try:
            return int((self.work / "pid").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _begin(self, at: files.Places, lock: IO[str], held: bool) -> None:
        """Folders, keys, settings, and the namespaces with the cable to them."""
        for name in ("cni", "kubelet", "log", "pids"):
            (self.work / name).mkdir(parents=True)
        keys.write(at.keys, self.which.address, self.which.api)
        for name, text in files.settings(at).items():
            (self.work / name).write_text(text)
        folders.make(self.which.name)
        for group in self._groups():
            group.mkdir(exist_ok=True)
        reading, writing = os.pipe()
        if not held:  # the first process holds its own standard input open
            os.set_inheritable(writing, True)
        namespaces = ("--mount", "--net", "--pid", "--uts", "--ipc")
        command = ["unshare", *namespaces, "--fork", "--kill-child", "--propagation", "private"]
        with (self.work / "log" / "init").open("w") as log:
            process = subprocess.Popen(
                [*command, str(build.HERE / "init.sh"), str(self.work), self.which.address],
                stdin=reading,
                env=_ENVIRONMENT,
                stdout=log,
                stderr=log,
                pass_fds=[lock.fileno(), *([] if held else [writing])],
                start_new_session=True,
            )
        os.close(reading)
        if held:
            self._holding = writing  # open as long as this process is there
        else:
            os.close(writing)
        self._until((self.work / "waiting").exists, "namespaces", process)
        self._connect()
        self._until((self.work / "ready").exists, "network of the node", process)

    def _connect(self) -> None:
        """The cable; it goes when the node's network namespace does."""
        link = self.which.link
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(self._pid()))
        _ip("link", "set", link, "addrgenmode", "none")
        _ip("address", "add", f"{self.which.host}/24", "dev", link)
        _ip("link", "set", link, "up")
        for network in (self.which.pods, self.which.services):
            _ip("route", "add", network, "via", self.which.address, "dev", link)

    def _start(self, at: files.Places, images: Sequence[Path]) -> None:
        commands = files.commands(at)
        first = ("containerd", "etcd", "kube-apiserver")
        processes = {name: self._launch(name, commands[name]) for name in first}
        containerd = ["ctr", "-n", "k8s.io", "version"]
        self._until(lambda: _works(self.inside(containerd)), "containerd", processes["containerd"])
        self.load(images[0])
        ready = partial(self._kubectl, "get", "--raw", "/readyz", code=None)
        self._until(ready, "answer of the API server", processes["kube-apiserver"])
        for name in commands:
            if name not in first:
                processes[name] = self._launch(name, commands[name])
        for archive in images[1:]:
            self.load(archive)
        dns = (build.HERE / "dns.yaml").read_text().replace("ADDRESS", self.which.dns)
        self._kubectl("apply", "-f", "-", stdin=dns)
        for what in ("node/testnode", "deployment/coredns"):
            condition = "Ready" if what.startswith("node") else "Available"
            wait = ("wait", what, "-n", "kube-system", f"--for=condition={condition}", "--timeout=5s")
            self._until(partial(self._kubectl, *wait, code=None), what, processes["kubelet"])

    def _launch(self, name: str, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        with (self.work / "log" / name).open("ab") as log:
            return subprocess.Popen(
                self._noted(name, command),
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _noted(self, name: str, command: Sequence[str]) -> list[str]:
        """The command line that runs a component inside, its number (as it is inside) in a file."""
        file = self.work / "pids" / name
        return self.inside(["bash", "-c", 'echo $$ >"$0"; exec "$@"', str(file), *command])

    def _kubectl(self, *arguments: str, code: int | None = 0, stdin: str | None = None) -> bool:
        """Whether it succeeded. code: the status that is expected, None for any."""
        return Kubectl(self.kubeconfig, self.work).run(*arguments, code=code, stdin=stdin).code == 0

    def _until(self, fact: Callable[[], bool], what: str, process: "subprocess.Popen[bytes]") -> None:
        """Wait for a fact. Raises NotUp with the ends of the logs, when it is too late or the process has ended."""
        deadline = time.monotonic() + _SECONDS
        while not fact():
            ended = process.poll() is not None
            if ended or time.monotonic() > deadline:
                why = "its process ended" if ended else f"not within {_SECONDS:.0f} s"
                raise NotUp(f"the node did not come up: no {what}: {why}\n{self._logs()}")
            time.sleep(0.05)

    def _logs(self) -> str:
        logs = sorted((self.work / "log").glob("*"))
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in logs)

    def _clean(self) -> None:
        """Remove what a node leaves that has ended in whatever way."""
        # It goes with the node's network, a little later.
        link = self.which.link
        _until(lambda: not self._linked(), f"the end of the network {link} (is a node of another cache folder up?)")
        for group in self._groups():
            _until(partial(_removed, group), f"the end of {group}")
        if any(f" {self.work}/" in line for line in Path("/proc/self/mountinfo").read_text().splitlines()):
            raise NotUp(f"something is mounted below {self.work}; unmount it, then try again")
        if self.work.exists():
            shutil.rmtree(self.work)
        folders.release(self.which.name)

    def _places(self) -> files.Places:
        return files.Places(self.work, build.build(build.KUBERNETES), self.which)

    def _groups(self) -> list[Path]:
        return [hierarchy / self.which.cgroup for hierarchy in _hierarchies()]

    def _linked(self) -> bool:
        return self.which.link in [name for _, name in socket.if_nameindex()]


def _check_routes(which: files.Which) -> None:
    """Raises Missing when this machine has a network of the same addresses."""
    own = (f"{which.host}/24", which.pods, which.services)
    wanted = [ipaddress.ip_network(text, strict=False) for text in own]
    for route in json.loads(_ip("-json", "-4", "route", "show")):
        there = route["dst"]
        if there == "default" or route.get("dev") == which.link:
            continue
        for network in wanted:
            if network.overlaps(ipaddress.ip_network(there)):
                raise Missing(f"the node's network {network} overlaps with this machine's route to {there}")


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotUp(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _works(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _hierarchies() -> list[Path]:
    """Where a control group can be made: each hierarchy of version 1, or the one of version 2."""
    roots = [_CGROUPS, *(path for path in _CGROUPS.iterdir() if path.is_dir() and not path.is_symlink())]
    return [path for path in roots if (path / "cgroup.procs").exists() and path.is_mount()]


def _removed(group: Path) -> bool:
    """Whether a control group, with those below it, is gone. It cannot go while processes in it end."""
    if not group.exists():
        return True
    try:
        for path in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
            path.rmdir()
        group.rmdir()
    except OSError:
        return False
    return True


def _until(fact: Callable[[], Result | None], what: str) -> Result:
    """The first answer that is not empty. Raises NotUp when there is none in time."""
    deadline = time.monotonic() + 30
    while not (found := fact()):
        if time.monotonic() > deadline:
            raise NotUp(f"{what} did not come within 30 s")
        time.sleep(0.02)
    return found

"""The API server as a process of its own, and real kubectl to talk to it.

Run as a program it is that process: `python kubectl_testing.py DATA_FOLDER` prints its URL and serves until it is
killed or its standard input ends.
"""

import asyncio
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from modelyard.api.schema import crds
from modelyard.base.clock import SystemClock
from modelyard.control.apiserver import folder
from modelyard.control.apiserver.server import ApiServer
from modelyard.control.apiserver.store import Store

Object = dict[str, Any]
Result = TypeVar("Result")
ROOT = Path(__file__).parents[1]
OLDEST = (1, 30)


async def serve(path: Path) -> None:
    """Serve a data folder on any port, and tell the URL to who started this."""
    clock = SystemClock()
    with folder.opened(path) as data:
        async with Store.open(data.database, clock) as store:
            tls = data.tls("127.0.0.1", clock)
            server = ApiServer(store, crds(), token=data.token, tls=tls, clock=clock, key=data.key())
            async with server.listening("127.0.0.1", 0) as url:
                data.write_kubeconfig(url)
                print(url, flush=True)
                await asyncio.to_thread(sys.stdin.read)  # until who started this is gone


class Server:
    """One server process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], 60)
        self.url = self._process.stdout.readline().strip() if ready else ""
        if not self.url:
            self.kill()
            raise AssertionError("the server did not start")

    @property
    def kubeconfig(self) -> Path:
        return self.path / "kubeconfig"

    def kill(self) -> None:
        """As a power cut would, as far as the process is concerned."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


@contextmanager
def running(path: Path) -> Iterator[Server]:
    """A server until the block ends."""
    server = Server(path)
    try:
        yield server
    finally:
        server.kill()


class Output:
    """What a command printed."""

    def __init__(self, out: str, err: str, code: int) -> None:
        self.out, self.err, self.code = out, err, code


class Kubectl:
    """Real kubectl against one server, with caches of its own."""

    def __init__(self, kubeconfig: Path, home: Path) -> None:
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "KUBECONFIG": str(kubeconfig),
            "KUBECACHEDIR": str(home / "cache"),
        }

    def run(self, *arguments: str, stdin: str | None = None, code: int | None = 0) -> Output:
        """Run it; code: the exit status that is expected, None for any."""
        done = subprocess.run(
            [kubectl(), *arguments],
            input=stdin,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert code is None or done.returncode == code, (
            f"kubectl {' '.join(arguments)} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return Output(done.stdout, done.stderr, done.returncode)

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Its standard output; it must succeed."""
        return self.run(*arguments, stdin=stdin).out

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Run it beside; the caller ends it."""
        return subprocess.Popen([kubectl(), *arguments], env=self._environment, stdout=subprocess.PIPE, text=True)


@cache
def kubectl() -> str:
    """Path of a kubectl that is new enough: from PATH, else built from tools/kubectl where go is there."""
    found = shutil.which("kubectl")
    seen = _version(found) if found else None
    if found and seen is not None and seen >= OLDEST:
        return found
    what = f"kubectl {'.'.join(map(str, seen))} on PATH is too old" if seen else "there is no kubectl on PATH"
    built = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "modelyard-tests" / "kubectl"
    if not built.exists():
        go = shutil.which("go")
        if go is None:
            raise AssertionError(f"{what} (1.30 or newer is needed), and there is no go to build tools/kubectl with")
        built.parent.mkdir(parents=True, exist_ok=True)
        temporary = built.with_name(f"kubectl-{os.getpid()}")
        # Without a version of its own kubectl refuses to compare it with the server's.
        version = "-X k8s.io/component-base/version.gitVersion=v1.32.9"
        command = [go, "build", "-trimpath", f"-ldflags={version}", "-o", str(temporary), "."]
        place, environment = ROOT / "tools" / "kubectl", {**os.environ, "CGO_ENABLED": "0"}
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"{what}, and tools/kubectl could not be built with go:\n{done.stderr[-2000:]}")
        temporary.replace(built)
    return str(built)


def _version(path: str) -> tuple[int, int] | None:
    done = subprocess.run([path, "version", "--client"], capture_output=True, text=True, timeout=60, check=False)
    match = re.search(r"v(\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match else None


def until(check: Callable[[], Result], seconds: float = 15.0) -> Result:
    """The first truthy answer. Raises AssertionError when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))

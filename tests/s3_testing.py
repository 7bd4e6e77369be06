"""A real S3 server for tests, and a proxy in front of it that loses replies."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import obstore
from obstore.store import S3Store

from modelyard.base import launch

KEY, SECRET = "testkey", "testsecret"
WEED = Path(sys.executable).parent / "weed"
BUCKETS = ("data", "models")


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """Bound for a moment at once, so that they differ. weed adds 10,000 to ports for its gRPC."""
    sockets: list[socket.socket] = []
    try:
        while len(sockets) < count:
            found = socket.socket()
            found.bind((address, 0))
            if found.getsockname()[1] + 10_000 < 65_536:
                sockets.append(found)
            else:
                found.close()
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class S3:
    """`weed mini` on ports and a folder that stay the same over restarts. more: options of weed."""

    def __init__(self, folder: Path, address: str = "127.0.0.1", more: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.address = address
        self.more = more
        self.port, self._filer, self._master, self._volume = free_ports(4, address)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}:{self.port}"

    def credentials(self, port: int | None = None) -> dict[str, str]:
        """As a Secret holds them."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": f"http://{self.address}:{port or self.port}",
        }

    def store(self, bucket: str = "data") -> Any:
        return S3Store(
            bucket,
            endpoint=self.endpoint,
            access_key_id=KEY,
            secret_access_key=SECRET,
            region="us-east-1",
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Until it stores something."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [
            str(WEED), "mini", f"-dir={self.folder}/s3", f"-ip={self.address}", f"-ip.bind={self.address}",
            f"-bucket={','.join(BUCKETS)}", f"-s3.port={self.port}", f"-filer.port={self._filer}",
            f"-master.port={self._master}", f"-volume.port={self._volume}", "-admin.ui=false", "-webdav=false",
            "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false", *self.more,
        ]  # fmt: skip
        keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        environment = {**os.environ, **keys, "TMPDIR": str(self.folder)}  # where it leaves logs
        (self.folder / "s3").mkdir(exist_ok=True)
        with (self.folder / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(
                launch.command(command), cwd=self.folder, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 40
        while True:
            try:
                obstore.put(self.store(), "ready", b"1", use_multipart=False)
                return
            except Exception:
                assert self._process.poll() is None, (self.folder / "weed.log").read_text()[-3000:]
                assert time.monotonic() < deadline, (self.folder / "weed.log").read_text()[-3000:]
                time.sleep(0.1)

    def kill(self) -> None:
        """kill -9."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()
            _remove_dead_sockets()


def _remove_dead_sockets() -> None:
    """weed leaves Unix sockets in /tmp, wherever it runs."""
    for path in Path("/tmp").glob("seaweedfs-*.sock"):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except OSError:
                continue


Decide = Callable[[bytes], str]
"""The head of a request -> "pass", "drop-reply" (it reaches the server, its answer is lost) or "cut"."""


class LossyProxy:
    """A proxy in front of a server at the same address. One thread for each direction of a connection."""

    def __init__(self, port: int, decide: Decide, address: str = "127.0.0.1") -> None:
        self._target = (address, port)
        self._decide = decide
        self._listener = socket.create_server((address, 0))
        self.port: int = self._listener.getsockname()[1]
        self.dropped = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            state = {"drop": False}
            threading.Thread(target=self._requests, args=(client, server, state), daemon=True).start()
            threading.Thread(target=self._replies, args=(client, server, state), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket, state: dict[str, bool]) -> None:
        with _closing(client, server):
            while data := client.recv(1 << 16):
                if _begins_request(data):
                    verdict = self._decide(data.partition(b"\r\n\r\n")[0])
                    if verdict == "cut":
                        return
                    if verdict == "drop-reply":
                        self.dropped += 1
                        state["drop"] = True
                server.sendall(data)

    def _replies(self, client: socket.socket, server: socket.socket, state: dict[str, bool]) -> None:
        with _closing(client, server):
            while data := server.recv(1 << 16):
                if state["drop"]:
                    return
                client.sendall(data)


def _begins_request(data: bytes) -> bool:
    return data.partition(b" ")[0] in (b"GET", b"PUT", b"POST", b"DELETE", b"HEAD")


@contextmanager
def _closing(*sockets: socket.socket) -> Iterator[None]:
    try:
        yield
    except OSError:
        pass
    finally:
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

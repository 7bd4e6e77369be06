"""Issuers for tests: a real OpenID provider (npm `oidc-provider`), and one of our own that does wrong as it is told."""

import asyncio
import hashlib
import json
import os
import select
import shutil
import subprocess
import urllib.parse
import urllib.request
from base64 import b64encode
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

Object = dict[str, Any]
SOURCE = Path(__file__).parent / "local" / "oidc" / "provider"
AUDIENCE = "modelyard"


@cache
def program() -> Path:
    """The provider's program beside its packages, installed once for this machine."""
    files = [SOURCE / name for name in ("package.json", "package-lock.json", "server.mjs")]
    version = hashlib.sha256(b"".join(each.read_bytes() for each in files)).hexdigest()[:12]
    caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "modelyard-tests"
    home = caches / f"oidc-provider-{version}"
    if not home.exists():
        npm = shutil.which("npm")
        assert npm, "there is no npm (Node.js 20 or newer) to install the OpenID provider of the tests with"
        draft = caches / f"oidc-provider-{version}.{os.getpid()}"
        draft.mkdir(parents=True)
        for each in files:
            shutil.copy(each, draft)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=draft, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"the OpenID provider of the tests could not be installed:\n{done.stderr[-2000:]}"
        try:
            draft.rename(home)
        except OSError:  # another test was first
            shutil.rmtree(draft)
    return home / "server.mjs"


class RealProvider:
    """`server.mjs` as a process; see there what can be asked of it."""

    def __init__(self) -> None:
        node = shutil.which("node")
        assert node, "there is no Node.js to run the OpenID provider of the tests"
        self._process = subprocess.Popen(
            [node, str(program())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={"PATH": os.environ["PATH"]},
        )
        self.url = self._line()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def do(self, command: str) -> None:
        """`rotate`, `add`, `down`, `up`, `slow MILLISECONDS`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        assert self._line() == "done"

    def token(self, user: str, alg: str = "RS256", *, audience: str = AUDIENCE, seconds: int = 600) -> str:
        """An access token that the provider gives to a client of that name."""
        form = {"grant_type": "client_credentials", "resource": f"urn:{audience}:{alg}:{seconds}"}
        request = urllib.request.Request(f"{self.url}/token", urllib.parse.urlencode(form).encode())
        request.add_header("Authorization", "Basic " + b64encode(f"{user}:secret".encode()).decode())
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(json.load(answer)["access_token"])

    def _line(self) -> str:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], 60)
        line = self._process.stdout.readline().strip() if ready else ""
        assert line, "the OpenID provider of the tests does not answer"
        return line


class FaultyIssuer:
    """In this process, on a port of its own: right by default; tests set what it does wrong.

    documents: what its paths answer: bytes, something for JSON, or a handler.
    """

    def __init__(self) -> None:
        self.url = ""
        self.keys: list[Object] = []
        self.documents: dict[str, Any] = {}
        self.headers: dict[str, str] = {}
        self.asked: list[str] = []
        self.released = asyncio.Event()
        """Set: nothing is held back. Handlers that hold an answer back wait for it."""

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.released.set()
        await self._runner.cleanup()

    async def held(self, _request: web.Request) -> web.StreamResponse:
        """An answer that does not come."""
        await self.released.wait()
        return web.Response(status=503)

    async def dripping(self, request: web.Request) -> web.StreamResponse:
        """An answer that never ends, a byte at a time."""
        response = web.StreamResponse()
        await response.prepare(request)
        while not self.released.is_set():
            await response.write(b" ")
            await asyncio.sleep(0.02)
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        found = self._document(request.path)
        if callable(found):
            response = await found(request)
            assert isinstance(response, web.StreamResponse)
            return response
        body = found if isinstance(found, bytes) else json.dumps(found).encode()
        return web.Response(body=body, headers=self.headers, content_type="application/json")

    def _document(self, path: str) -> Any:
        if path in self.documents:
            return self.documents[path]
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        return {"keys": self.keys}


def redirecting(place: str) -> Any:
    """A handler that leads elsewhere."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": place})

    return answer

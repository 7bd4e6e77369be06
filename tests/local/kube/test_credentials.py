"""Callers who prove themselves with certificates and programs, against a real server with TLS."""

import asyncio
import base64
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from certificates_testing import Authority, Pair, server_context
from kube_testing import until
from modelyard.base.errors import UserError
from modelyard.control.kube import auth, exec_plugin
from modelyard.control.kube.client import ApiError, Client
from modelyard.control.kube.resources import CONFIGMAPS

Object = dict[str, Any]
V1 = "client.authentication.k8s.io/v1"
BODY = {"metadata": {"name": "a", "namespace": "default", "resourceVersion": "5"}}


@dataclass
class Server:
    """Answers who called. refuses: tokens that it does not believe."""

    authority: Authority
    url: str = ""
    refuses: set[str] = field(default_factory=set)
    callers: list[tuple[str, str]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        shown = request.transport.get_extra_info("peercert") or {}
        name = dict(each[0] for each in shown.get("subject", ())).get("commonName", "")
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.callers.append((name, token))
        if token in self.refuses:
            return web.json_response({"kind": "Status", "reason": "Unauthorized", "message": "who?"}, status=401)
        return web.json_response(BODY)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as found:
        yield found


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Server]:
    authority = Authority()
    context = server_context(authority.sign("api"), folder)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=authority.pem)
    found = Server(authority)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    found.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield found
    finally:
        await runner.cleanup()


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def config(server: Server, folder: Path, user: Object, **cluster: Any) -> auth.ClientConfig:
    body = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "ana"}}],
        "clusters": [
            {
                "name": "k",
                "cluster": {
                    "server": server.url,
                    "certificate-authority-data": encoded(server.authority.pem),
                    **cluster,
                },
            }
        ],
        "users": [{"name": "ana", "user": user}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(body))
    return auth.load(path)


def program(folder: Path, text: str, **options: Any) -> Object:
    """A user whose credentials a program gives, which is written here in Python."""
    path = folder / "login"
    path.write_text(f"#!{sys.executable}\nimport json, os, sys, time\n{text}\n")
    path.chmod(0o700)
    return {"exec": {"apiVersion": V1, "command": "./login", "interactiveMode": "Never", **options}}


def answering(status: str) -> str:
    return f"print(json.dumps({{'kind': 'ExecCredential', 'apiVersion': '{V1}', 'status': {status}}}))"


async def ask(found: auth.ClientConfig) -> None:
    async with Client(found, attempts=3, pause=0.001) as client:
        await client.get(CONFIGMAPS, "default", "a")


async def test_a_certificate_of_the_kubeconfig_is_shown(server: Server, tmp_path: Path) -> None:
    pair = server.authority.sign("ana")
    user = {"client-certificate-data": encoded(pair.certificate), "client-key-data": encoded(pair.key)}
    await ask(config(server, tmp_path, user))
    assert server.callers == [("ana", "")]


async def test_the_name_in_the_servers_certificate_may_differ_from_its_host(server: Server, tmp_path: Path) -> None:
    await ask(config(server, tmp_path, {"token": "t"}, **{"tls-server-name": "localhost"}))
    with pytest.raises(Exception, match=r"cannot be reached.*elsewhere"):
        await ask(config(server, tmp_path, {"token": "t"}, **{"tls-server-name": "elsewhere"}))


async def test_a_program_gives_a_token_and_is_told_what_it_needs(server: Server, tmp_path: Path) -> None:
    text = f"""
told = json.loads(os.environ['KUBERNETES_EXEC_INFO'])
assert told['apiVersion'] == '{V1}' and told['spec']['interactive'] is False
assert told['spec']['cluster']['server'] == {server.url!r}
assert sys.argv[1:] == ['a b', '$(touch x)'] and sys.stdin.read() == ''
{answering("{'token': 'of-' + os.environ['WHO'], 'expirationTimestamp': '2999-01-01T00:00:00Z'}")}
"""
    given = {"args": ["a b", "$(touch x)"], "env": [{"name": "WHO", "value": "ana"}], "provideClusterInfo": True}
    await ask(config(server, tmp_path, program(tmp_path, text, **given)))
    assert server.callers == [("", "of-ana")]


async def test_a_program_gives_certificates_one_after_the_other(server: Server, tmp_path: Path) -> None:
    def status(pair: Pair) -> str:
        return repr({"clientCertificateData": pair.certificate, "clientKeyData": pair.key, "token": "t"})

    first, second = (status(server.authority.sign(name)) for name in ("first", "second"))
    text = f"""
again = os.path.exists({str(tmp_path / "ran")!r})
open({str(tmp_path / "ran")!r}, 'w').close()
status = {second} if again else {first}
status['token'] = 'good' if again else 'bad'
{answering("status")}
"""
    server.refuses = {"bad"}
    await ask(config(server, tmp_path, program(tmp_path, text)))
    assert server.callers == [("first", "bad"), ("second", "good")]


async def test_a_server_that_believes_nobody_has_the_program_run_once_more_only(server: Server, tmp_path: Path) -> None:
    server.refuses = {"t"}
    with pytest.raises(ApiError, match=r"who\?"):
        await ask(config(server, tmp_path, program(tmp_path, answering("{'token': 't'}"))))
    assert len(server.callers) == 2


async def test_the_loop_goes_on_while_a_program_thinks(server: Server, tmp_path: Path) -> None:
    go = tmp_path / "go"
    text = f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\n" + answering("{'token': 't'}")
    asking = asyncio.ensure_future(ask(config(server, tmp_path, program(tmp_path, text))))
    await asyncio.sleep(0)
    assert not asking.done()
    go.touch()
    await asking


WRONG = {
    "it fails": ("print('no s3cret, log in', file=sys.stderr); sys.exit(3)", "ended with status 3: no s3cret, log in"),
    "no JSON": ("print('s3cret')", "answered something that is not JSON"),
    "something else": ("print('[]')", "answered something that is no ExecCredential"),
    "another version": (
        "print(json.dumps({'kind': 'ExecCredential', 'apiVersion': 'v2', 'status': {'token': 's3cret'}}))",
        f"answered in another apiVersion than {V1}",
    ),
    "nothing": (answering("None"), "answered no status"),
    "half a pair": (answering("{'clientCertificateData': 's3cret'}"), "must answer status.token, or"),
    "a token that is none": (answering("{'token': 's3cret\\n'}"), "a token with characters that no token has"),
    "a number": (answering("{'token': 5}"), "must answer status.token, or"),
    "an odd time": (answering("{'token': 's3cret', 'expirationTimestamp': 'soon'}"), "is no time as in RFC 3339"),
    "long ago": (answering("{'token': 's3cret', 'expirationTimestamp': '2001-01-01T00:00:00Z'}"), "has expired"),
    "no pair": (answering("{'clientCertificateData': 's3cret', 'clientKeyData': 'b'}"), "cannot be used"),
    "without end": ("while True: sys.stdout.write('s3cret' * 10000)", "answered more than 1048576 bytes"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_what_is_wrong_with_a_program_is_told_without_what_it_gave(
    case: str, server: Server, tmp_path: Path
) -> None:
    text, message = WRONG[case]
    with pytest.raises(UserError, match=message) as caught:
        await ask(config(server, tmp_path, program(tmp_path, text)))
    assert case == "it fails" or "s3cret" not in caught.value.message


async def test_a_program_that_is_missing_is_told_with_how_it_is_installed(server: Server, tmp_path: Path) -> None:
    body = {"apiVersion": V1, "command": "no-such-login", "interactiveMode": "IfAvailable", "installHint": "brew i x"}
    with pytest.raises(UserError, match=r"user 'ana': the program no-such-login.* is not installed\nbrew i x"):
        await ask(config(server, tmp_path, {"exec": body}))
    path = program(tmp_path, "")
    (tmp_path / "login").write_text("#!/no/such/interpreter\n")
    with pytest.raises(UserError, match="cannot be started"):
        await ask(config(server, tmp_path, path))


async def test_a_program_that_must_ask_people_needs_a_terminal(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"interactiveMode: Always.* there is no terminal"):
        await ask(config(server, tmp_path, program(tmp_path, "", interactiveMode="Always")))


async def test_a_program_that_hangs_is_ended_with_what_it_started(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exec_plugin, "_SECONDS", 0.5)
    pid = tmp_path / "pid"
    text = f"pid = os.fork()\nopen({str(pid)!r}, 'a').write(f'{{os.getpid()}} ')\ntime.sleep(60)"
    with pytest.raises(UserError, match=r"did not answer within 0\.5 seconds"):
        await ask(config(server, tmp_path, program(tmp_path, text)))
    for each in pid.read_text().split():
        await gone(int(each))


async def gone(pid: int) -> None:
    """Ended, or a zombie of nobody who looks."""
    await until(lambda: state(pid) in ("", "Z"))


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""

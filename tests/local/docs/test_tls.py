"""The page about TLS does what it says, with `modelyard up`, openssl and real kubectl."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kubectl_testing import kubectl
from network_testing import needs_network, two_machines
from yard_testing import Yard, service, wait_until, write_onnx

PAGE = (Path(__file__).parents[3] / "docs/how-to/tls.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)


def shell(yard: Yard, text: str) -> subprocess.CompletedProcess[str]:
    """Run lines as a person would, with the commands of this environment."""
    path = os.pathsep.join((str(Path(sys.executable).parent), str(Path(kubectl()).parent), os.environ["PATH"]))
    environment = {**os.environ, "PATH": path, "KUBECACHEDIR": str(yard.folder / "cache")}
    environment.pop("KUBECONFIG", None)
    text = text.replace("https://127.0.0.1:8080", yard.url.replace("http:", "https:"))
    return subprocess.run(
        ["bash", "-ec", text],
        cwd=yard.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def said(yard: Yard, text: str) -> str:
    done = shell(yard, text)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def works(yard: Yard, text: str) -> str:
    """What it prints once it works: settings take a moment."""
    return wait_until(lambda: done.stdout if (done := shell(yard, text)).returncode == 0 else "", text)


def address(yard: Yard) -> str:
    found = json.loads((yard.data / "server.json").read_text())["gateway"]
    assert isinstance(found, str)
    return found


def _with_key(key: str) -> str:
    """Another key in the Secret."""
    return (
        "export KUBECONFIG=$(modelyard kubeconfig); kubectl patch secret gateway -n modelyard-system --type=merge -p "
        f'"{{\\"data\\":{{\\"tls.key\\":\\"$(base64 -w0 {key})\\"}}}}"'
    )


@pytest.mark.skipif(not (shutil.which("openssl") and shutil.which("curl")), reason="openssl and curl are not installed")
@pytest.mark.timeout(900)  # the first test may have to build kubectl
def test_a_gateway_gets_a_certificate_and_wants_to_see_one_as_written(tmp_path: Path) -> None:
    write_onnx(tmp_path / "plus.onnx", 1.0)
    make, give, call, renew, ask_for_one, show_one = BLOCKS
    with Yard(tmp_path) as yard:
        yard.apply(service("plus", model={"uri": "plus.onnx"}))
        said(yard, make)
        said(yard, give)
        assert '"ready":true' in works(yard, call)
        secure = yard.url.replace("http:", "https:")
        assert address(yard) == secure
        wait_until(
            lambda: yard.get("modelservice", "plus")["status"]["url"] == f"{secure}/v2/models/plus", "the url in status"
        )
        assert shell(yard, f"curl -sS {yard.url}/v2").returncode != 0, "plain text is refused"
        assert "is not trusted" in yard.cli("predict", "plus", "--data", "[1, 2]", check=False)
        said(yard, renew)
        dates = (
            "openssl s_client -connect {} -servername localhost </dev/null 2>/dev/null | openssl x509 -noout -enddate"
        )
        read = dates.format(secure.removeprefix("https://"))
        made = said(yard, "openssl x509 -in gateway.crt -noout -enddate")
        wait_until(lambda: said(yard, read) == made, "the renewed certificate")
        said(yard, _with_key("authority.key"))
        seen = "kubectl --kubeconfig $(modelyard kubeconfig) get events -n modelyard-system"
        wait_until(
            lambda: "is not the key of tls.crt; what was shown before is still shown" in said(yard, seen), "told"
        )
        assert said(yard, read) == made
        said(yard, _with_key("gateway.key"))
        said(yard, ask_for_one)
        assert "2" in works(yard, show_one)
        wanting = re.compile("wants? (to see )?a certificate of the caller")
        without = ("predict", "plus", "--data", "[1, 2]", "--ca", "authority.crt")
        wait_until(lambda: wanting.search(yard.cli(*without, check=False)), "callers without a certificate are refused")
        patch = """kubectl patch configmap modelyard -n modelyard-system -p '{"data": {"settings.yaml": "{}"}}'"""
        said(yard, f"export KUBECONFIG=$(modelyard kubeconfig); {patch}")
        wait_until(lambda: shell(yard, f"curl -sS {yard.url}/v2").returncode == 0, "plain text again")
        wait_until(lambda: address(yard) == yard.url, "the address that commands use")
        key = (tmp_path / "gateway.key").read_text().splitlines()[1]
        logs = [*yard.data.rglob("*.log*"), tmp_path / "up.log"]
        assert not [path for path in logs if key in path.read_text(errors="replace")]


@needs_network
@pytest.mark.timeout(180)
async def test_other_machines_need_a_token_and_this_one_is_told_what_is_in_plain_text(tmp_path: Path) -> None:
    write_onnx(tmp_path / "plus.onnx", 1.0)
    infer = "/v2/models/plus/infer"
    with two_machines() as network, Yard(tmp_path, "--listen", f"{network.address}:0") as yard:
        yard.apply(
            service("plus", model={"uri": "plus.onnx"}),
            service("own", model={"uri": "plus.onnx"}, visibility="internal"),
        )
        printed = (tmp_path / "up.log").read_text()
        assert re.search(r"^internal +http://127\.0\.0\.1:\d+ \(this machine alone", printed, re.MULTILINE)
        assert re.search(r"^warning +other machines call in plain text", printed, re.MULTILINE)
        port = int(yard.url.rpartition(":")[2])
        status, body, _ = await network.ask(network.address, port, infer)
        assert (status, "a token is needed" in body) == (401, True)
        token = yard.cli("token", "create").splitlines()[0]
        bearing = {"Authorization": f"Bearer {token}"}
        status, body, _ = await network.ask(network.address, port, infer, **bearing)
        assert status not in (401, 403, 404), body
        for name in ("own", "unknown"):
            status, _, _ = await network.ask(network.address, port, f"/v2/models/{name}/infer", **bearing)
            assert status == 403
        for name in ("plus", "own"):
            shown = yard.cli("predict", name, "--data", "[1, 2]")
            assert "called as the owner of this project" in shown
            assert ["2", "3"] in [line.split() for line in shown.splitlines()]

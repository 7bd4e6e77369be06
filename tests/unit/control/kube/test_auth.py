import base64
import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelyard.base.clock import SystemClock
from modelyard.base.errors import UserError
from modelyard.control.apiserver import certificates
from modelyard.control.kube import auth

Object = dict[str, Any]


def kubeconfig(cluster: Object | None = None, user: Object | None = None, context: Object | None = None) -> Object:
    return {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", **(context or {})}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://127.0.0.1:6443/", **(cluster or {})}}],
        "users": [{"name": "u", "user": user if user is not None else {"token": "s3cret"}}],
    }


def written(folder: Path, body: object) -> Path:
    path = folder / "kubeconfig"
    path.write_bytes(body if isinstance(body, bytes) else yaml.safe_dump(body).encode())
    return path


def test_a_context_gives_server_token_and_namespace(tmp_path: Path) -> None:
    config = auth.load(written(tmp_path, kubeconfig(context={"namespace": "team"})))
    assert (config.server, config.bearer(), config.namespace) == ("https://127.0.0.1:6443", "s3cret", "team")
    assert config.tls() is True
    assert auth.load(written(tmp_path, kubeconfig())).namespace == "default"


def test_a_context_may_be_named(tmp_path: Path) -> None:
    body = kubeconfig()
    body["contexts"].append({"name": "other", "context": {"cluster": "k2", "user": "u"}})
    body["clusters"].append({"name": "k2", "cluster": {"server": "http://[::1]:8001"}})
    assert auth.load(written(tmp_path, body), "other").server == "http://[::1]:8001"


def test_files_are_found_beside_the_kubeconfig(tmp_path: Path) -> None:
    certificates.server_context(tmp_path, (), SystemClock())
    (tmp_path / "token").write_text("from a file\n".replace(" ", "-"))
    cluster = {"certificate-authority": certificates.CA_CERTIFICATE}
    config = auth.load(written(tmp_path, kubeconfig(cluster=cluster, user={"tokenFile": "token"})))
    assert config.bearer() == "from-a-file"
    assert isinstance(config.tls(), ssl.SSLContext)


BAD: dict[str, tuple[object, str]] = {
    "nothing": (b"", "is empty"),
    "no mapping": (b"- a", "must be a mapping with clusters, users and contexts"),
    "no yaml": (b"a: [", "is not valid YAML"),
    "binary": (b"\xff\xfe\x00", "is not valid YAML"),
    "no current context": ({**kubeconfig(), "current-context": ""}, "current-context is not set"),
    "no contexts": ({"current-context": "c"}, r"there is no context 'c' \(there are: none\)"),
    "contexts no list": ({"current-context": "c", "contexts": 5}, "contexts must be a list of mappings with name"),
    "a context that is a word": ({"current-context": "c", "contexts": ["c"]}, "contexts must be a list"),
    "context no mapping": (
        {"current-context": "c", "contexts": [{"name": "c", "context": "x"}]},
        "context 'c': context must be a mapping",
    ),
    "no cluster": (kubeconfig(context={"cluster": "x"}), r"there is no cluster 'x' \(there are: k\)"),
    "no user": (kubeconfig(context={"user": None}), r"there is no user None \(there are: u\)"),
    "no server": (kubeconfig(cluster={"server": ""}), "cluster.server must be a URL"),
    "a server without scheme": (kubeconfig(cluster={"server": "127.0.0.1:80"}), "cluster.server must be a URL"),
    "a server with an odd port": (kubeconfig(cluster={"server": "https://a:b"}), "cluster.server must be a URL"),
    "a server that is a number": (kubeconfig(cluster={"server": 6443}), "server must be a string"),
    "authority no base64": (
        kubeconfig(cluster={"certificate-authority-data": "%"}),
        "cluster.certificate-authority-data is no certificate",
    ),
    "authority no certificate": (
        kubeconfig(cluster={"certificate-authority-data": base64.b64encode(b"hello").decode()}),
        "cluster.certificate-authority-data is no certificate",
    ),
    "authority binary": (
        kubeconfig(cluster={"certificate-authority-data": base64.b64encode(b"\xff\xfe").decode()}),
        "cluster.certificate-authority-data is no certificate",
    ),
    "authority missing": (
        kubeconfig(cluster={"certificate-authority": "ca.crt"}),
        "cluster.certificate-authority is no certificate that can be read: .*No such file",
    ),
    "unchecked": (kubeconfig(cluster={"insecure-skip-tls-verify": True}), "insecure-skip-tls-verify is not supported"),
    "a program": (kubeconfig(user={"exec": {"command": "x"}}), "user 'u': exec is not understood yet"),
    "a certificate": (
        kubeconfig(user={"client-certificate-data": "eA=="}),
        "client-certificate-data is not",
    ),
    "a password": (kubeconfig(user={"username": "ana", "password": "x"}), "username is not understood yet"),
    "a token that is a number": (kubeconfig(user={"token": 5}), "token must be a string"),
    "a token with a line end": (kubeconfig(user={"token": "s3cret\n"}), "user 'u': token has characters"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_names_the_file_and_the_field(case: str, tmp_path: Path) -> None:
    body, message = BAD[case]
    path = written(tmp_path, body)
    with pytest.raises(UserError, match=message) as caught:
        auth.load(path)
    assert str(path) in caught.value.message
    assert "s3cret" not in caught.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere cannot be read: No such file"):
        auth.load(tmp_path / "nowhere")

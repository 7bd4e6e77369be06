import base64
import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml

from certificates_testing import Authority
from modelyard.base.clock import SystemClock
from modelyard.base.errors import UserError
from modelyard.control.apiserver import certificates
from modelyard.control.kube import auth, in_cluster
from modelyard.control.kube.tls import KeyPair

Object = dict[str, Any]
V1, V1BETA1 = "client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"


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
    "a proxy": (kubeconfig(cluster={"proxy-url": "http://proxy:3128"}), "'k': proxy-url is not supported; use an addr"),
    "a password": (kubeconfig(user={"username": "ana", "password": "s3cret"}), "'u': username is not supported: Kub"),
    "an auth provider": (kubeconfig(user={"auth-provider": {"name": "gcp"}}), "auth-provider is not .* use the exec"),
    "a certificate without its key": (
        kubeconfig(user={"client-certificate-data": "eA=="}),
        "user 'u': client-key or client-key-data is missing",
    ),
    "a key without its certificate": (
        kubeconfig(user={"client-key-data": "eA=="}),
        "user 'u': client-certificate or client-certificate-data is missing",
    ),
    "a certificate that is none": (
        kubeconfig(user={"client-certificate-data": "eA==", "client-key-data": "eA=="}),
        "user 'u': client-certificate and client-key are no pair that can be used",
    ),
    "a key that is no base64": (
        kubeconfig(user={"client-certificate-data": "eA==", "client-key-data": "%"}),
        "user.client-key-data is no key that can be read",
    ),
    "a certificate that is missing": (
        kubeconfig(user={"client-certificate": "mine.crt", "client-key": "mine.key"}),
        "user.client-certificate is no certificate that can be read: .*No such file",
    ),
    "exec is a word": (kubeconfig(user={"exec": "x"}), "user 'u': exec must be a mapping"),
    "exec of long ago": (
        kubeconfig(user={"exec": {"apiVersion": "client.authentication.k8s.io/v1alpha1", "command": "x"}}),
        "exec.apiVersion must be client.authentication.k8s.io/v1 or .*v1beta1, not '.*v1alpha1'",
    ),
    "exec without a program": (kubeconfig(user={"exec": {"apiVersion": V1BETA1}}), "exec.command is missing"),
    "exec without a mode": (
        kubeconfig(user={"exec": {"apiVersion": V1, "command": "x"}}),
        "exec.interactiveMode must be one of Never, IfAvailable, Always",
    ),
    "exec with odd args": (
        kubeconfig(user={"exec": {"apiVersion": V1BETA1, "command": "x", "args": [1]}}),
        "exec.args must be a list of strings",
    ),
    "exec with odd env": (
        kubeconfig(user={"exec": {"apiVersion": V1BETA1, "command": "x", "env": {"A": "b"}}}),
        "exec.env must be a list of mappings",
    ),
    "groups without a user": (kubeconfig(user={"token": "s3cret", "as-groups": ["a"]}), "'u': as is missing"),
    "somebody on two lines": (kubeconfig(user={"token": "s3cret", "as": "a\nb: c"}), "must be text of one line each"),
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


def test_a_certificate_of_ones_own_is_shown(tmp_path: Path) -> None:
    pair = Authority().sign("ana")
    for name, content in zip(("mine.crt", "mine.key"), pair, strict=True):
        (tmp_path / name).write_text(content)
    files = auth.load(written(tmp_path, kubeconfig(user={"client-certificate": "mine.crt", "client-key": "mine.key"})))
    encoded = [base64.b64encode(each.encode()).decode() for each in pair]
    user = {"client-certificate-data": encoded[0], "client-key-data": encoded[1]}
    data = auth.load(written(tmp_path, kubeconfig(user=user)))
    assert files.shown == data.shown == KeyPair(*(each.encode() for each in pair))
    assert isinstance(data.tls(), ssl.SSLContext)
    assert "PRIVATE" not in repr(data)


def test_a_program_is_found_beside_the_kubeconfig_or_in_the_path(tmp_path: Path) -> None:
    given = {"apiVersion": V1, "interactiveMode": "Never", "args": ["a"], "env": [{"name": "A", "value": "b"}]}
    beside = auth.load(written(tmp_path, kubeconfig(user={"exec": {**given, "command": "./bin/login"}}))).plugin
    assert beside is not None
    assert (beside.command, beside.args, beside.env) == (str(tmp_path / "bin/login"), ("a",), (("A", "b"),))
    assert (beside.mode, beside.cluster) == ("Never", None)
    named = auth.load(written(tmp_path, kubeconfig(user={"exec": {"apiVersion": V1BETA1, "command": "login"}}))).plugin
    assert named is not None
    assert (named.command, named.mode) == ("login", "IfAvailable")


def test_a_program_is_told_about_the_cluster_when_it_asks_for_that(tmp_path: Path) -> None:
    certificates.server_context(tmp_path, (), SystemClock())
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "a"}}
    cluster = {
        "certificate-authority": certificates.CA_CERTIFICATE,
        "tls-server-name": "api",
        "extensions": [{"name": "other"}, extension],
    }
    body = {"apiVersion": V1BETA1, "command": "login", "provideClusterInfo": True}
    config = auth.load(written(tmp_path, kubeconfig(cluster=cluster, user={"exec": body})))
    assert config.server_name == "api"
    assert config.plugin is not None
    assert config.plugin.cluster == {
        "server": "https://127.0.0.1:6443/",
        "tls-server-name": "api",
        "certificate-authority-data": base64.b64encode(config.ca_data or b"").decode(),
        "config": {"audience": "a"},
    }


def test_requests_may_be_made_as_somebody_else(tmp_path: Path) -> None:
    user = {"token": "s3cret", "as": "ana", "as-groups": ["a", "b"], "as-user-extra": {"example.com/x": ["1", "2"]}}
    assert auth.load(written(tmp_path, kubeconfig(user=user))).impersonation == (
        ("Impersonate-User", "ana"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
        ("Impersonate-Extra-example.com%2Fx", "1"),
        ("Impersonate-Extra-example.com%2Fx", "2"),
    )


def test_of_several_files_the_first_that_has_an_entry_counts(tmp_path: Path) -> None:
    paths = [tmp_path / "one", tmp_path / "two"]
    first = kubeconfig(user={"token": "first"})
    first["contexts"] = []
    del first["current-context"]
    second = kubeconfig(cluster={"server": "https://elsewhere"}, user={"token": "second"})
    second["contexts"].append({"name": "other", "context": {"cluster": "k", "user": "v"}})
    second["users"].append({"name": "v", "user": {"tokenFile": "token"}})
    for path, body in zip(paths, (first, second), strict=True):
        path.write_text(yaml.safe_dump(body))
    merged = auth.merged(paths)
    config = merged.config()
    assert (config.server, config.bearer()) == ("https://127.0.0.1:6443", "first")
    assert (merged.path_of("c"), merged.path_of("d")) == (paths[1], None)
    assert merged.config("other").token_file == tmp_path / "token"
    with pytest.raises(UserError, match=rf"{paths[0]}, {paths[1]}: there is no context 'd' \(there are: c, other\)"):
        merged.config("d")


def test_secrets_are_not_shown_by_chance(tmp_path: Path) -> None:
    assert "s3cret" not in repr(auth.load(written(tmp_path, kubeconfig())))


def test_a_pod_finds_its_server_and_account(tmp_path: Path) -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(UserError, match="automountServiceAccountToken: true"):
        in_cluster.config(environ, tmp_path)
    certificates.server_context(tmp_path, (), SystemClock())
    (tmp_path / "namespace").write_text("modelyard-system")
    (tmp_path / "token").write_text("one")
    config = in_cluster.config(environ, tmp_path)
    assert (config.server, config.namespace, config.bearer()) == ("https://[fd00::1]:443", "modelyard-system", "one")
    (tmp_path / "token").write_text("two")
    assert config.bearer() == "two"
    assert in_cluster.config({**environ, "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, tmp_path).server == (
        "https://10.0.0.1:443"
    )
    with pytest.raises(UserError, match="KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set"):
        in_cluster.config({}, tmp_path)
    (tmp_path / "ca.crt").write_text("-")
    with pytest.raises(UserError, match=r"the certificates for https://\[fd00::1\]:443 cannot be used"):
        in_cluster.config(environ, tmp_path)

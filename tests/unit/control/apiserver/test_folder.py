"""The data folder: who may read it, who may use it, and what is renewed."""

import base64
import ssl
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from modelyard.base.clock import ManualClock
from modelyard.base.errors import UserError
from modelyard.control.apiserver import certificates, folder
from modelyard.control.kube import auth

DAY = 86_400


def serial(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


def test_only_the_owner_can_read_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with folder.opened(path) as data:
        data.tls("127.0.0.1", ManualClock())
        data.write_kubeconfig("https://127.0.0.1:1")
        assert path.stat().st_mode & 0o777 == 0o700
        assert {each.name: oct(each.stat().st_mode & 0o777) for each in path.iterdir()} == dict.fromkeys(
            ("lock", "token", "ca.crt", "ca.key", "server.crt", "server.key", "kubeconfig"), "0o600"
        )


def test_a_second_server_is_told_who_uses_the_folder(tmp_path: Path) -> None:
    with folder.opened(tmp_path), pytest.raises(UserError, match=r"another Modelyard server \(process \d+\)"):
        with folder.opened(tmp_path):
            pass
    with folder.opened(tmp_path):
        pass


def test_the_token_stays_the_same(tmp_path: Path) -> None:
    with folder.opened(tmp_path) as data:
        token = data.token
    with folder.opened(tmp_path) as data:
        assert data.token == token
        assert len(token) > 40


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data folder .*file/data cannot be used"):
        with folder.opened(tmp_path / "file" / "data"):
            pass


def test_the_kubeconfig_is_what_clients_read(tmp_path: Path) -> None:
    with folder.opened(tmp_path) as data:
        data.tls("127.0.0.1", ManualClock())
        path = data.write_kubeconfig("https://127.0.0.1:6443")
        config = auth.load(path)
        assert (config.server, config.token, config.namespace) == ("https://127.0.0.1:6443", data.token, "default")
        assert config.ca_data == (tmp_path / certificates.CA_CERTIFICATE).read_bytes()
        body = yaml.safe_load(path.read_text())
        assert body["current-context"] == "modelyard"
        assert base64.b64decode(body["clusters"][0]["cluster"]["certificate-authority-data"]) == config.ca_data


def test_certificates_are_kept_until_they_must_be_renewed(tmp_path: Path) -> None:
    clock = ManualClock()
    certificates.server_context(tmp_path, ("127.0.0.1",), clock)
    first, authority = serial(tmp_path / "server.crt"), serial(tmp_path / "ca.crt")
    certificates.server_context(tmp_path, (), clock)
    assert serial(tmp_path / "server.crt") == first
    clock.advance(340 * DAY)
    certificates.server_context(tmp_path, (), clock)
    second = serial(tmp_path / "server.crt")
    assert second != first
    certificates.server_context(tmp_path, ("example.test", "192.0.2.1"), clock)
    assert serial(tmp_path / "server.crt") != second
    assert serial(tmp_path / "ca.crt") == authority
    clock.advance(3650 * DAY)
    certificates.server_context(tmp_path, (), clock)
    assert serial(tmp_path / "ca.crt") != authority


def test_a_certificate_names_every_way_to_this_machine(tmp_path: Path) -> None:
    certificates.server_context(tmp_path, ("example.test", "192.0.2.1"), ManualClock())
    certificate = x509.load_pem_x509_certificate((tmp_path / "server.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"localhost", "example.test"}
    assert {str(each) for each in names.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "::1", "192.0.2.1"}
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes()))


def test_a_certificate_whose_key_was_lost_is_made_again(tmp_path: Path) -> None:
    certificates.server_context(tmp_path, (), ManualClock())
    (tmp_path / "server.key").unlink()
    assert isinstance(certificates.server_context(tmp_path, (), ManualClock()), ssl.SSLContext)


def test_damaged_certificates_are_named_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("nonsense")
    (tmp_path / "ca.key").write_text("nonsense")
    with pytest.raises(UserError, match=r"remove ca\.crt"):
        certificates.server_context(tmp_path, (), ManualClock())

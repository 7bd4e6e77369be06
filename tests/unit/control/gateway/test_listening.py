"""Who connects."""

import pytest

from modelyard.control.gateway import listening
from modelyard.control.gateway.listening import Identity, MutualTls

ALL = {"transport_security_type": [b"ssl"], "x509_subject_alternative_name": [b"gateway.modelyard"]}


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.5:43211", "10.0.0.5"),
        ("ipv6:%5B2001:db8::1%5D:80", "2001:db8::1"),
        ("ipv6:[::1]:80", "::1"),
        ("unix:", ""),
        ("unix:/tmp/x.sock", ""),
        ("ipv4:example.com:80", ""),
        ("", ""),
    ],
)
def test_the_address_of_a_peer_is_found(peer: str, host: str) -> None:
    assert listening.peer_host(peer) == host


class Context:
    def __init__(self, **found: list[bytes]) -> None:
        self._found = found

    def auth_context(self) -> dict[str, list[bytes]]:
        return self._found


@pytest.mark.parametrize("lacking", [None, *ALL])
def test_a_certificate_for_one_name_is_demanded(lacking: str | None) -> None:
    way = MutualTls("0.0.0.0", 0, lambda: Identity("", "", ""), "gateway.modelyard")
    assert way.admits(Context(**{key: value for key, value in ALL.items() if key != lacking})) == (lacking is None)


def test_an_identity_tells_no_key() -> None:
    assert "secret" not in repr(Identity("a", "secret", "b")) + str({1: Identity("a", "secret", "b")})

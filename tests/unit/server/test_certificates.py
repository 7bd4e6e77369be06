"""Certificates that are made are believed by the other side, at every step of a change of authorities."""

import ssl
from pathlib import Path

import pytest

from modelyard.control.plan.certificates import AUTHORITY_SECONDS, DAY, LEAF_SECONDS, OVERLAP_SECONDS
from modelyard.server import certificates
from modelyard.server.certificates import Kept, Pair

NOW = 1_800_000_000.0
NAMES = ("modelyard-xds.modelyard-system.svc", "operator.modelyard")


def begun() -> Kept:
    return certificates.advanced(Kept(), NOW)


def leaf(kept: Kept, names: tuple[str, ...] = NAMES, now: float = NOW) -> Pair:
    assert kept.current is not None
    return certificates.issue(kept.current, names, now)


def agree(folder: Path, server: Pair, client: Pair, trusted: tuple[bytes, bytes], name: str = NAMES[0]) -> None:
    """A handshake in memory. trusted: by the server, by the client. Raises SSLError."""
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for number, (context, pair, authority) in enumerate(((ours, server, trusted[0]), (theirs, client, trusted[1]))):
        file = folder / f"{number}.pem"
        file.write_bytes(pair.certificate + pair.key)
        context.load_cert_chain(file)
        context.load_verify_locations(cadata=authority.decode())
        context.verify_mode = ssl.CERT_REQUIRED
        # The certificates are of a time to come.
        context.verify_flags |= ssl.VerifyFlags(0x200000)  # X509_V_FLAG_NO_CHECK_TIME
    one, two = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        ours.wrap_bio(one, two, server_side=True),
        theirs.wrap_bio(two, one, server_hostname=name),
    ]
    waiting = set(sides)
    for _ in range(10):
        for side in tuple(waiting):
            try:
                side.do_handshake()
                waiting.discard(side)
            except ssl.SSLWantReadError:
                pass
        if not waiting:
            return
    raise AssertionError("no end")


def test_both_sides_believe_each_other(tmp_path: Path) -> None:
    kept = begun()
    agree(tmp_path, leaf(kept), leaf(kept, ("gateway.modelyard",)), (kept.bundle, kept.bundle))
    agree(tmp_path, leaf(kept), leaf(kept), (kept.bundle, kept.bundle), name="operator.modelyard")


def test_strangers_are_not_believed(tmp_path: Path) -> None:
    kept, other = begun(), begun()
    with pytest.raises(ssl.SSLError, match=r"unable to get local issuer|unknown ca|certificate verify failed"):
        agree(tmp_path, leaf(kept), leaf(other), (kept.bundle, kept.bundle))
    with pytest.raises(ssl.SSLError, match="Hostname mismatch"):
        agree(tmp_path, leaf(kept), leaf(kept), (kept.bundle, kept.bundle), name="elsewhere")


def test_a_change_of_authorities_is_believed_on_the_way(tmp_path: Path) -> None:
    first = begun()
    due = NOW + AUTHORITY_SECONDS * 2 / 3
    prepared = certificates.advanced(first, due)
    assert prepared.current == first.current
    assert prepared.bundle.count(b"BEGIN CERTIFICATE") == 2
    switched = certificates.advanced(prepared, due + OVERLAP_SECONDS)
    assert (switched.current, switched.next) == (prepared.next, None)
    old, new = leaf(prepared, now=due), leaf(switched, now=due + OVERLAP_SECONDS)
    agree(tmp_path, new, old, (switched.bundle, prepared.bundle))  # the operator knows, the gateway does not yet
    done = certificates.advanced(switched, due + 2 * OVERLAP_SECONDS)
    assert done.bundle == (done.current or new).certificate
    with pytest.raises(ssl.SSLError):
        agree(tmp_path, new, old, (done.bundle, done.bundle))


def test_what_is_kept_is_read_again() -> None:
    prepared = certificates.advanced(begun(), NOW + AUTHORITY_SECONDS * 2 / 3)
    switched = certificates.advanced(prepared, NOW + AUTHORITY_SECONDS * 2 / 3 + OVERLAP_SECONDS)
    for kept in (Kept(), begun(), prepared, switched):
        assert certificates.read(certificates.data(kept)) == kept


@pytest.mark.parametrize("field", ["ca.crt", "ca.key"])
@pytest.mark.parametrize("content", [b"", b"\xff", b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"])
def test_an_authority_that_cannot_be_used_is_made_anew(field: str, content: bytes) -> None:
    data = {**certificates.data(begun()), field: content, "switched": b"soon", "former.crt": b"x"}
    kept = certificates.read(data)
    assert kept == Kept()
    assert certificates.advanced(kept, NOW).current is not None


def test_a_key_of_another_certificate_is_no_pair() -> None:
    one, two = leaf(begun()), leaf(begun())
    assert certificates.fits(one)
    assert not certificates.fits(Pair(certificate=one.certificate, key=two.key))
    assert "PRIVATE" not in repr(one)


def test_the_life_of_a_leaf_is_what_it_says() -> None:
    kept = begun()
    assert kept.current is not None
    found = certificates.life(leaf(kept).certificate, [kept.current.certificate])
    assert found is not None
    assert kept.lives.current is not None
    assert (found.names, found.issuer) == (NAMES, kept.lives.current.id)
    assert found.ends - NOW == LEAF_SECONDS == 90 * DAY
    assert certificates.life(leaf(kept).certificate, [leaf(begun()).certificate]) != found
    assert certificates.life(b"-") is None

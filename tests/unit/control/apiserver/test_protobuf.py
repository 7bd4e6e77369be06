"""Bodies that kubectl sends as Kubernetes protobuf."""

import base64
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.control.apiserver import protobuf
from modelyard.control.apiserver.protobuf_kinds import KINDS
from modelyard.control.apiserver.status import StatusError


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: bytes | int | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def envelope(kind: str, raw: bytes, version: str = "v1") -> bytes:
    return b"k8s\x00" + field(1, field(1, version) + field(2, kind)) + field(2, raw) + field(3, "") + field(4, "")


def test_a_secret_is_read() -> None:
    metadata = field(1, "s") + field(2, "") + field(3, "n") + field(8, b"") + field(11, field(1, "a") + field(2, "b"))
    raw = field(1, metadata) + field(2, field(1, "k") + field(2, b"\x00\xff")) + field(3, "Opaque") + field(5, 1)
    assert protobuf.decode(envelope("Secret", raw)) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "namespace": "n", "labels": {"a": "b"}},
        "data": {"k": base64.b64encode(b"\x00\xff").decode()},
        "type": "Opaque",
        "immutable": True,
    }


def test_a_config_map_and_a_namespace_are_read() -> None:
    raw = field(1, field(1, "c")) + field(2, field(1, "k") + field(2, "v")) + field(3, field(1, "b") + field(2, b"x"))
    found = protobuf.decode(envelope("ConfigMap", raw))
    assert (found["data"], found["binaryData"]) == ({"k": "v"}, {"b": "eA=="})
    raw = field(1, field(1, "n") + field(14, "f/x") + field(8, field(1, 86400))) + field(2, b"") + field(3, b"")
    found = protobuf.decode(envelope("Namespace", raw))
    assert found["metadata"] == {"name": "n", "finalizers": ["f/x"], "creationTimestamp": "1970-01-02T00:00:00Z"}
    assert "spec" not in found


def test_owner_references_are_read() -> None:
    owner = field(1, "K") + field(3, "o") + field(4, "u") + field(5, "v1") + field(6, 1)
    found = protobuf.decode(envelope("ConfigMap", field(1, field(1, "c") + field(13, owner))))
    assert found["metadata"]["ownerReferences"] == [
        {"kind": "K", "name": "o", "uid": "u", "apiVersion": "v1", "controller": True}
    ]


RBAC = "rbac.authorization.k8s.io/v1"
AUTHORIZATION = "authorization.k8s.io/v1"
AUTHENTICATION = "authentication.k8s.io/v1"


def test_roles_and_bindings_are_read() -> None:
    rule = field(1, "get") + field(1, "list") + field(2, "") + field(3, "secrets") + field(4, "s") + field(5, "/x")
    found = protobuf.decode(envelope("Role", field(1, field(1, "r")) + field(2, rule) + field(2, field(1, "*")), RBAC))
    assert found["rules"] == [
        {
            "verbs": ["get", "list"],
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["s"],
            "nonResourceURLs": ["/x"],
        },
        {"verbs": ["*"]},
    ]
    subject = field(1, "ServiceAccount") + field(2, "") + field(3, "ana") + field(4, "default")
    reference = field(1, "g") + field(2, "Role") + field(3, "r")
    raw = field(1, field(1, "b")) + field(2, subject) + field(3, reference)
    for kind in ("RoleBinding", "ClusterRoleBinding"):
        found = protobuf.decode(envelope(kind, raw, RBAC))
        assert found["subjects"] == [{"kind": "ServiceAccount", "name": "ana", "namespace": "default"}]
        assert found["roleRef"] == {"apiGroup": "g", "kind": "Role", "name": "r"}
    labels = field(1, field(1, "a") + field(2, "b"))
    found = protobuf.decode(envelope("ClusterRole", field(3, field(1, labels)), RBAC))
    assert found["aggregationRule"] == {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}


def test_questions_are_read() -> None:
    resource = b"".join(field(number, f"v{number}") for number in range(1, 8))
    raw = field(2, field(1, resource) + field(3, "ana") + field(4, "g") + field(4, "h") + field(6, "u"))
    attributes = {
        "namespace": "v1",
        "verb": "v2",
        "group": "v3",
        "version": "v4",
        "resource": "v5",
        "subresource": "v6",
        "name": "v7",
    }
    for kind in ("SubjectAccessReview", "LocalSubjectAccessReview"):
        found = protobuf.decode(envelope(kind, raw, AUTHORIZATION))
        assert found["spec"] == {"resourceAttributes": attributes, "user": "ana", "groups": ["g", "h"], "uid": "u"}
    raw = field(2, field(2, field(1, "/x") + field(2, "get")))
    found = protobuf.decode(envelope("SelfSubjectAccessReview", raw, AUTHORIZATION))
    assert found["spec"] == {"nonResourceAttributes": {"path": "/x", "verb": "get"}}
    found = protobuf.decode(envelope("SelfSubjectRulesReview", field(2, field(1, "n")), AUTHORIZATION))
    assert found["spec"] == {"namespace": "n"}
    found = protobuf.decode(envelope("SelfSubjectReview", b"", AUTHENTICATION))
    assert found == {"apiVersion": AUTHENTICATION, "kind": "SelfSubjectReview", "metadata": {}}


def test_requests_for_tokens_and_accounts_are_read() -> None:
    bound = field(1, "Secret") + field(2, "v1") + field(3, "s") + field(4, "u")
    raw = field(2, field(1, "a") + field(1, "b") + field(3, bound) + field(4, 600))
    assert protobuf.decode(envelope("TokenRequest", raw, AUTHENTICATION))["spec"] == {
        "audiences": ["a", "b"],
        "boundObjectRef": {"kind": "Secret", "apiVersion": "v1", "name": "s", "uid": "u"},
        "expirationSeconds": 600,
    }
    raw = field(1, field(1, "s")) + field(2, field(3, "x")) + field(3, field(1, "y")) + field(4, 1)
    found = protobuf.decode(envelope("ServiceAccount", raw))
    assert (found["secrets"], found["imagePullSecrets"]) == ([{"name": "x"}], [{"name": "y"}])
    assert found["automountServiceAccountToken"] is True


def test_other_kinds_must_be_sent_as_json() -> None:
    for data in (envelope("Pod", b""), envelope("Secret", b"", "v2"), envelope("Role", b"")):
        with pytest.raises(StatusError) as caught:
            protobuf.decode(data)
        assert caught.value.code == 415
        assert "application/json" in caught.value.message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"k8s\x00\x0a\xff\xff\xff\xff\x7f",
        b"k8s\x00" + b"\xff" * 12,
        envelope("Secret", field(1, 5)),
        envelope("Secret", field(5, "x")),
        envelope("Secret", field(1, field(1, b"\xff"))),
        envelope("Secret", field(1, field(8, field(1, 2**62)))),
        b"k8s\x00\x0b",
    ],
)
def test_damaged_bytes_are_a_bad_request(data: bytes) -> None:
    with pytest.raises(StatusError) as caught:
        protobuf.decode(data)
    assert caught.value.code == 400


def outcome(read: Callable[[], object]) -> object:
    """What was read, or the code of the refusal."""
    try:
        return read()
    except StatusError as error:
        return error.code


@given(st.binary(max_size=200), st.sampled_from([*KINDS, ("v1", "")]), st.integers(1, 6), st.integers(1, 6))
def test_arbitrary_bytes_are_read_or_refused(data: bytes, named: tuple[str, str], outer: int, inner: int) -> None:
    version, kind = named
    raws = (data, field(outer, data), field(outer, field(inner, data)), field(outer, field(inner, field(1, data))))
    for each in (data, b"k8s\x00" + data, *(envelope(kind, raw, version) for raw in raws)):
        found = outcome(partial(protobuf.decode, each))
        assert found in (400, 415) or (isinstance(found, dict) and found["kind"] == kind)

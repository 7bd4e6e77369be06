"""How the clouds are asked for the identity of an account. They are played by a server that answers as documented; the
token service of AWS is a real one in `tests/local/runtime/test_fetch_identity.py`."""

import json
import threading
from collections.abc import Iterator, Mapping
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from modelyard.base.conditions import Reason
from modelyard.storage import identity as identities
from modelyard.storage import stores
from modelyard.storage.errors import StoreRefused, StoreUnavailable
from modelyard.storage.stores import Store

GIVES = {
    "/computeMetadata/v1/instance/service-accounts/default/token": {"access_token": "g00gle", "expires_in": 3600},
    "/tenant/oauth2/v2.0/token": {"access_token": "4zure", "expires_in": 3600, "token_type": "Bearer"},
    "/v1/credentials": {
        "AccessKeyId": "ASIA1",
        "SecretAccessKey": "s3cret",
        "Token": "sess10n",
        "Expiration": "2036-01-01T00:00:00Z",
    },
}


class Cloud(ThreadingHTTPServer):
    """asked: path -> headers in lower case, and the body. refuses: status and body for who asks for an identity."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.refuses: tuple[int, str] | None = None
        self.asked: dict[str, tuple[Mapping[str, str], str]] = {}

    def answer(self, path: str) -> tuple[int, str]:
        if path in GIVES:
            return self.refuses or (200, json.dumps(GIVES[path]))
        return 200, "<Listing><IsTruncated>false</IsTruncated><Blobs></Blobs></Listing>"


class _Request(BaseHTTPRequestHandler):
    server: Cloud

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.server.asked[path] = {name.lower(): value for name, value in self.headers.items()}, body
        status, text = self.server.answer(path)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    do_POST = do_GET  # noqa: N815  of the base class

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setattr(stores, "_RETRY", {**stores._RETRY, "retry_timeout": timedelta(seconds=0.3)})
    found = Cloud()
    for name in ("GCE_METADATA_HOST", "GCE_METADATA_IP"):
        monkeypatch.setenv(name, found.url.removeprefix("http://"))
    thread = threading.Thread(target=found.serve_forever, args=(0.02,))
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


def store(cloud: Cloud, scheme: str, folder: Path, **others: str) -> Store:
    """As a process in a pod of the account `reader` opens it."""
    (folder / "token").write_text("t0ken")
    variables = {
        "gs": {},
        "az": {
            "AZURE_CLIENT_ID": "client",
            "AZURE_TENANT_ID": "tenant",
            "AZURE_FEDERATED_TOKEN_FILE": str(folder / "token"),
            "AZURE_AUTHORITY_HOST": cloud.url,
        },
        "s3": {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{cloud.url}/v1/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(folder / "token"),
        },
    }[scheme]
    secret = {
        "gs": {"GOOGLE_ENDPOINT_URL": cloud.url},
        "az": {"AZURE_STORAGE_ACCOUNT_NAME": "lake", "AZURE_STORAGE_ENDPOINT": cloud.url},
        "s3": {"AWS_ENDPOINT_URL": cloud.url},
    }[scheme]
    identity = identities.of("reader", {**variables, **others})
    return Store.open(f"{scheme}://bucket/x", credentials=secret, identity=identity)


def headers(cloud: Cloud, path: str) -> Mapping[str, str]:
    return cloud.asked[path][0]


async def listed(found: Store) -> None:
    assert await found.list() == ()


async def test_google_is_asked_at_its_metadata_server(cloud: Cloud, tmp_path: Path) -> None:
    await listed(store(cloud, "gs", tmp_path))
    assert headers(cloud, "/computeMetadata/v1/instance/service-accounts/default/token")["metadata-flavor"] == "Google"
    assert headers(cloud, "/bucket")["authorization"] == "Bearer g00gle"


async def test_azure_gets_the_token_of_the_account_for_one_of_its_own(cloud: Cloud, tmp_path: Path) -> None:
    await listed(store(cloud, "az", tmp_path))
    sent = parse_qs(cloud.asked["/tenant/oauth2/v2.0/token"][1])
    assert (sent["client_id"], sent["client_assertion"]) == (["client"], ["t0ken"])
    assert headers(cloud, "/bucket")["authorization"] == "Bearer 4zure"


async def test_the_agent_of_eks_gets_the_token_of_the_account_for_keys(cloud: Cloud, tmp_path: Path) -> None:
    await listed(store(cloud, "s3", tmp_path, AWS_REGION="eu-west-1"))
    assert headers(cloud, "/v1/credentials")["authorization"] == "t0ken"
    signed = headers(cloud, "/bucket")
    assert signed["x-amz-security-token"] == "sess10n"
    assert "/eu-west-1/s3/" in signed["authorization"]


REFUSALS: list[tuple[str, int, str, str]] = [
    ("gs", 404, "no such account", "status 404; bind the account"),
    (
        "az",
        401,
        '{"error_description":"AADSTS700213: No matching federated identity"}',
        "status 401 AADSTS700213; ",
    ),
    ("s3", 403, "<Error><Code>AccessDenied</Code></Error>", "status 403 AccessDenied; annotate the account"),
]


@pytest.mark.parametrize(("scheme", "status", "body", "said"), REFUSALS)
async def test_a_cloud_that_gives_no_identity_is_told_with_the_account_and_the_next_step(
    cloud: Cloud, tmp_path: Path, scheme: str, status: int, body: str, said: str
) -> None:
    cloud.refuses = status, body
    with pytest.raises(StoreRefused) as caught:
        await store(cloud, scheme, tmp_path).list()
    assert caught.value.reason == Reason.ACCESS_DENIED
    assert "ServiceAccount reader is not given its cloud identity: " + said in caught.value.message
    assert "t0ken" not in caught.value.message


async def test_a_metadata_server_that_is_not_there_is_told_and_tried_again(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GCE_METADATA_HOST", "GCE_METADATA_IP"):
        monkeypatch.setenv(name, "127.0.0.1:1")
    with pytest.raises(StoreUnavailable, match=r"reader is not given its cloud identity: .*; it is tried again"):
        await store(cloud, "gs", tmp_path).list()


async def test_a_token_that_is_not_mounted_yet_is_waited_for(cloud: Cloud, tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    for scheme, name in (("az", "AZURE_FEDERATED_TOKEN_FILE"), ("s3", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")):
        with pytest.raises(StoreUnavailable, match="ServiceAccount reader is not given"):
            await store(cloud, scheme, tmp_path, **{name: missing}).list()


async def test_keys_of_a_secret_count_before_an_identity(cloud: Cloud, tmp_path: Path) -> None:
    identity = identities.of("reader", {})
    keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "t0psecret", "AWS_ENDPOINT_URL": cloud.url}
    await listed(Store.open("s3://bucket/x", credentials=keys, identity=identity))
    assert "Credential=id/" in headers(cloud, "/bucket")["authorization"]


@pytest.mark.parametrize("scheme", ["s3", "az"])
async def test_an_account_without_an_identity_reads_as_anybody_and_no_machine_is_asked(
    cloud: Cloud, tmp_path: Path, scheme: str
) -> None:
    names = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AZURE_CLIENT_ID")
    await listed(store(cloud, scheme, tmp_path, **dict.fromkeys(names, "")))
    assert list(cloud.asked) == ["/bucket"]
    assert "authorization" not in headers(cloud, "/bucket")


WRONG: list[dict[str, Any]] = [
    {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://elsewhere.example/v1/credentials"},
    {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "ftp://127.0.0.1/"},
    {"AWS_REGION": "eu west\n1"},
]


@pytest.mark.parametrize("wrong", WRONG)
def test_variables_that_cannot_be_right_are_refused_by_name(
    cloud: Cloud, tmp_path: Path, wrong: dict[str, str]
) -> None:
    with pytest.raises(StoreRefused, match=next(iter(wrong))):
        store(cloud, "s3", tmp_path, **wrong)
    assert cloud.asked == {}

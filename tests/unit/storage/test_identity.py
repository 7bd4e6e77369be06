"""What an account has in its pod, in the words of obstore."""

import pytest

from modelyard.base.conditions import Reason
from modelyard.storage import credentials
from modelyard.storage import identity as identities
from modelyard.storage.errors import StoreRefused

ROLE = {"AWS_ROLE_ARN": "arn:aws:iam::1:role/r", "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token"}
AGENT = {
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/var/run/token",
}
AZURE = {"AZURE_CLIENT_ID": "c", "AZURE_TENANT_ID": "t", "AZURE_FEDERATED_TOKEN_FILE": "/var/run/token"}


def options(scheme: str, variables: dict[str, str], account: str = "reader") -> dict[str, str] | None:
    found = identities.of(account, variables)
    assert found is not None
    return found.options(scheme)


def test_without_an_account_there_is_no_identity() -> None:
    assert identities.of("", {**ROLE, **AGENT, **AZURE}) is None


def test_a_role_is_taken_before_an_agent_and_named_after_the_account() -> None:
    found = options("s3", {**AGENT, **ROLE, "AWS_DEFAULT_REGION": "eu-1", "AWS_REGION": "eu-2"}, "team.reader" * 9)
    assert found == {
        "role_arn": "arn:aws:iam::1:role/r",
        "web_identity_token_file": "/var/run/token",
        "role_session_name": ("modelyard-" + "team.reader" * 9)[:64],
        "region": "eu-2",
    }


@pytest.mark.parametrize(("scheme", "all_of"), [("s3", ROLE), ("s3", AGENT), ("az", AZURE)])
def test_half_an_identity_is_none(scheme: str, all_of: dict[str, str]) -> None:
    assert options(scheme, all_of)
    for name in all_of:
        assert options(scheme, {**all_of, name: ""}) is None


@pytest.mark.parametrize("address", ["http://[fd00:ec2::23]/v1/credentials", "https://agent.example/v1/credentials"])
def test_an_agent_is_on_this_machine_or_behind_tls(address: str) -> None:
    assert options("s3", {**AGENT, "AWS_CONTAINER_CREDENTIALS_FULL_URI": address})


@pytest.mark.parametrize(
    "address", ["http://169.254.170.23.example/", "http://169.254.169.254/", "file:///x", "http://["]
)
def test_an_agent_elsewhere_gets_no_token(address: str) -> None:
    with pytest.raises(StoreRefused, match="AWS_CONTAINER_CREDENTIALS_FULL_URI") as caught:
        options("s3", {**AGENT, "AWS_CONTAINER_CREDENTIALS_FULL_URI": address})
    assert caught.value.reason == Reason.INVALID


def test_what_a_secret_says_beside_an_identity_counts_before_the_pod() -> None:
    identity = identities.of("reader", {**ROLE, "AWS_REGION": "eu-1"})
    found = credentials.options("s3", {"AWS_REGION": "eu-2"}, identity)
    assert (found["region"], found["role_arn"], "skip_signature" in found) == ("eu-2", ROLE["AWS_ROLE_ARN"], False)


def test_keys_leave_no_room_for_an_identity() -> None:
    keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
    assert "role_arn" not in credentials.options("s3", keys, identities.of("reader", ROLE))
    assert credentials.signs("s3", keys)
    assert not credentials.signs("az", {"AZURE_STORAGE_ACCOUNT_NAME": "lake"})


def test_a_token_service_is_asked_with_tls_alone() -> None:
    with pytest.raises(StoreRefused, match="AWS_ENDPOINT_URL_STS in the Secret is no endpoint; expected https://HOST"):
        credentials.options("s3", {"AWS_ENDPOINT_URL_STS": "http://sts.example"}, identities.of("reader", ROLE))


def test_no_step_repeats_what_a_token_or_a_role_is() -> None:
    identity = identities.of("reader", {**ROLE, **AZURE})
    assert identity is not None
    for scheme in ("s3", "az", "gs"):
        told = identity.next_step(scheme) + identity.binding(scheme)
        assert "ServiceAccount reader" in told
        assert not [value for value in (*ROLE.values(), *AZURE.values()) if len(value) > 1 and value in told]

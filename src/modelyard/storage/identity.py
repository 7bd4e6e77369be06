"""The cloud identity of a pod's ServiceAccount, for stores whose Secret holds no key that signs.

Used is what the cluster gives to the account alone: the token that a webhook mounts for it, or Google's metadata
server, which answers for the account of the pod that asks. That of a machine, at the metadata services of AWS and
Azure, is never asked for. Variables are those of each cloud's own tools. Sources: AWS, "IAM roles for service accounts"
and "EKS Pod Identity"; Azure, "Workload identity federation"; Google, "Workload Identity Federation for GKE".
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from modelyard.base.conditions import Reason
from modelyard.storage.errors import StoreRefused

_ROLE = {
    "AWS_ROLE_ARN": "role_arn",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "web_identity_token_file",
}
_AGENT = {
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "container_credentials_full_uri",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "container_authorization_token_file",
}
_AZURE = {
    "AZURE_CLIENT_ID": "client_id",
    "AZURE_TENANT_ID": "tenant_id",
    "AZURE_FEDERATED_TOKEN_FILE": "federated_token_file",
}
_BINDING = {
    "s3": "annotate the account with eks.amazonaws.com/role-arn, or make a pod identity association for it",
    "az": "annotate the account with azure.workload.identity/client-id",
    "gs": "bind the account to Google's IAM on a cluster with workload identity",
}
_AGENTS = frozenset({"169.254.170.2", "169.254.170.23", "fd00:ec2::23", "localhost", "127.0.0.1", "::1"})
"""Hosts that credentials may come from in plain text. Source: AWS SDKs, "Container credential provider"."""
_TEXT = re.compile(r"[!-~]{1,2048}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """account: the ServiceAccount of this pod. variables: of the environment of this process."""

    account: str
    variables: Mapping[str, str]

    def options(self, scheme: str) -> dict[str, str] | None:
        """What obstore needs to act as the account; None: the account has no identity for such stores here.

        Raises StoreRefused for variables that cannot be right.
        """
        if scheme == "gs":
            return {}  # without keys it asks the metadata server
        if scheme == "az":
            found = self._all(_AZURE)
            return found and {**found, **self._some({"AZURE_AUTHORITY_HOST": "authority_host"})}
        found = (self._all(_ROLE) or self._all(_AGENT)) if scheme == "s3" else None
        if found is None:
            return None
        if "role_arn" in found:
            found["role_session_name"] = f"modelyard-{self.account}"[:64]
        elif not _is_near(found["container_credentials_full_uri"]):
            raise StoreRefused(
                Reason.INVALID,
                "AWS_CONTAINER_CREDENTIALS_FULL_URI leads elsewhere without TLS; expected the address of the agent of "
                "this machine, such as http://169.254.170.23/v1/credentials",
            )
        sts = self._some({"AWS_ENDPOINT_URL_STS": "endpoint_url_sts"})
        return {**self._some({"AWS_DEFAULT_REGION": "region"}), **self._some({"AWS_REGION": "region"}), **sts, **found}

    def next_step(self, scheme: str) -> str:
        """For whom the store denies access."""
        if self.options(scheme) is not None:
            return (
                f"give the cloud identity of ServiceAccount {self.account} the right to do that, or name a Secret with "
                "keys in credentials"
            )
        return (
            f"ServiceAccount {self.account} has no cloud identity in this pod: {_BINDING[scheme]}, or name a Secret "
            "with the right keys in credentials"
        )

    def binding(self, scheme: str) -> str:
        """For whom the cloud does not give the identity."""
        return f"{_BINDING[scheme]}, or name a Secret with keys in credentials"

    def _all(self, names: Mapping[str, str]) -> dict[str, str] | None:
        found = self._some(names)
        return found if len(found) == len(names) else None

    def _some(self, names: Mapping[str, str]) -> dict[str, str]:
        """obstore puts values into headers and addresses, and panics where that cannot be."""
        found = {option: self.variables[name] for name, option in names.items() if self.variables.get(name)}
        wrong = [name for name, option in names.items() if option in found and not _TEXT.fullmatch(found[option])]
        if wrong:
            raise StoreRefused(
                Reason.INVALID, f"{wrong[0]} of this pod has spaces, line breaks or letters beyond ASCII; correct it"
            )
        return found


def of(account: str, variables: Mapping[str, str]) -> Identity | None:
    """account: "" where processes use no identity, as on one machine."""
    return Identity(account=account, variables=variables) if account else None


def _is_near(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _AGENTS)
    except ValueError:
        return False

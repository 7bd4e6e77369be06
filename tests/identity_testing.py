"""A cloud whose stores believe in ServiceAccounts: a real S3 server with a token service, and an issuer of tokens."""

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from certificates_testing import Authority
from s3_testing import S3, free_ports
from tokens_testing import signed, signer

AUDIENCE = "sts.amazonaws.com"
ROLE = "arn:aws:iam::role/reader"
_SIGNER = signer("RS256", "cluster")


def _policies(trusted: str) -> dict[str, Any]:
    """The role reads models and writes below results; only one account may take it."""

    def policy(statement: dict[str, Any]) -> dict[str, Any]:
        return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]}

    models = ["arn:aws:s3:::models", "arn:aws:s3:::models/*"]
    reading = policy({"Action": ["s3:GetObject", "s3:ListBucket"], "Resource": models})
    writing = policy({"Action": ["s3:PutObject", "s3:DeleteObject"], "Resource": ["arn:aws:s3:::models/results/*"]})
    return {
        "policy": {"defaultEffect": "Deny", "storeType": "memory"},
        "roles": [
            {
                "roleName": "reader",
                "roleArn": ROLE,
                "trustPolicy": policy(
                    {
                        "Principal": {"Federated": "cluster"},
                        "Action": ["sts:AssumeRoleWithWebIdentity"],
                        "Condition": {"StringEquals": {"oidc:sub": trusted}},
                    }
                ),
                "attachedPolicies": ["models", "results"],
            }
        ],
        "policies": [{"name": "models", "document": reading}, {"name": "results", "document": writing}],
    }


class Cloud:
    """account: `namespace:name` of the one that may read the bucket `models`, and write below `results/` there."""

    def __init__(self, folder: Path, account: str = "team:reader") -> None:
        self.folder = folder
        self._issuer = ThreadingHTTPServer(("127.0.0.1", 0), _Keys)
        self._url = f"http://127.0.0.1:{self._issuer.server_port}"
        port = free_ports(1)[0]
        self.endpoint = f"https://localhost:{port}"
        self._authority = Authority()
        pair = self._authority.sign("localhost")
        for name, text in (("ca", self._authority.pem), ("cert", pair.certificate), ("key", pair.key)):
            (folder / f"{name}.pem").write_text(text)
        (folder / "iam.json").write_text(json.dumps(self._settings(account)))
        more = (
            f"-s3.iam.config={folder}/iam.json",
            f"-s3.port.https={port}",
            f"-s3.cert.file={folder}/cert.pem",
            f"-s3.key.file={folder}/key.pem",
        )
        self.s3 = S3(folder / "weed", more=more)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._issuer.serve_forever, args=(0.02,))
        self._thread.start()
        self.s3.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.s3.kill()
        self._issuer.shutdown()
        self._issuer.server_close()
        self._thread.join()

    def variables(self, account: str, seconds: int = 600) -> dict[str, str]:
        """What a webhook sets in a pod of that account, and whom the pod trusts. seconds: until the token ends."""
        path = self.folder / f"token-{account.replace(':', '-')}-{seconds}"
        now = int(time.time())
        claims = {"iss": self._url, "sub": f"system:serviceaccount:{account}", "aud": [AUDIENCE]}
        path.write_text(signed(_SIGNER, {**claims, "iat": now - 900, "exp": now + seconds}))
        return {
            "AWS_ROLE_ARN": ROLE,
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(path),
            "AWS_REGION": "us-east-1",
            "SSL_CERT_FILE": f"{self.folder}/ca.pem",
            "PATH": os.environ["PATH"],
        }

    def addresses(self) -> dict[str, str]:
        """As a Secret without keys holds them."""
        return {"AWS_ENDPOINT_URL": self.endpoint, "AWS_ENDPOINT_URL_STS": self.endpoint}

    def _settings(self, account: str) -> dict[str, Any]:
        key = "dGVzdC1zaWduaW5nLWtleS0zMi1jaGFyYWN0ZXJzLWxvbmc="
        sts = {"tokenDuration": "1h", "maxSessionLength": "12h", "issuer": "weed", "signingKey": key}
        config = {"issuer": self._url, "clientId": AUDIENCE, "jwksUri": f"{self._url}/keys"}
        provider = {"name": "cluster", "type": "oidc", "enabled": True, "config": config}
        return {"sts": sts, "providers": [provider], **_policies(f"system:serviceaccount:{account}")}


class _Keys(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"keys": [_SIGNER.public]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass

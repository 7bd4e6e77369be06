"""Where Envoys connect, and who may: a private Unix socket, or a port with certificates on both sides.

Source: gRPC core, "Keepalive User Guide"; gRPC Python, `ssl_server_credentials`.
"""

import ipaddress
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote

# As in `ads`, whichever of the two is imported first.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc

from modelyard.base.errors import UserError

Options = tuple[tuple[str, int], ...]
_SAN = "x509_subject_alternative_name"
# Somebody whose machine is gone is noticed after these two together, also when nothing is to be said.
_PING_MILLISECONDS, _PONG_MILLISECONDS = 10_000, 5_000
_PEERS_PING_MILLISECONDS = 5_000


class Identity(NamedTuple):
    """What this side shows, and what the others' must be signed by, as PEM. authority: one certificate or several."""

    certificate: str
    key: str
    authority: str

    def __repr__(self) -> str:
        return "Identity(...)"  # the key belongs into no log


class Listening(Protocol):
    """A way to a gRPC server. options: of the server."""

    @property
    def options(self) -> Options: ...

    def bind(self, server: Any) -> int:
        """Make a server listen; the port, or 1. Raises UserError."""
        ...

    def admits(self, context: Any) -> bool:
        """Whether who called may be told anything."""
        ...


class PrivateSocket(NamedTuple):
    """Only who may open the file connects."""

    path: Path
    options: Options = ()

    def bind(self, server: Any) -> int:
        return int(server.add_insecure_port(f"unix:{self.path}"))

    def admits(self, context: Any) -> bool:  # noqa: ARG002  the file's mode decides
        return True


class MutualTls:
    """host, port: 0 takes a free one. identity: asked at each handshake, from any thread.

    caller: the DNS name for which a client's certificate must be. Certificates for other names are refused.
    """

    options: Options = (
        ("grpc.keepalive_time_ms", _PING_MILLISECONDS),
        ("grpc.keepalive_timeout_ms", _PONG_MILLISECONDS),
        ("grpc.http2.ping_timeout_ms", _PONG_MILLISECONDS),  # gRPC 1.85 waits for a pong as long as this says
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _PEERS_PING_MILLISECONDS // 2),
        ("grpc.http2.max_ping_strikes", 0),
        # Two servers must not share a port in silence.
        ("grpc.so_reuseport", 0),
    )

    def __init__(self, host: str, port: int, identity: Callable[[], Identity], caller: str) -> None:
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._identity = identity
        self._caller = caller.encode()

    def bind(self, server: Any) -> int:
        credentials = grpc.dynamic_ssl_server_credentials(
            self._configuration(), self._configuration, require_client_authentication=True
        )
        try:
            return int(server.add_secure_port(self._address, credentials))
        except RuntimeError as error:
            raise UserError(
                f"gateways cannot connect, since {self._address} cannot be had: end the program that has the port, or "
                "choose another address to listen on"
            ) from error

    def admits(self, context: Any) -> bool:
        found = context.auth_context()
        return found.get("transport_security_type") == [b"ssl"] and list(found.get(_SAN, ())) == [self._caller]

    def _configuration(self) -> Any:
        identity = self._identity()
        return grpc.ssl_server_certificate_configuration(
            [(identity.key.encode(), identity.certificate.encode())], identity.authority.encode()
        )


def peer_host(peer: str) -> str:
    """The address of who called, from gRPC's words; "" where it has none. `ipv6:%5B::1%5D:50` -> `::1`."""
    kind, _, place = peer.partition(":")
    host = unquote(place).rpartition(":")[0].strip("[]")
    try:
        return str(ipaddress.ip_address(host)) if kind in ("ipv4", "ipv6") else ""
    except ValueError:
        return ""

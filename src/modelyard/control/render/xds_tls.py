"""TLS of the public listener in Envoy's words.

The listener names its certificate, and whose certificates callers must show, as secrets that are sent apart: a renewed
certificate changes neither the listener nor a connection.
Source: Envoy API v3 (transport_sockets/tls/v3/tls.proto, common.proto, secret.proto).
"""

from typing import Any

from modelyard.control.ir.platform import Tls
from modelyard.control.render.xds import ADS

Json = dict[str, Any]

CERTIFICATE, CALLERS = "gateway", "callers"
"""Names of the secrets."""

_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"


def secrets(tls: Tls) -> dict[str, Json]:
    """By name: what the listener shows, and who must have signed what callers show."""
    certificate = {
        "certificate_chain": {"inline_string": tls.certificate},
        "private_key": {"inline_string": tls.key},
    }
    found: dict[str, Json] = {CERTIFICATE: {"name": CERTIFICATE, "tls_certificate": certificate}}
    if tls.client_ca:
        trusted = {"trusted_ca": {"inline_string": tls.client_ca}}
        found[CALLERS] = {"name": CALLERS, "validation_context": trusted}
    return found


def transport_socket(*, mutual: bool) -> Json:
    """Of the listener's connections. mutual: callers must show a certificate."""
    common: Json = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificate_sds_secret_configs": [_secret(CERTIFICATE)],
    }
    if mutual:
        common["validation_context_sds_secret_config"] = _secret(CALLERS)
    context: Json = {"@type": f"{_TYPE}.DownstreamTlsContext", "common_tls_context": common}
    if mutual:
        context["require_client_certificate"] = True
        # Who resumes a session is not asked for a certificate again.
        context["disable_stateless_session_resumption"] = True
        context["disable_stateful_session_resumption"] = True
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _secret(name: str) -> Json:
    # Without its secrets the listener must not open, however long they take.
    return {"name": name, "sds_config": {**ADS, "initial_fetch_timeout": "0s"}}

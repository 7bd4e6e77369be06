"""The secret of a unit in Envoy's words: filters on the way to the unit add it to every request.

There and not in routes: no route, mirror or retry can go without it, and none can take it to another unit.
Source: Envoy API v3 (http_protocol_options.proto, header_mutation.proto).
"""

from typing import Any

from modelyard.control.render.part import Part
from modelyard.wire.work import GATEWAY_HEADER

Json = dict[str, Any]

_TYPE = "type.googleapis.com/envoy.extensions.filters.http"

_LAST = Part(
    name="envoy.filters.http.upstream_codec", typed_config={"@type": f"{_TYPE}.upstream_codec.v3.UpstreamCodec"}
)


def filters(secret: str) -> list[Json]:
    """Of a cluster."""
    header = {
        "append": {
            "header": {"key": GATEWAY_HEADER, "value": secret},
            # Never beside one that somebody else has set.
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    }
    return [
        {
            "name": "unit-secret",
            "typed_config": {
                "@type": f"{_TYPE}.header_mutation.v3.HeaderMutation",
                "mutations": {"request_mutations": [header]},
            },
        },
        _LAST,
    ]

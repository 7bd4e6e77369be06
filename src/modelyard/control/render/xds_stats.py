"""Which statistics Envoy keeps: those of units that somebody calls, and a few of the gateway itself. They cost memory.

Source: Envoy API v3 (metrics/v3/stats.proto); Envoy, "Cluster manager: Statistics".
"""

from typing import Any

Json = dict[str, Any]

TAG = "unit"
GATEWAY, ANSWERS = "gateway", "answers"
"""The counter of all answers (`xds_log`): `gateway.answers`, with the tags model, code and grpc."""
PREFIX = "cluster."
GATEWAY_PREFIX = "http.gateway.downstream_"
COUNTED = ("rq_active", "rq_[2-5]xx", "rq_retry", "rq_timeout", "rq_time", "cx_connect_fail")
"""After `cluster.<unit>.upstream_`."""
EVICTION = "3600s"
"""Counts of answers that did not grow for so long are forgotten; those of units stay as long as these do."""
_BUCKETS_MILLISECONDS = (1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 60_000)
# Two labels; Envoy itself puts a third one behind, to count requests from inside and outside apart.
_UNIT = r"[^.]+\.[^.]+"


def stats_config(*exactly: str) -> Json:
    """Of the bootstrap. exactly: names of others that somebody reads."""
    wanted = rf"cluster\.{_UNIT}\.upstream_({'|'.join(COUNTED)})"
    buckets = {"match": {"prefix": PREFIX}, "buckets": list(_BUCKETS_MILLISECONDS)}
    return {
        "stats_matcher": {
            "inclusion_list": {
                "patterns": [
                    {"prefix": GATEWAY_PREFIX},
                    {"prefix": f"{GATEWAY}.{ANSWERS}."},
                    *({"exact": name} for name in exactly),
                    {"safe_regex": {"regex": wanted}},
                ]
            }
        },
        # Envoy's own would end the name of a cluster at its first dot.
        "use_all_default_tags": False,
        "stats_tags": [{"tag_name": TAG, "regex": rf"^cluster\.(({_UNIT})\.)upstream_"}],
        "histogram_bucket_settings": [buckets],
    }

"""What a change of a field sets in motion. The planners decide; a test holds this table against them."""

from collections.abc import Mapping
from enum import StrEnum


class Effect(StrEnum):
    """REVISION: processes start beside those that run, which end when the new ones do their work. SCALE: processes
    start or end. ROUTE: requests are treated otherwise at once. AT_ONCE: in another way without a restart. READ: an
    artifact is read again. USERS: as REVISION, for whatever refers to it. RECORDED: only before it has started. NONE.
    """

    REVISION = "Revision"
    SCALE = "Scale"
    ROUTE = "Route"
    AT_ONCE = "AtOnce"
    READ = "Read"
    USERS = "Users"
    RECORDED = "Recorded"
    NONE = "None"


_OF_PROCESSES = ("model", "runtime", "resources", "env", "serviceAccountName", "podTemplate")
ONLY_PODS = frozenset({"serviceAccountName", "podTemplate"})
"""Fields of a spec that change nothing on one machine."""

EFFECTS: Mapping[str, Mapping[str, Effect]] = {
    "ModelService": {
        **dict.fromkeys(_OF_PROCESSES, Effect.REVISION),
        "replicas": Effect.SCALE,
        **dict.fromkeys(
            (
                *("timeout", "visibility", "traffic", "sticky", "retries"),
                *("maxConcurrency", "maxRequestSize", "compression"),
            ),
            Effect.ROUTE,
        ),
    },
    "ModelStream": {
        **dict.fromkeys(_OF_PROCESSES, Effect.REVISION),
        **dict.fromkeys(("source", "sink", "deadLetter", "delivery", "batch", "maxDeliver"), Effect.REVISION),
        **dict.fromkeys(("partitions", "key", "start"), Effect.NONE),
        "replicas": Effect.SCALE,
        "suspend": Effect.SCALE,
    },
    "ModelJob": {
        **dict.fromkeys(("score", "run", "resources", "env", "serviceAccountName", "priority"), Effect.RECORDED),
        **dict.fromkeys(("podTemplate", "queue"), Effect.RECORDED),
        **dict.fromkeys(("backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"), Effect.AT_ONCE),
        "parallelism": Effect.SCALE,
        "suspend": Effect.SCALE,
    },
    "Model": dict.fromkeys(
        (
            *("uri", "credentials", "serviceAccountName", "podTemplate", "digest", "format", "formatVersion", "trust"),
            *("inputs", "outputs"),
        ),
        Effect.READ,
    ),
    "Runtime": dict.fromkeys(("formats", "process", "env", "resources", "probe"), Effect.USERS),
    "AccessPolicy": dict.fromkeys(("services", "issuers", "authentication", "rateLimits"), Effect.ROUTE),
}
"""Kind -> field of its spec -> what a change of it, or of anything in it, does."""


def effect(kind: str, path: str) -> Effect:
    """path: from the object down, such as `spec.resources.limits`."""
    root, _, rest = path.partition(".")
    field = rest.partition(".")[0].partition("[")[0]
    if root != "spec":
        return Effect.NONE
    return EFFECTS.get(kind, {}).get(field, Effect.NONE)

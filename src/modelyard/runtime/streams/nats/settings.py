"""What streams must be set to, and what a stream lacks. Pure.

Sources: ADR-50 (atomic batches), ADR-43 (message TTL), https://docs.nats.io/nats-concepts/jetstream/streams; the limits
on offsets were tried (`max_msgs: 10` with `discard: old` removed the offset message).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.runtime.streams.nats.subjects import (
    CLAIMS_STREAM,
    CLAIMS_SUBJECT,
    Transform,
    covers,
    offset_subjects,
    overlaps,
    source_subjects,
)
from modelyard.wire.work import StreamWork

LEAST_VERSION = (2, 12)
MADE = {"modelyard.dev/made-by": "modelyard"}
"""Metadata of streams that we made. Only those are given subjects that they lack; nothing else is ever changed."""
_NEEDED_OF_OFFSETS = ("allow_atomic", "allow_msg_ttl", "allow_rollup_hdrs")
_NEEDED_OF_CLAIMS = ("allow_msg_ttl", "allow_rollup_hdrs")


def is_exact(work: StreamWork) -> bool:
    return work.delivery == "exactlyOnce"


def sink_config(work: StreamWork) -> dict[str, Any]:
    """Of a sink that we create."""
    return {
        "name": work.sink.stream,
        "subjects": list(_written(work, offsets=True)),
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "allow_direct": True,
        **dict.fromkeys(_NEEDED_OF_OFFSETS, True),
    }


def source_config(work: StreamWork) -> dict[str, Any]:
    """Of a source that we create."""
    subjects, transform = source_subjects(work)
    config: dict[str, Any] = {
        "name": work.source.stream,
        "subjects": list(subjects),
        "retention": "limits",
        "storage": "file",
    }
    if transform is not None:
        config["subject_transform"] = transform.as_config()
    return config


def claims_config() -> dict[str, Any]:
    """In memory: a broker that restarts has no claims, which costs time and no record (the offset is the fence)."""
    return {
        "name": CLAIMS_STREAM,
        "subjects": [f"{CLAIMS_SUBJECT}.>"],
        "retention": "limits",
        "storage": "memory",
        "max_msgs_per_subject": 1,
        **dict.fromkeys(_NEEDED_OF_CLAIMS, True),
    }


def missing_subjects(work: StreamWork, config: Mapping[str, Any]) -> Sequence[str]:
    """Subjects that the sink must take and does not."""
    taken = config.get("subjects") or ()
    return [each for each in _written(work, offsets=is_exact(work)) if not any(covers(one, each) for one in taken)]


def unsuitable_sink(work: StreamWork, config: Mapping[str, Any]) -> Sequence[str]:
    """Settings of an existing sink that exactly-once commits cannot live with, each as it should be."""
    found = [f"{name}: true" for name in _NEEDED_OF_OFFSETS if not config.get(name)]
    if config.get("retention", "limits") != "limits":
        found.append("retention: limits")  # others remove messages, and with them the offset
    if config.get("persist_mode") == "async":
        found.append("persist_mode: default")
    bounded = any(config.get(name, -1) > 0 for name in ("max_msgs", "max_bytes"))
    if bounded and config.get("discard", "old") != "new":
        found.append("discard: new (with max_msgs or max_bytes the oldest message goes, which may be the offset)")
    if config.get("discard_new_per_subject"):
        found.append("discard_new_per_subject: false")
    if config.get("no_ack"):
        found.append("no_ack: false")
    if config.get("sealed"):
        found.append("sealed: false")
    transform = Transform.of(config)
    if transform is not None and any(overlaps(transform.source, each) for each in _written(work, offsets=True)):
        found.append("no subject_transform of the sink's subjects")
    return found


def is_made(config: Mapping[str, Any]) -> bool:
    """Whether we made a stream."""
    return MADE.items() <= (config.get("metadata") or {}).items()


def unsuitable_claims(config: Mapping[str, Any]) -> Sequence[str]:
    found = [f"{name}: true" for name in _NEEDED_OF_CLAIMS if not config.get(name)]
    if not any(covers(each, f"{CLAIMS_SUBJECT}.>") for each in config.get("subjects") or ()):
        found.append(f"subjects: [{CLAIMS_SUBJECT}.>]")
    if config.get("subject_delete_marker_ttl"):
        found.append("no subject_delete_marker_ttl (a marker counts as a message)")
    return found


def loops(work: StreamWork) -> Sequence[str]:
    """What is written to the sink and would be read again from the source."""
    if (work.source.uri, work.source.stream) != (work.sink.uri, work.sink.stream):
        return ()
    written = _written(work, offsets=True)
    return [each for each in work.source.subjects if any(overlaps(each, one) for one in written)]


def command(config: Mapping[str, Any]) -> str:
    """What an administrator types. The file's content is the configuration."""
    return f"`nats stream add {config['name']} --config FILE` with this in FILE: {json.dumps(config)}"


def _written(work: StreamWork, *, offsets: bool) -> Sequence[str]:
    found = [work.sink.subject]
    if work.dead_letter:
        found.append(work.dead_letter)
    if offsets:
        found.append(offset_subjects(work))
    return found

"""Subjects: which filters meet, where the partition's number comes from, and what our own messages are called. Pure.

A filter has `*` for one token and `>` for one or more at the end.
Sources: https://docs.nats.io/nats-concepts/subjects, https://docs.nats.io/nats-concepts/subject_mapping, DESIGN 8.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.wire.work import StreamWork, partition_subjects

CLAIMS_STREAM = "MODELYARD_CLAIMS"
CLAIMS_SUBJECT = "modelyard.claims"
_OFFSET = "__offset"
_PARTITION = re.compile(r"\{\{\s*partition\(\s*(\d+)\s*(?:,[\d\s,]*)?\)\s*\}\}", re.IGNORECASE)
_FUNCTION = re.compile(r"\{\{.*\}\}|\$\d+")


def overlaps(left: str, right: str) -> bool:
    """Whether a subject can match both filters."""
    mine, others = left.split("."), right.split(".")
    for one, other in zip(mine, others, strict=False):
        if ">" in (one, other):
            return True
        if one != other and "*" not in (one, other):
            return False
    return len(mine) == len(others)


def covers(wide: str, narrow: str) -> bool:
    """Whether every subject that matches `narrow` matches `wide`."""
    mine, others = wide.split("."), narrow.split(".")
    for place, one in enumerate(mine):
        if one == ">":
            return len(others) > place
        if place >= len(others) or others[place] == ">":
            return False
        if one != "*" and one != others[place]:
            return False
    return len(mine) == len(others)


@dataclass(frozen=True, slots=True)
class Transform:
    """What a stream makes of a subject when it stores a message: `subject_transform` of its configuration."""

    source: str
    destination: str

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Transform | None":
        found = config.get("subject_transform")
        return cls(found.get("src") or ">", found.get("dest") or ">") if found else None

    def as_config(self) -> dict[str, str]:
        return {"src": self.source, "dest": self.destination}

    @property
    def stored(self) -> str:
        """A filter for what it writes."""
        return ".".join("*" if _FUNCTION.fullmatch(each) else each for each in _tokens(self.destination))

    def numbers(self, token: int) -> int | None:
        """How many partitions it numbers at that token (from 1); None if it writes something else there."""
        tokens = _tokens(self.destination)
        found = _PARTITION.fullmatch(tokens[token - 1]) if token <= len(tokens) else None
        return int(found[1]) if found else None


def partition_transform(subject: str, token: int, partitions: int) -> Transform:
    """What writes the number at a token of a filter, from the key that publishers write in its place or after it.

    `payments.in.*.>` with token 3: publishers write `payments.in.KEY`, stored as `payments.in.2.KEY`. Without a
    wildcard after the number the key itself becomes it: `payments.in.*` stores `payments.in.2`.
    """
    tokens = subject.split(".")
    before, after = tokens[: token - 1], ["*" if each == ">" else each for each in tokens[token:]]
    keyed = "*" in after
    source = before + ([] if keyed else ["*"]) + after
    first = before.count("*") + 1
    keys = range(first, first + (after.count("*") if keyed else 1))
    number = "{{partition(" + ",".join(str(each) for each in (partitions, *keys)) + ")}}"
    wildcards = iter(range(1, source.count("*") + 1))
    written = [f"{{{{wildcard({next(wildcards)})}}}}" if each == "*" else each for each in before]
    rest = [f"{{{{wildcard({next(wildcards)})}}}}" if each == "*" else each for each in after] if keyed else after
    return Transform(".".join(source), ".".join([*written, number, *rest]))


def source_subjects(work: StreamWork) -> tuple[tuple[str, ...], Transform | None]:
    """The subjects of a source stream that we create, and its transform.

    With partitions publishers may write the key alone, or a number that exists; nobody takes other subjects, so that a
    publisher that writes a wrong one is told. One transform serves one filter: with several, publishers write numbers.
    """
    filters = work.source.subjects
    if not work.key_token:
        return filters, None
    numbered = tuple(
        each for partition in range(work.partitions) for each in partition_subjects(filters, work.key_token, partition)
    )
    if len(filters) > 1:
        return numbered, None
    transform = partition_transform(filters[0], work.key_token, work.partitions)
    own = tuple(each for each in numbered if not overlaps(each, transform.source))
    return (transform.source, *own), transform


def stored_subjects(config: Mapping[str, Any]) -> Sequence[str]:
    """Filters for what a stream can hold."""
    transform = Transform.of(config)
    found: list[str] = []
    for each in config.get("subjects") or ():
        if transform is None or not covers(transform.source, each):
            found.append(each)
        if transform is not None and overlaps(transform.source, each):
            found.append(transform.stored)
    return found


def holds_only(config: Mapping[str, Any], filters: Sequence[str]) -> bool:
    """Whether a stream can hold nothing but what matches one of the filters."""
    if config.get("mirror") or config.get("sources"):
        return False
    return all(any(covers(one, each) for one in filters) for each in stored_subjects(config))


def offset_subject(work: StreamWork, partition: int) -> str:
    """Where the offset of a partition lies, in the sink's stream."""
    return f"{work.sink.subject}.{_OFFSET}.{work.name}.{partition}"


def opening_subject(work: StreamWork, partition: int) -> str:
    """What opens each batch of a partition."""
    return f"{offset_subject(work, partition)}.open"


def offset_subjects(work: StreamWork) -> str:
    """Offsets of all streams with this sink."""
    return f"{work.sink.subject}.{_OFFSET}.>"


def durable(work: StreamWork, partition: int) -> str:
    """The name of the consumer of a partition. `_` is in no name of Kubernetes, so no two streams share one."""
    return f"modelyard_{work.name.replace('.', '_')}_{partition}"


def claims_key(work: StreamWork) -> str:
    """One token: streams of one name with different sinks do not hinder each other."""
    sink = "\n".join((work.sink.uri, work.sink.stream, work.sink.subject))
    return f"{token_of(work.name)}_{hashlib.sha256(sink.encode()).hexdigest()[:12]}"


def token_of(text: str) -> str:
    """One token of a subject, for names that may have dots and other things."""
    plain = text.replace(".", "_")
    if re.fullmatch(r"[A-Za-z0-9_-]{1,80}", plain):
        return plain
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _tokens(destination: str) -> list[str]:
    """Of a transform: functions may hold dots in their arguments."""
    return re.findall(r"\{\{.*?\}\}|[^.]+", destination)

"""Whether what lies at a prefix is of the stream that is about to go on with it. Pure; all checks raise Refused."""

from dataclasses import dataclass

import pyarrow as pa

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.streams import tables
from modelyard.runtime.streams.chain import Begun, Owner


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """stream: `<namespace>.<name>`. format: of the files (`encode.Codec.format`); empty: columns of one without rows
    (`encode.Codec.empty`), kept: those of them that are the source's. source, created: the stream that is read, and
    when that was made, as its broker says. partitions, subjects, key: as of `chain.Owner`."""

    stream: str
    partition: int
    partitions: int = 1
    subjects: tuple[str, ...] = ()
    key: int = 0
    format: str
    empty: pa.Schema
    kept: tuple[str, ...] = ()
    source: str
    created: str = ""

    @property
    def owner(self) -> Owner:
        return Owner(stream=self.stream, partitions=self.partitions, subjects=self.subjects, key=self.key)


def check_owner(owner: Owner | None, target: Target, uri: str) -> None:
    """A stream that was deleted and applied again goes on from its files if its partitions are the same."""
    if owner is None or owner == target.owner:
        return
    if owner.stream != target.stream:
        raise in_use(f"{uri} holds the files of stream {owner.stream}")
    raise Refused(
        Reason.OUTPUT_IN_USE,
        f"{uri} holds files of a stream of this name with {_parted(owner)}, and now it has {_parted(target.owner)}: "
        "going on could leave records out, or write them twice; apply it as it was, or give it another prefix",
    )


def _parted(owner: Owner) -> str:
    token = f" by token {owner.key}" if owner.key else ""
    return f"{owner.partitions} partitions of {', '.join(owner.subjects)}{token}"


def check_begun(begun: Begun, target: Target, uri: str) -> None:
    check_source(begun.source, begun.created, target, uri)
    if begun.format != target.format:
        raise in_use(f"{uri} holds {begun.format} of this stream, and spec.sink.format is {target.format}")


def check_source(source: str, created: str, target: Target, uri: str) -> None:
    """Positions count from 1 again in a stream that was made anew."""
    if (source, created) != (target.source, target.created):
        raise Refused(
            Reason.SOURCE_REPLACED,
            f"{uri} continues stream {source}, made {created or 'once'}, and the source is "
            f"{target.source}, made {target.created or 'once'}: positions mean something else now; give the stream "
            "another name and another prefix",
        )


def check_outputs(there: pa.Schema | None, target: Target, uri: str) -> None:
    """there: columns of the last part, None if nobody can tell. Readers take the types of one file for all. Those of
    kept fields come from values, those of outputs are declared, and whoever changes them can be told."""
    wrong = [
        f"{each.name} ({there.field(each.name).type} there, {each.type} now)"
        for each in target.empty
        if there is not None
        and each.name not in target.kept
        and each.name in there.names
        and not tables.holds(there.field(each.name).type, each.type)
    ]
    if wrong:
        raise Refused(
            Reason.SCHEMA_MISMATCH,
            f"the model gives outputs of other types than the files at {uri} have, and nothing could read both "
            f"together: {', '.join(wrong)}; go back to the model before, give the outputs other names, or apply a "
            "stream of another name with another prefix and spec.start",
        )


def in_use(what: str) -> Refused:
    return Refused(Reason.OUTPUT_IN_USE, f"{what}; give each stream a prefix of its own")

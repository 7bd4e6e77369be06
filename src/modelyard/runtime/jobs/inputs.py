"""The input of a scoring job: which files, of which format, and the identity of what is done with them."""

import hashlib
from collections.abc import Sequence

import msgspec

from modelyard.base.conditions import Reason
from modelyard.runtime.jobs import formats
from modelyard.runtime.jobs.shards import Source
from modelyard.runtime.scoring.refused import Refused
from modelyard.storage.stores import Entry
from modelyard.wire.work import ScoreWork


def choose(entries: Sequence[Entry], work: ScoreWork) -> tuple[str, tuple[Source, ...]]:
    """-> (format, files). Hidden names and other formats are left out; raises Refused (InputNotFound)."""
    uri, wanted = work.input.uri, work.input.format
    shown = [each for each in entries if not _hidden(each.key)]
    known = {each.key: formats.of_name(each.key) for each in shown}
    if len(shown) == 1 and wanted:
        known = {shown[0].key: wanted}  # a single file may have any name
    found = {name for name in known.values() if name}
    if not wanted and len(found) > 1:
        raise Refused(
            Reason.INPUT_INVALID,
            f"{uri} holds files of several formats ({', '.join(sorted(found))}); say which in input.format",
        )
    chosen = wanted or next(iter(found), "")
    files = tuple(_source(each) for each in shown if known[each.key] == chosen)
    if not files:
        there = f"{len(entries)} other objects" if entries else "nothing"
        endings = (
            f"files of the format {wanted}" if wanted else f"files of a known format ({', '.join(formats.FORMATS)})"
        )
        raise Refused(Reason.INPUT_NOT_FOUND, f"there is {there} at {uri}; expected {endings}")
    return chosen, files


def identity(work: ScoreWork, format_name: str, sources: Sequence[Source]) -> str:
    """The same for the same results: model, input and what is made of them. Not how the work is spread."""
    model = work.model
    parts = (
        ("model", model.digest, model.format, model.command, model.inputs, model.outputs),
        ("input", format_name, work.input.columns, tuple(sources)),
        ("output", output_format(work, format_name), work.output.keep, work.errors.on_error),
    )
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


def output_format(work: ScoreWork, format_name: str) -> str:
    """That of the input unless another is asked for; images become rows of a table."""
    return work.output.format or ("parquet" if format_name == "images" else format_name)


def _hidden(key: str) -> bool:
    return any(part.startswith(("_", ".")) for part in key.split("/"))


def _source(entry: Entry) -> Source:
    return Source(key=entry.key, size_bytes=entry.size_bytes, etag=entry.etag)


def refuse_overlap(source: str, target: str) -> None:
    """An output within the input would be read by the next job, or by this one."""
    if f"{target.rstrip('/')}/".startswith(f"{source.rstrip('/')}/"):
        raise Refused(Reason.INVALID, f"the output {target} lies within the input {source}; use a place outside of it")

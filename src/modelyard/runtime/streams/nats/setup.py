"""Before anything is read: the streams of source and sink are as they must be, or are made so where they are absent.

A stream that exists is never changed, but for subjects that one lacks which we made: nobody else may know how. What it
lacks is named, everything at once.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from modelyard.base.conditions import Reason
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.streams.nats import settings
from modelyard.runtime.streams.nats.broker import Broker
from modelyard.runtime.streams.nats.faults import OVERLAP, STREAM_EXISTS, STREAM_NOT_FOUND, ApiError, translate
from modelyard.runtime.streams.nats.session import Session
from modelyard.runtime.streams.nats.subjects import (
    CLAIMS_STREAM,
    Transform,
    covers,
    overlaps,
    partition_transform,
    stored_subjects,
)
from modelyard.wire.work import StreamWork, partition_subjects

_ENOUGH_LOOKS = 5
_LOOK_AGAIN_SECONDS = 0.3


async def prepare_source(broker: Broker, work: StreamWork) -> None:
    """The source exists and holds what is to be read. Raises Away and Refused."""
    session = await broker.session()
    _check_version(session)
    info = await ensure(session, settings.source_config(work))
    config = info["config"]
    if settings.is_exact(work) and config.get("retention", "limits") != "limits":
        raise Refused(
            Reason.STREAM_UNSUITABLE,
            f"stream {work.source.stream} has `retention: {config['retention']}`, whose messages are removed by being "
            "acknowledged; exactlyOnce reads without: use `retention: limits`, or `delivery: atLeastOnce`",
        )
    if found := settings.loops(work):
        raise Refused(
            Reason.STREAM_UNSUITABLE,
            f"{', '.join(found)} of the source also holds what is written to the sink, which would be scored again; "
            "name narrower `subjects`, or another stream for the sink",
        )
    if work.key_token:
        await _check_numbers(session, work, config)
        return

    def missing(current: Mapping[str, Any]) -> Sequence[str]:
        return [each for each in work.source.subjects if not _can_hold(current, each)]

    config = await _widened(session, config, missing)
    if lacking := missing(config):
        raise Refused(
            Reason.SUBJECT_NOT_FOUND,
            f"stream {work.source.stream} never holds {', '.join(lacking)}; it takes "
            f"{', '.join(config.get('subjects') or ('nothing',))}: correct `subjects`, or add them to the stream",
        )


async def prepare_sink(broker: Broker, work: StreamWork) -> int:
    """The sink exists and takes what is to be written: messages of at most so many bytes, with their headers.

    Raises Away and Refused.
    """
    session = await broker.session()
    _check_version(session)
    config = (await ensure(session, settings.sink_config(work)))["config"]
    config = await _widened(session, config, partial(settings.missing_subjects, work))
    lacking = list(settings.unsuitable_sink(work, config)) if settings.is_exact(work) else []
    if config.get("mirror"):
        lacking.append("no mirror (nobody can publish to one)")
    subjects = list(settings.missing_subjects(work, config))
    if not lacking and not subjects:
        most = int(config.get("max_msg_size", -1))
        return min(session.most_bytes, most) if most > 0 else session.most_bytes
    wanted = [f"the settings {'; '.join(lacking)}"] if lacking else []
    if subjects:
        wanted.append(f"the subjects {', '.join(subjects)}")
    raise Refused(
        Reason.STREAM_UNSUITABLE if lacking else Reason.SUBJECT_NOT_FOUND,
        f"stream {work.sink.stream} lacks {', and '.join(wanted)}; see `nats stream edit {work.sink.stream}`",
    )


async def prepare_claims(session: Session) -> None:
    """The stream of claims exists. Raises Away and Refused."""
    config = (await ensure(session, settings.claims_config()))["config"]
    if lacking := settings.unsuitable_claims(config):
        raise Refused(
            Reason.STREAM_UNSUITABLE,
            f"stream {CLAIMS_STREAM}, where runners agree who does what, lacks {'; '.join(lacking)}; delete it, it is "
            "made again",
        )


async def ensure(session: Session, config: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of STREAM.INFO, of a stream that may be new. Raises Away and Refused."""
    name = config["name"]
    info = await stream_info(session, name)
    if info is not None:
        return info
    try:
        return await session.api(f"STREAM.CREATE.{name}", {**config, "metadata": settings.MADE})
    except Refused as error:
        raise Refused(
            Reason.STREAM_NOT_FOUND,
            f"stream {name} is not there and may not be made ({error.message}); make it: {settings.command(config)}",
        ) from None
    except ApiError as error:
        if error.code == OVERLAP:
            raise Refused(
                Reason.STREAM_UNSUITABLE,
                f"stream {name} cannot be made: another stream takes one of {', '.join(config['subjects'])} already; "
                "name that stream, or other subjects",
            ) from None
        if error.code == STREAM_EXISTS and (info := await stream_info(session, name)) is not None:
            return info  # another runner was faster
        raise translate(error, f"making stream {name}") from None


async def _widened(
    session: Session, config: Mapping[str, Any], missing: Callable[[Mapping[str, Any]], Sequence[str]]
) -> Mapping[str, Any]:
    """The configuration of a stream, with the subjects that it lacks where we made it.

    Whoever adds others at the same moment may undo it, so it is looked at again. What may not be changed stays as it
    is, and is named by whoever asked. Raises Away and Refused.
    """
    for _ in range(_ENOUGH_LOOKS):
        lacking = list(missing(config))
        if not lacking or not settings.is_made(config):
            return config
        name = config["name"]
        try:
            await session.api(f"STREAM.UPDATE.{name}", {**config, "subjects": [*config.get("subjects", ()), *lacking]})
        except Refused:
            return config
        except ApiError as error:
            if error.code == OVERLAP:
                raise Refused(
                    Reason.STREAM_UNSUITABLE,
                    f"stream {name} cannot take {', '.join(lacking)}: another stream does already; name other subjects",
                ) from None
            raise translate(error, f"adding {', '.join(lacking)} to stream {name}") from None
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        config = (await stream_info(session, name) or {"config": {}})["config"]
    return config


async def stream_info(session: Session, name: str, body: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """None if there is none. Raises Away and Refused."""
    try:
        return await session.api(f"STREAM.INFO.{name}", body)
    except ApiError as error:
        if error.code == STREAM_NOT_FOUND:
            return None
        raise translate(error, f"reading the settings of stream {name}") from None


async def _check_numbers(session: Session, work: StreamWork, config: Mapping[str, Any]) -> None:
    """Every subject carries a number of a partition, or nobody would read some messages."""
    every = [
        each for p in range(work.partitions) for each in partition_subjects(work.source.subjects, work.key_token, p)
    ]
    unfit = [each for each in every if not _can_hold(config, each)]
    transform = Transform.of(config)
    written = transform.numbers(work.key_token) if transform is not None else None
    if unfit or written not in (None, work.partitions):
        raise _no_numbers(work, f"stores none of {', '.join(unfit)}" if unfit else f"numbers {written} partitions")
    if written is not None and work.start.at == "latest":
        return  # what was stored before the transform was set is not to be read
    watched = list(work.source.subjects)
    if transform is not None and not any(overlaps(transform.source, each) for each in watched):
        watched.append(transform.source)  # was stored as it was before the transform was set
    if config.get("retention", "limits") == "limits":  # others take no further consumer, not even to count
        numbered, of_all = await _count(session, work, every), await _count(session, work, watched)
        if numbered == of_all:
            return
    if example := await _unnumbered(session, work, watched, every):
        raise _stored_before(work, example) if written is not None else _no_numbers(work, f"holds {example}")


async def _count(session: Session, work: StreamWork, filters: Sequence[str]) -> int:
    """How many messages match, counted by the broker for a consumer that nobody reads."""
    name = f"modelyard_{session.new_inbox().rpartition('.')[2]}"
    config = {
        "name": name,
        "deliver_policy": "all",
        "ack_policy": "none",
        "mem_storage": True,
        "inactive_threshold": 5 * 10**9,
        **({"filter_subject": filters[0]} if len(filters) == 1 else {"filter_subjects": list(filters)}),
    }
    stream = work.source.stream
    try:
        info = await session.api(f"CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": config})
        await session.api(f"CONSUMER.DELETE.{stream}.{name}")
    except ApiError as error:
        raise translate(error, f"counting the messages of stream {stream}") from None
    return int(info.get("num_pending", 0))


async def _unnumbered(session: Session, work: StreamWork, watched: Sequence[str], every: Sequence[str]) -> str:
    """A subject that is in no partition; "" if there is none after all."""
    for each in watched:
        info = await stream_info(session, work.source.stream, {"subjects_filter": each})
        subjects = ((info or {}).get("state") or {}).get("subjects") or {}
        found = next((one for one in sorted(subjects) if not any(covers(filter_, one) for filter_ in every)), "")
        if found:
            return str(found)
    return ""


def _no_numbers(work: StreamWork, what: str) -> Refused:
    transform = partition_transform(work.source.subjects[0], work.key_token, work.partitions)
    return Refused(
        Reason.PARTITIONS_MISSING,
        f"token {work.key_token} of a stored subject must be the partition, 0 to {work.partitions - 1}, and stream "
        f"{work.source.stream} {what}; let publishers write it, or set this on a stream that takes {transform.source}: "
        f'"subject_transform": {{"src": "{transform.source}", "dest": "{transform.destination}"}}',
    )


def _stored_before(work: StreamWork, example: str) -> Refused:
    """The transform is there, and changes nothing of what was stored without it."""
    return Refused(
        Reason.PARTITIONS_MISSING,
        f"token {work.key_token} of a stored subject must be the partition, 0 to {work.partitions - 1}; stream "
        f"{work.source.stream} has a transform that writes it, and still holds {example}: remove what was stored "
        f"before (`nats stream purge {work.source.stream}`), or apply a ModelStream of another name with `start: "
        "{from: latest}`",
    )


def _can_hold(config: Mapping[str, Any], subject: str) -> bool:
    """Mirrors and streams with sources hold what other streams give them."""
    if config.get("mirror") or config.get("sources"):
        return True
    return any(overlaps(subject, each) for each in stored_subjects(config))


def _check_version(session: Session) -> None:
    if session.version < settings.LEAST_VERSION:
        raise Refused(
            Reason.STREAM_UNSUITABLE,
            f"{session.where} runs nats-server {'.'.join(map(str, session.version))}; streams need "
            f"{'.'.join(map(str, settings.LEAST_VERSION))} or newer",
        )

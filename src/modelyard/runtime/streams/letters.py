"""Headers of what goes to the sink, and dead letters: messages that were not scored, with the reason. Pure.

Headers of the source stay, so that a CloudEvent (`ce-*`) stays one; those that a broker acts upon (`Nats-*`) and our
own of an earlier stream do not. Source: CloudEvents, NATS protocol binding, binary mode.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modelyard.runtime.streams.records import Message, Outgoing

SEQUENCE = "Modelyard-Source-Sequence"
SUBJECT = "Modelyard-Source-Subject"
CODE = "Modelyard-Error-Code"
ERROR = "Modelyard-Error"
ERRORS = "Modelyard-Errors"
CUT = "Modelyard-Payload-Bytes"
"""Of a dead letter whose payload the sink would not take: how long it was. The source has the whole message."""
CONTENT_TYPES = {
    "json": "application/json",
    "arrow": "application/vnd.apache.arrow.stream",
    "raw": "application/octet-stream",
}
_OURS = ("nats-", "modelyard-")
_TYPES = ("content-type", "ce-datacontenttype")
_MOST_ERROR = 400
_MOST_LISTED = 20
_MOST_LISTED_ERROR = 200
_ROOM = 512
"""Bytes of a message besides payload and headers, generously."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a record is not scored. row: its place in the message, from 0."""

    row: int
    code: str
    message: str


def headers(message: Message, content_type: str) -> dict[str, str]:
    """Of an output that is made of the message."""
    found = _kept(message.headers)
    if found:
        for name in list(found):
            if name.lower() == "content-type":
                del found[name]
            elif name.lower() == "ce-datacontenttype":
                found[name] = content_type
    found["Content-Type"] = content_type
    found[SEQUENCE] = str(message.position)
    return found


def dead_letter(message: Message, reasons: Sequence[Reason], payload: bytes | None = None) -> Outgoing:
    """reasons: at least one, of the first bad record first. payload: only the bad records; None: all of it is bad."""
    found = _kept(message.headers)
    found[CODE] = reasons[0].code
    found[ERROR] = plain_text(reasons[0].message, _MOST_ERROR)
    if len(reasons) > 1 or payload is not None:
        found[ERRORS] = json.dumps(
            [
                {"row": each.row, "code": each.code, "message": plain_text(each.message, _MOST_LISTED_ERROR)}
                for each in reasons[:_MOST_LISTED]
            ]
        )
    found[SEQUENCE] = str(message.position)
    found[SUBJECT] = plain_text(message.subject, _MOST_ERROR)
    whole = message.payload if payload is None else payload
    return Outgoing(position=message.position, payload=whole, headers=found, dead=True)


def fitted(letter: Outgoing, most_bytes: int) -> Outgoing:
    """A dead letter that the sink takes: without what is not ours, then without the end of its payload."""
    if size(letter) <= most_bytes:
        return letter
    ours = {name: value for name, value in letter.headers.items() if name.startswith("Modelyard-")}
    found = Outgoing(position=letter.position, payload=letter.payload, headers=ours, dead=True)
    if size(found) <= most_bytes:
        return found
    ours = {**{name: value for name, value in ours.items() if name != ERRORS}, CUT: str(len(letter.payload))}
    empty = Outgoing(position=letter.position, payload=b"", headers=ours, dead=True)
    left = max(0, most_bytes - size(empty))
    return Outgoing(position=letter.position, payload=letter.payload[:left], headers=ours, dead=True)


def size(outgoing: Outgoing) -> int:
    """As a broker counts it, or a little more."""
    total = len(outgoing.payload) + _ROOM
    for name, value in outgoing.headers.items():
        total += len(name) + len(value.encode("utf-8", "replace")) + 4
    return total


def plain_text(text: str, most: int) -> str:
    """On one line and in ASCII, as headers must be."""
    line = " ".join(text.split())
    found = "".join(each if each.isascii() and each.isprintable() else "?" for each in line[:most])
    return f"{found[: most - 3]}..." if len(line) > most else found


def _kept(source: Mapping[str, str]) -> dict[str, str]:
    if not source:
        return {}
    return {name: value for name, value in source.items() if not name.lower().startswith(_OURS)}

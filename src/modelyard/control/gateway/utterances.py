"""What Envoy says, without what it repeats of its configuration: that holds secrets of units and keys of TLS.

Where a message breaks a rule of its type, Envoy's protobuf writes the whole message before it says why.
"""

import re

_DUMP = re.compile(r"goo\.gle/debug.*?(?:: (?=Proto )|\Z)", re.DOTALL)
_LONGEST_LINE = 64 * 2**10


def without_dumps(text: str) -> str:
    """A sentence of Envoy without the messages that it repeats."""
    return _DUMP.sub("", text) or "Envoy did not say why"


class Lines:
    """A log that arrives in pieces, in lines without dumps. Each entry of the log must be one line of it."""

    def __init__(self) -> None:
        self._rest = b""
        self._skips = False

    def feed(self, chunk: bytes) -> list[str]:
        """The lines that are whole now. Of one that is too long, the beginning."""
        *whole, rest = (self._rest + chunk).split(b"\n")
        if self._skips and whole:
            del whole[0]
            self._skips = False
        if len(rest) > _LONGEST_LINE or self._skips:
            whole += [] if self._skips else [rest[:_LONGEST_LINE]]
            rest, self._skips = b"", True
        self._rest = rest
        return [without_dumps(each.decode(errors="replace")) for each in whole if each.strip()]

    def end(self) -> list[str]:
        """What is left when nothing more comes."""
        return self.feed(b"\n")

"""A piece that many messages share."""

from typing import Any


class Part(dict[str, Any]):
    """proto3 JSON of a message that is made once, put into many others, and never changed after that.

    wire: its bytes by the name of the type that it was encoded as, kept by whoever encodes it: then ten thousand
    messages that hold it cost its encoding once.
    """

    __slots__ = ("wire",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.wire: dict[str, bytes] = {}

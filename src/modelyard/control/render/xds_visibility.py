"""Who sees internal services, in Envoy's words: a header tells by which listener a request came in.

Callers cannot set it: the listeners take everything away that begins like it. Where no route matches, an internal
service is as good as unknown.
"""

from typing import Any

Json = dict[str, Any]

HEADER = "x-modelyard-listener"
_INTERNAL = "internal"


def mark() -> Json:
    """A mutation of the headers of all requests at a listener that internal services answer."""
    header = {"key": HEADER, "value": _INTERNAL}
    return {"append": {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}


def marked() -> Json:
    """A condition of a route."""
    return {"name": HEADER, "string_match": {"exact": _INTERNAL}}

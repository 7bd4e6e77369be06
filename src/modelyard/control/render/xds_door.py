"""Doors: the ways in which callers reach the gateway, in no words of Envoy; and what each adds to its listener."""

import enum
from typing import Any, NamedTuple

from modelyard.control.render import xds_tls
from modelyard.control.render.xds import LISTENER_NAME

Json = dict[str, Any]

INTERNAL_NAME = "internal"

_IDLE = "300s"
_LONGEST_TRUST = "300s"
"""Of a connection whose caller has shown a certificate: that may end, or its authority be taken away."""
_STREAMS = 100
_STREAM_BYTES = 2**20
_CONNECTION_BYTES = 4 * 2**20


class Lock(enum.Enum):
    """What callers must do to come in: nothing; speak TLS; and show a certificate as well. CLOSED: nobody can."""

    OPEN = enum.auto()
    TLS = enum.auto()
    MUTUAL = enum.auto()
    CLOSED = enum.auto()


class Door(NamedTuple):
    """A listener. internal: services that are internal answer here. exposed: other machines reach it."""

    name: str = LISTENER_NAME
    host: str = "127.0.0.1"
    port: int = 0
    internal: bool = True
    exposed: bool = False
    lock: Lock = Lock.OPEN


def address(door: Door) -> Json:
    """Where it listens. All addresses of IPv6 include those of IPv4, as with other programs."""
    place: Json = {"address": door.host, "port_value": door.port}
    return {"socket_address": place | ({"ipv4_compat": True} if door.host == "::" else {})}


def chain(door: Door) -> Json:
    """What the chain of filters has besides its filters."""
    if door.lock is Lock.OPEN:
        return {}
    if door.lock is Lock.CLOSED:
        # Nobody has this address: every connection is closed at once.
        nobody = {"address_prefix": "255.255.255.255", "prefix_len": 32}
        return {"filter_chain_match": {"source_prefix_ranges": [nobody]}}
    return {
        "transport_socket": xds_tls.transport_socket(mutual=door.lock is Lock.MUTUAL),
        "transport_socket_connect_timeout": "10s",
    }


def lifetime(door: Door) -> Json:
    """How long a connection lasts. One that has come to its end is closed with an answer, or when it is idle."""
    return {"idle_timeout": _IDLE} | ({"max_connection_duration": _LONGEST_TRUST} if door.lock is Lock.MUTUAL else {})


def limits(door: Door) -> Json:
    """Of connections where anybody may open them. One connection must not take the memory of all."""
    if not door.exposed:
        return {}
    return {
        "http2_protocol_options": {
            "max_concurrent_streams": _STREAMS,
            "initial_stream_window_size": _STREAM_BYTES,
            "initial_connection_window_size": _CONNECTION_BYTES,
        }
    }

"""Envoy's protobuf messages, from the descriptors that the build put beside this file.

They live in a pool of their own, so that they never meet another package's copy of the same files. The first use takes
about 50 ms.
"""

import zlib
from functools import cache
from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message, message_factory

from modelyard.base.errors import UserError
from modelyard.control.gateway.encoding import Codecs, Unusual

FILE = "envoy_api.binpb.z"


@cache
def message_class(name: str) -> type[message.Message]:
    """The class of a message by its full name, `envoy.config.cluster.v3.Cluster`."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(name))


def encode(name: str, body: dict[str, Any]) -> bytes:
    """The wire form of a message given as proto3 JSON; the same bytes for equal bodies.

    Raises UserError where the body is not such a message: a number out of range, for instance.
    """
    try:
        return _codecs().named(name)(body)
    except Unusual:
        return encode_officially(name, body)


def encode_officially(name: str, body: dict[str, Any]) -> bytes:
    """The same by protobuf's own means: slower, and with words on what is wrong."""
    try:
        parsed = json_format.ParseDict(body, message_class(name)(), descriptor_pool=_pool())
    except json_format.ParseError as error:
        raise UserError(f"it cannot be said to Envoy: {error}") from error
    return parsed.SerializeToString(deterministic=True)


@cache
def _codecs() -> Codecs:
    return Codecs(_pool())


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    try:
        data = resources.files(__package__).joinpath(FILE).read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"{FILE}, which tells Envoy's API, is missing: in a checkout run 'make setup', else install modelyard again"
        ) from None
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(zlib.decompress(data)).file:
        pool.Add(file)
    return pool

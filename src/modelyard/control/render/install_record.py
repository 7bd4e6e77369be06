"""What an installation remembers of itself, in a ConfigMap of its own, so that the next one asks for the same.

Options are remembered as they would be said. What is as by default is not, so that a default can change with a version;
nor is the tag of the images, since the next version has another one.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from modelyard import __version__
from modelyard.control.render.install_options import Object, Options, made

RECORD = "modelyard-install"
"""ConfigMap in the system namespace."""
_TAG, _SECRETS, _POLICIES = "image-tag", "pull-secret", "network-policies"


@dataclass(frozen=True, slots=True)
class Record:
    """version: of the command line that has installed; tag: of the images; arguments: options as they are said."""

    version: str
    tag: str
    arguments: tuple[str, ...]


def record(options: Options) -> Object:
    """The ConfigMap."""
    data = {"version": __version__, _TAG: options.version, "options": "\n".join(arguments(options))}
    return {**made("v1", "ConfigMap", RECORD, options, "system"), "data": data}


def read(body: Mapping[str, object]) -> Record:
    """Of the stored ConfigMap; what somebody took out of it is empty."""
    data = body.get("data")
    found = {str(key): str(value) for key, value in data.items()} if isinstance(data, dict) else {}
    said = tuple(line.strip() for line in found.get("options", "").splitlines() if line.strip())
    return Record(found.get("version", ""), found.get(_TAG, ""), said)


def arguments(options: Options) -> list[str]:
    """`["--gateway-replicas=3"]`: what differs from the defaults."""
    defaults = _described(Options(version=options.version))
    return [
        argument
        for name, value in _described(options).items()
        if value != defaults[name]
        for argument in _said(name, options, value)
    ]


def changes(before: Options, after: Options) -> list[str]:
    """`["gateway-replicas: 3 -> 2"]`."""
    old = _described(before)
    return [f"{name}: {old[name]} -> {value}" for name, value in _described(after).items() if old[name] != value]


def is_older(version: str, than: str) -> bool:
    """By the first three numbers."""
    return _numbers(version) < _numbers(than)


def _numbers(version: str) -> list[int]:
    return [int(each) for each in re.findall(r"\d+", version)[:3]]


def _described(options: Options) -> dict[str, str]:
    return {
        "image-prefix": options.image_prefix,
        _TAG: options.version,
        "pull-policy": options.pull_policy,
        _SECRETS: ", ".join(options.pull_secrets) or "none",
        "operator-replicas": str(options.operator_replicas),
        "gateway-replicas": str(options.gateway_replicas),
        "gateway-memory": options.gateway_resources["limits"]["memory"],
        "gateway-service": options.service_type,
        _POLICIES: "yes" if options.network_policies else "no",
    }


def _said(name: str, options: Options, value: str) -> Iterator[str]:
    if name == _SECRETS:
        yield from (f"--{name}={each}" for each in options.pull_secrets)
    elif name == _POLICIES:
        yield f"--{'' if options.network_policies else 'no-'}{name}"
    else:
        yield f"--{name}={value}"

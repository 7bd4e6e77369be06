"""Rules for names, labels and keys. Each function yields what is wrong, word for word as Kubernetes says it.

Source: k8s.io/apimachinery pkg/util/validation/validation.go.
"""

import re
from collections.abc import Iterator

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = rf"({_QUALIFIED})?"
_CONFIG_KEY = r"[-._a-zA-Z0-9]+"
_LABEL_SAYS = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    f"an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
)
_SUBDOMAIN_SAYS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    f"end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
)
_QUALIFIED_SAYS = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    f"(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_QUALIFIED}')"
)
_LABEL_VALUE_SAYS = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    f"'{_LABEL_VALUE}')"
)
_CONFIG_KEY_SAYS = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or "
    f"'key-name', regex used for validation is '{_CONFIG_KEY}')"
)


def label_faults(name: str) -> Iterator[str]:
    """A DNS-1123 label: no dots, at most 63 characters."""
    yield from _length(name, 63)
    if not re.fullmatch(_LABEL, name):
        yield _LABEL_SAYS


def subdomain_faults(name: str) -> Iterator[str]:
    """A DNS-1123 subdomain: labels joined by dots, at most 253 characters."""
    yield from _length(name, 253)
    if not re.fullmatch(_SUBDOMAIN, name):
        yield _SUBDOMAIN_SAYS


def path_segment_faults(name: str) -> Iterator[str]:
    """A name of a role or binding: whatever can stand between two slashes, such as `system:discovery`."""
    if name in (".", ".."):
        yield f"may not be '{name}'"
    yield from (f"may not contain '{each}'" for each in ("/", "%") if each in name)
    if not name.isprintable():
        yield "may only contain characters that can be printed"


def qualified_name_faults(name: str) -> Iterator[str]:
    """A key of labels, annotations and finalizers: `[DNS subdomain/]name`."""
    prefix, slash, rest = name.rpartition("/")
    if slash and not prefix:
        yield "prefix part must be non-empty"
    elif slash:
        yield from (f"prefix part {fault}" for fault in subdomain_faults(prefix))
    if not rest:
        yield "name part must be non-empty"
    yield from (f"name part {fault}" for fault in _length(rest, 63))
    if not re.fullmatch(_QUALIFIED, rest):
        yield f"name part {_QUALIFIED_SAYS}"


def label_value_faults(value: str) -> Iterator[str]:
    """A value of a label."""
    yield from _length(value, 63)
    if not re.fullmatch(_LABEL_VALUE, value):
        yield _LABEL_VALUE_SAYS


def config_key_faults(key: str) -> Iterator[str]:
    """A key of a ConfigMap or Secret, which may become a file name."""
    yield from _length(key, 253)
    if not re.fullmatch(_CONFIG_KEY, key):
        yield _CONFIG_KEY_SAYS
    elif key in (".", ".."):
        yield f"must not be '{key}'"
    elif key.startswith(".."):
        yield "must not start with '..'"


def _length(text: str, most: int) -> Iterator[str]:
    if len(text) > most:
        yield f"must be no more than {most} characters"

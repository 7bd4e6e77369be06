"""Objects as YAML documents that people read and compare."""

from collections.abc import Iterable, Mapping
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """No anchors; texts of several lines as they are; items of lists stand under their key."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  the signature is PyYAML's
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def document(body: Mapping[str, Any]) -> str:
    """One object, in the order of its keys."""
    return yaml.dump(dict(body), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


def documents(bodies: Iterable[Mapping[str, Any]]) -> str:
    """Several, each behind `---`."""
    return "".join(f"---\n{document(each)}" for each in bodies)

"""The base of every IR value: frozen, comparable, ordered by field, and JSON-able for revisions and goldens."""

import msgspec


class Value(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True, gc=False
):
    """Equal means equal: so "publish if changed" and goldens are free.

    Values hold values only, and so no cycles: the collector need not look at the hundred thousands that there are.
    """


class Key(Value, frozen=True, kw_only=True, order=True):
    """The object that a value belongs to. kind is a kind of the API, as a plain word."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"

"""The lines that a watch sends."""

import asyncio
import json
from typing import Any

import pytest

from modelyard.base.clock import ManualClock
from modelyard.control.apiserver import kinds, watching
from modelyard.control.apiserver.database import Change, Event, Key
from modelyard.control.apiserver.requests import Form, ListOptions
from modelyard.control.apiserver.status import StatusError
from modelyard.control.apiserver.store import Store

CONFIG = next(kind for kind in kinds.builtin() if kind.kind == "ConfigMap")


async def write(store: Store, name: str, labels: dict[str, str] | None = None, *, remove: bool = False) -> Event:
    key = Key(CONFIG.resource_name, "n", name)
    current = await store.get(key)
    metadata = {"name": name, "namespace": "n", "labels": labels or {}, "creationTimestamp": "2024-01-01T00:00:00Z"}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    return await store.write(Change(key=key, expected=current.revision if current else 0, body=body, remove=remove))


class Reader:
    """Reads the lines of one watch."""

    def __init__(self, store: Store, *, form: Form = Form(), bookmark_seconds: float = 60.0, **options: Any) -> None:  # noqa: B008
        chosen = ListOptions(**options)
        lines = watching.Lines(CONFIG, chosen, form, ManualClock())
        self._stream = watching.stream(store, CONFIG, None, chosen, lines, bookmark_seconds=bookmark_seconds)

    async def __aenter__(self) -> "Reader":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stream.aclose()

    async def raw(self) -> list[dict[str, Any]]:
        async with asyncio.timeout(5):
            text = await anext(self._stream, None)
        return [] if text is None else [json.loads(line) for line in text.splitlines()]

    async def seen(self) -> list[tuple[str, str, str]]:
        return [
            (event["type"], event["object"]["metadata"].get("name", ""), event["object"]["metadata"]["resourceVersion"])
            for event in await self.raw()
        ]


async def test_a_watch_without_a_version_begins_with_everything() -> None:
    async with Store.memory(ManualClock()) as store:
        await write(store, "a")
        await write(store, "b")
        async with Reader(store, initial_events=True) as reader:
            assert await reader.seen() == []
            assert await reader.seen() == [("ADDED", "a", "1"), ("ADDED", "b", "2")]
            await write(store, "a", remove=True)
            assert await reader.seen() == [("DELETED", "a", "3")]


async def test_a_watch_goes_on_from_a_version() -> None:
    async with Store.memory(ManualClock()) as store:
        await write(store, "a")
        await write(store, "a")
        async with Reader(store, revision=1) as reader:
            assert await reader.seen() == []
            assert await reader.seen() == [("MODIFIED", "a", "2")]


async def test_a_selector_turns_changes_into_arrivals_and_departures() -> None:
    async with Store.memory(ManualClock()) as store:
        await write(store, "first")
        async with Reader(store, revision=1, labels="tier=gold") as reader:
            assert await reader.seen() == []
            await write(store, "a", {"tier": "tin"})
            await write(store, "a", {"tier": "gold"})
            await write(store, "a", {"tier": "gold", "more": "x"})
            await write(store, "a", {"tier": "tin"})
            await write(store, "a", {"tier": "gold"})
            await write(store, "a", {"tier": "gold"}, remove=True)
            found: list[dict[str, Any]] = []
            while len(found) < 5:
                found += await reader.raw()
            shown = [(each["type"], each["object"]["metadata"]["resourceVersion"]) for each in found]
            assert shown == [("ADDED", "3"), ("MODIFIED", "4"), ("DELETED", "5"), ("ADDED", "6"), ("DELETED", "7")]
            assert found[2]["object"]["metadata"]["labels"] == {"tier": "gold", "more": "x"}


async def test_bookmarks_move_on_while_nothing_happens_here() -> None:
    async with Store.memory(ManualClock()) as store:
        await write(store, "a")
        async with Reader(store, revision=1, bookmarks=True, bookmark_seconds=0.02) as reader:
            assert await reader.seen() == []
            await store.write(Change(key=Key("others", "", "x"), expected=0, body={"metadata": {"name": "x"}}))
            found = await reader.raw()
            assert [each["type"] for each in found] == ["BOOKMARK"]
            assert found[0]["object"] == {
                "kind": "ConfigMap",
                "apiVersion": "v1",
                "metadata": {"resourceVersion": "2", "creationTimestamp": None},
            }


async def test_the_end_of_the_initial_events_is_marked_on_demand() -> None:
    async with Store.memory(ManualClock()) as store:
        await write(store, "a")
        async with Reader(store, initial_events=True, send_initial_events=True, bookmarks=True) as reader:
            assert await reader.raw() == []
            (first,), (last,) = await reader.raw(), await reader.raw()
            assert first["type"] == "ADDED"
            assert last["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_only_the_first_table_of_a_watch_names_the_columns() -> None:
    async with Store.memory(ManualClock()) as store:
        await write(store, "a")
        async with Reader(store, initial_events=True, form=Form(table=True)) as reader:
            assert await reader.raw() == []
            (first,) = await reader.raw()
            await write(store, "b")
            (second,) = await reader.raw()
            assert first["object"]["columnDefinitions"]
            assert not second["object"]["columnDefinitions"]
            assert second["object"]["rows"][0]["cells"][0] == "b"


async def test_a_version_that_is_forgotten_or_unknown_is_gone() -> None:
    clock = ManualClock()
    async with Store.memory(clock) as store:
        for _ in range(5):
            await write(store, "a")
        await store.compact(clock.now() + 1, keep=1, seconds=0)
        for revision in (2, 99):
            async with Reader(store, revision=revision) as reader:
                with pytest.raises(StatusError) as caught:
                    await reader.raw()
                assert caught.value.code == 410


async def test_a_watch_ends_when_its_reader_is_too_slow() -> None:
    async with Store.memory(ManualClock()) as store:
        await write(store, "a")
        async with Reader(store, revision=1) as reader:
            assert await reader.seen() == []
            for watch in store._watches:
                watch._capacity = 1
            await write(store, "a")
            await write(store, "a")
            assert await reader.raw() == []

"""The store against a dictionary: any sequence of writes, any revision to list or to watch from."""

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.base.clock import ManualClock
from modelyard.base.errors import UserError
from modelyard.control.apiserver import database
from modelyard.control.apiserver.database import Change, Compacted, DiskFull, Event, Key, Raced, Range, Unreached
from modelyard.control.apiserver.store import Store

_KEYS = [Key("things", "a", "x"), Key("things", "a", "y"), Key("things", "b", "x"), Key("others", "", "x")]
_STEPS = st.lists(st.tuples(st.sampled_from(_KEYS), st.sampled_from(["write", "remove"])), max_size=25)


def body(key: Key, text: str = "") -> dict[str, object]:
    return {"metadata": {"name": key.name}, "text": text}


async def write(store: Store, key: Key, *, remove: bool = False, text: str = "") -> Event:
    current = await store.get(key)
    expected = current.revision if current else 0
    return await store.write(Change(key=key, expected=expected, body=body(key, text), remove=remove))


async def play(store: Store, steps: list[tuple[Key, str]]) -> tuple[list[Event], list[dict[Key, bytes]]]:
    """The events, and what existed at each revision (the index)."""
    events: list[Event] = []
    states: list[dict[Key, bytes]] = [{}]
    for number, (key, what) in enumerate(steps):
        if what == "remove" and key not in states[-1]:
            continue
        event = await write(store, key, remove=what == "remove", text=str(number))
        state = {**states[-1], key: event.body}
        if what == "remove":
            del state[key]
        events.append(event)
        states.append(state)
    return events, states


@settings(max_examples=25, deadline=None)
@given(_STEPS)
async def test_every_revision_lists_what_a_dictionary_would_hold(steps: list[tuple[Key, str]]) -> None:
    async with Store.memory(ManualClock()) as store:
        _, states = await play(store, steps)
        for revision, state in enumerate(states):
            for resource, namespace in (("things", None), ("things", "a"), ("others", None)):
                page = await store.page(Range(resource, namespace, at=revision))
                expected = {
                    key: text
                    for key, text in state.items()
                    if key.resource == resource and namespace in (None, key.namespace)
                }
                assert {each.key: each.body for each in page.items} == expected
                assert [each.key for each in page.items] == sorted(expected)
                assert (page.revision, page.more) == (revision, False)


@settings(max_examples=25, deadline=None)
@given(_STEPS, st.data())
async def test_a_watch_from_any_revision_tells_the_rest_of_the_log(
    steps: list[tuple[Key, str]], data: st.DataObject
) -> None:
    async with Store.memory(ManualClock()) as store:
        middle = data.draw(st.integers(0, len(steps)))
        events, states = await play(store, steps[:middle])
        since = data.draw(st.integers(0, len(events)))
        resource = data.draw(st.sampled_from([None, "things"]))
        async with store.watch(resource, None, since) as watch:
            later = await play_on(store, steps[middle:], states[-1])
            wanted = [each for each in events[since:] + later if resource in (None, each.key.resource)]
            seen: list[Event] = []
            while len(seen) < len(wanted):
                seen += await watch.next()
            assert seen == wanted
            assert since <= watch.revision <= len(events) + len(later)


async def play_on(store: Store, steps: list[tuple[Key, str]], state: dict[Key, bytes]) -> list[Event]:
    """More steps on a store that holds `state`."""
    events = []
    existing = set(state)
    for key, what in steps:
        if what == "remove" and key not in existing:
            continue
        events.append(await write(store, key, remove=what == "remove"))
        existing = existing - {key} if what == "remove" else existing | {key}
    return events


@settings(max_examples=20, deadline=None)
@given(_STEPS, st.integers(0, 25))
async def test_compaction_keeps_all_that_may_still_be_asked_for(steps: list[tuple[Key, str]], keep: int) -> None:
    clock = ManualClock()
    async with Store.memory(clock) as store:
        events, states = await play(store, steps)
        await store.compact(clock.now() + 1, keep=keep, seconds=0)
        oldest = max(0, len(events) - keep)
        for revision, state in enumerate(states):
            if revision < oldest:
                with pytest.raises(Compacted):
                    await store.page(Range("things", at=revision))
                with pytest.raises(Compacted):
                    async with store.watch("things", None, revision):
                        pass
                continue
            page = await store.page(Range("things", at=revision))
            assert {each.key: each.body for each in page.items} == {
                key: text for key, text in state.items() if key.resource == "things"
            }
            replayed = await store.replay(None, None, revision, len(events), limit=100)
            assert replayed == events[revision:]


async def test_pages_show_one_version_while_the_list_changes() -> None:
    async with Store.memory(ManualClock()) as store:
        for name in "bdf":
            await write(store, Key("things", "n", name))
        first = await store.page(Range("things", limit=2))
        await write(store, Key("things", "n", "e"))
        await write(store, Key("things", "n", "f"), remove=True)
        second = await store.page(Range("things", after=("n", "d"), limit=2, at=first.revision))
        assert [each.key.name for each in (*first.items, *second.items)] == ["b", "d", "f"]
        assert (first.more, second.more, second.revision) == (True, False, first.revision)


async def test_only_one_of_two_writers_of_a_version_wins() -> None:
    async with Store.memory(ManualClock()) as store:
        key = _KEYS[0]
        first = await write(store, key)
        wishes = [Change(key=key, expected=first.revision, body=body(key, str(each))) for each in range(5)]
        results = await asyncio.gather(*map(store.write, wishes), return_exceptions=True)
        assert sum(isinstance(each, Event) for each in results) == 1
        assert [each.current for each in results if isinstance(each, Raced)] == [2] * 4
        assert store.published == 2


async def test_a_write_is_refused_when_what_it_requires_moved() -> None:
    async with Store.memory(ManualClock()) as store:
        home = await write(store, Key("namespaces", "", "n"))
        await write(store, home.key)
        change = Change(key=_KEYS[0], expected=0, body=body(_KEYS[0]), require=(home.key, home.revision))
        with pytest.raises(Raced) as caught:
            await store.write(change)
        assert caught.value.key == home.key
        assert await store.get(_KEYS[0]) is None


async def test_a_body_carries_its_own_version() -> None:
    async with Store.memory(ManualClock()) as store:
        await write(store, _KEYS[0])
        await write(store, _KEYS[0])
        found = await store.get(_KEYS[0])
        assert found is not None
        assert json.loads(found.body)["metadata"]["resourceVersion"] == "2" == str(found.revision)


async def test_a_reader_that_is_too_slow_is_cut_off() -> None:
    async with Store.memory(ManualClock()) as store, store.watch(None, None, 0, capacity=3) as watch:
        for _ in range(4):
            await write(store, _KEYS[0])
        assert await watch.next() == []
        assert watch.revision == 0


async def test_waiting_for_a_change_can_be_cancelled_without_losing_one() -> None:
    async with Store.memory(ManualClock()) as store, store.watch(None, None, 0) as watch:
        waiting = asyncio.create_task(watch.next())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        event = await write(store, _KEYS[0])
        assert await watch.next() == [event]


async def test_a_watch_ends_when_the_store_is_closed() -> None:
    store = Store.memory(ManualClock())
    async with store.watch(None, None, 0) as watch:
        waiting = asyncio.create_task(watch.next())
        await asyncio.sleep(0)
        await store.close()
        assert await waiting == []


async def test_a_revision_that_was_never_reached_is_refused() -> None:
    async with Store.memory(ManualClock()) as store:
        with pytest.raises(Unreached):
            await store.page(Range("things", at=1))
        with pytest.raises(Unreached):
            async with store.watch(None, None, 7):
                pass


async def test_a_file_keeps_objects_and_goes_on_with_the_revisions(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with Store.open(path, ManualClock()) as store:
        await write(store, _KEYS[0], text="kept")
        await write(store, _KEYS[1])
        await write(store, _KEYS[1], remove=True)
    async with Store.open(path, ManualClock()) as store:
        found = await store.get(_KEYS[0])
        assert found is not None
        assert json.loads(found.body)["text"] == "kept"
        assert (await write(store, _KEYS[1])).revision == 4
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_full_disk_is_said_so_and_leaves_the_store_usable(tmp_path: Path) -> None:
    store = Store(*database.open_file(tmp_path / "store.db", ManualClock().now))
    connection = store._writer._connection
    connection.execute("PRAGMA max_page_count=20")
    async with store:
        with pytest.raises(DiskFull):
            await write(store, _KEYS[0], text="x" * 200_000)
        assert await store.get(_KEYS[0]) is None
        connection.execute("PRAGMA max_page_count=100000")
        assert (await write(store, _KEYS[0])).revision == 1


def test_a_file_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    for connection in database.open_file(path, ManualClock().now):
        connection.close()
    connection_ = sqlite3.connect(path)
    connection_.execute("PRAGMA user_version=99")
    connection_.close()
    with pytest.raises(UserError, match="newer Modelyard"):
        Store.open(path, ManualClock())


@pytest.mark.parametrize("content", [b"no database at all" * 500, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_damaged_file_is_named_with_a_way_out(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"store\.db is damaged.*restore a copy"):
        Store.open(path, ManualClock())


async def test_damage_in_the_middle_is_found_when_the_file_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with Store.open(path, ManualClock()) as store:
        for number in range(200):
            await write(store, Key("things", "n", f"t{number}"), text="x" * 500)
    content = bytearray(path.read_bytes())
    content[8192:40960] = b"\x07" * (40960 - 8192)
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        Store.open(path, ManualClock())


def test_a_database_of_another_program_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine(x)")
    connection.commit()
    connection.close()
    with pytest.raises(UserError, match="another program"):
        Store.open(path, ManualClock())


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be opened"):
        Store.open(tmp_path / "missing" / "store.db", ManualClock())

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from modelyard.base.errors import RetryLater, UserError
from modelyard.control.kube.client import ApiError
from modelyard.control.kube.resources import MODELJOBS, MODELS
from modelyard.sdk import watching
from modelyard.sdk.objects import has_failed
from modelyard.sdk.watching import SYNCED, Wish

Object = dict[str, Any]
Step = Object | Exception | None


def model(name: str, version: int, **condition: str) -> Object:
    status = {"conditions": [{"type": "Ready", **condition}]} if condition else {}
    return {"metadata": {"name": name, "namespace": "default", "resourceVersion": str(version)}, "status": status}


def event(kind: str, body: Object) -> Object:
    return {"type": kind, "object": body}


class Server:
    """lists: what each list request answers; watches: what each watch sends before it ends (None: silence)."""

    def __init__(self, lists: list[list[Object]], watches: list[list[Step]]) -> None:
        self._lists = lists
        self._watches = watches
        self.asked: list[dict[str, str]] = []

    async def list(self, *_place: Any, **_parameters: str) -> Object:
        found = self._lists.pop(0)
        version = max((int(each["metadata"]["resourceVersion"]) for each in found), default=1)
        return {"metadata": {"resourceVersion": str(version)}, "items": found}

    async def watch(self, *_place: Any, idle: float) -> AsyncIterator[Object]:
        self.asked.append(_place[2])
        for step in self._watches.pop(0) if self._watches else [None]:
            if step is None:
                await asyncio.sleep(3600)
            elif isinstance(step, Exception):
                raise step
            else:
                yield step


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_PAUSE", 0)


async def collected(server: Server, count: int) -> list[tuple[str, str]]:
    found = []
    async with asyncio.timeout(5), aclosing(watching.follow(server, MODELS, "default")) as changes:  # type: ignore[arg-type]
        async for kind, body in changes:
            if kind != SYNCED:
                found.append((kind, body["metadata"]["name"]))
                if len(found) == count:
                    break
    return found


@pytest.mark.parametrize(
    "fault",
    [
        ConnectionResetError(),
        RetryLater("x"),
        ApiError(410, "Expired", "too old"),
        event("ERROR", {"code": 410, "reason": "Expired", "message": "too old"}),
        ValueError("garbage"),
        TimeoutError(),
        ApiError(503, "", ""),
    ],
)
async def test_what_happened_in_a_gap_is_told(fault: Step) -> None:
    server = Server(
        lists=[[model("a", 1), model("b", 2)], [model("b", 5), model("c", 4)]],
        watches=[[event("MODIFIED", model("a", 3)), fault], [event("ADDED", model("d", 6))]],
    )
    assert await collected(server, 7) == [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("MODIFIED", "a"),
        ("MODIFIED", "b"),
        ("ADDED", "c"),
        ("DELETED", "a"),
        ("ADDED", "d"),
    ]


async def test_a_watch_that_ends_orderly_goes_on_where_it_was() -> None:
    bookmark = event("BOOKMARK", {"metadata": {"resourceVersion": "9"}})
    server = Server(lists=[[model("a", 1)]], watches=[[bookmark], [event("DELETED", model("a", 10))]])
    assert await collected(server, 2) == [("ADDED", "a"), ("DELETED", "a")]
    assert [each["resourceVersion"] for each in server.asked] == ["1", "9"]


async def test_what_will_not_heal_is_raised() -> None:
    server = Server(lists=[[]], watches=[[ApiError(403, "Forbidden", "no")]])
    with pytest.raises(ApiError, match="no"):
        await collected(server, 1)


def ready(state: Object | None) -> bool:
    return state is not None and state["status"]["conditions"][0]["status"] == "True"


def never(_state: Object | None) -> bool:
    return False


async def waited(server: Server, seconds: float, hopeless: Callable[[Object | None], bool] = never) -> Object | None:
    wish = Wish(until=ready, hopeless=hopeless)
    return await watching.wait(server, MODELS, "default", "a", wish, seconds)  # type: ignore[arg-type]


async def test_waiting_ends_when_it_holds() -> None:
    first = event("ADDED", model("a", 2, status="False", reason="Preparing"))
    second = event("MODIFIED", model("a", 3, status="True", reason="Prepared"))
    server = Server(lists=[[]], watches=[[first, second]])
    found = await waited(server, 5)
    assert found is not None
    assert found["metadata"]["resourceVersion"] == "3"


async def test_waiting_for_an_object_to_go_ends_also_when_it_was_never_there() -> None:
    server = Server(lists=[[]], watches=[])
    wish = Wish(until=lambda state: state is None)
    assert await watching.wait(server, MODELS, "default", "a", wish, 5) is None  # type: ignore[arg-type]


async def test_the_end_of_patience_says_what_was_seen() -> None:
    server = Server(lists=[[model("a", 1, status="Unknown", reason="Preparing", message="reading x")]], watches=[])
    with pytest.raises(RetryLater, match=r"Model a is not Ready after 0\.01 s: Preparing: reading x"):
        await waited(server, 0.01)


async def test_a_hopeless_state_that_stays_ends_the_waiting_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_HOPELESS_SECONDS", 0.05)
    broken = model("a", 1, status="False", reason="ArtifactInvalid", message="cut off")
    server = Server(lists=[[broken]], watches=[[event("MODIFIED", {**broken}), None]])
    with pytest.raises(UserError, match="Model a is not Ready: ArtifactInvalid: cut off"):
        await waited(server, 60, hopeless=lambda state: state is not None)


async def test_what_is_over_ends_the_waiting_at_once() -> None:
    failed = {"type": "Failed", "status": "True"}
    complete = {"type": "Complete", "status": "False", "reason": "SchemaMismatch", "message": "no column X"}
    job = {"kind": "ModelJob", **model("a", 1), "status": {"conditions": [complete, failed]}}
    wish = Wish(until=never, over=has_failed)
    with pytest.raises(UserError, match="ModelJob a has failed: SchemaMismatch: no column X"):
        await watching.wait(Server([[job]], []), MODELJOBS, "default", "a", wish, 60)  # type: ignore[arg-type]


async def test_a_hopeless_state_may_be_renewed_in_time() -> None:
    broken = model("a", 1, status="False", reason="ArtifactInvalid")
    server = Server(lists=[[broken]], watches=[[event("MODIFIED", model("a", 2, status="True", reason="Prepared"))]])
    assert await waited(server, 60, hopeless=lambda state: not ready(state)) is not None

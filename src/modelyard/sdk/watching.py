"""Follow objects over lost connections, and wait until something holds for one."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass

import aiohttp

from modelyard.base.errors import RetryLater, UserError
from modelyard.control.kube.client import ApiError, Client
from modelyard.control.kube.resources import Resource
from modelyard.sdk.objects import Object, condition, has_failed, list_all, main_condition

SYNCED = "SYNCED"
_WATCH_SECONDS = 300
_IDLE_GRACE = 15.0
_PAUSE = 0.5
_HOPELESS_SECONDS = 3.0


async def follow(
    client: Client, resource: Resource, namespace: str | None, name: str | None = None, *, selector: str | None = None
) -> AsyncGenerator[tuple[str, Object], None]:
    """("ADDED" | "MODIFIED" | "DELETED", object), first everything that is there; goes on over lost connections.

    (SYNCED, {}) after each look at everything that is there. name: only that object; selector: only with such labels.
    Ends only when the caller stops; raises ApiError where trying again is useless.
    """
    chosen = {"fieldSelector": f"metadata.name={name}"} if name else {}
    if selector:
        chosen["labelSelector"] = selector
    known: dict[tuple[str, str], Object] = {}
    version: str | None = None
    while True:
        try:
            if version is None:
                listed, version = await list_all(client, resource, namespace, **chosen)
                for kind, body in _differences(known, listed):
                    yield kind, body
                yield SYNCED, {}
            async with aclosing(_watch(client, resource, namespace, {**chosen, "resourceVersion": version})) as changes:
                async for kind, body in changes:
                    version = body["metadata"]["resourceVersion"]
                    if kind != "BOOKMARK":
                        _note(known, kind, body)
                        yield kind, body
        except ApiError as error:
            if error.status not in (410, 429) and error.status < 500:
                raise
            version = None
        except (RetryLater, aiohttp.ClientError, TimeoutError, OSError, ValueError):
            version = None
        await asyncio.sleep(_PAUSE)


async def _watch(
    client: Client, resource: Resource, namespace: str | None, parameters: Mapping[str, str]
) -> AsyncGenerator[tuple[str, Object], None]:
    asked = {**parameters, "allowWatchBookmarks": "true", "timeoutSeconds": str(_WATCH_SECONDS)}
    async with aclosing(client.watch(resource, namespace, asked, idle=_WATCH_SECONDS + _IDLE_GRACE)) as changes:
        async for event in changes:
            body = event["object"]
            if event.get("type") == "ERROR":
                raise ApiError(int(body.get("code", 500)), str(body.get("reason", "")), str(body.get("message", "")))
            body.setdefault("apiVersion", resource.api_version)
            body.setdefault("kind", resource.kind)
            yield str(event.get("type")), body


def _differences(known: dict[tuple[str, str], Object], items: list[Object]) -> list[tuple[str, Object]]:
    """A list after a gap, as events: also what was deleted in the gap."""
    found = []
    present = set()
    for body in items:
        key = _key(body)
        present.add(key)
        before = known.get(key)
        if before is None:
            found.append(("ADDED", body))
        elif before["metadata"].get("resourceVersion") != body["metadata"].get("resourceVersion"):
            found.append(("MODIFIED", body))
    found.extend(("DELETED", known[key]) for key in known.keys() - present)
    for kind, body in found:
        _note(known, kind, body)
    return found


def _note(known: dict[tuple[str, str], Object], kind: str, body: Object) -> None:
    if kind == "DELETED":
        known.pop(_key(body), None)
    else:
        known[_key(body)] = body


def _key(body: Object) -> tuple[str, str]:
    return body["metadata"].get("namespace", ""), body["metadata"]["name"]


def _never(_state: Object | None) -> bool:
    return False


def _silent(_state: Object | None) -> None:
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What to wait for. until: it holds. over: it never will. hopeless: it will not hold before somebody acts. told:
    gets every state.

    A state is the object, or None while there is none.
    """

    until: Callable[[Object | None], bool]
    over: Callable[[Object | None], bool] = _never
    hopeless: Callable[[Object | None], bool] = _never
    told: Callable[[Object | None], None] = _silent


async def wait(
    client: Client, resource: Resource, namespace: str | None, name: str, wish: Wish, seconds: float
) -> Object | None:
    """The state as soon as the wish holds.

    Raises UserError at once when it is over, and when it stayed hopeless for three seconds (a state may be about to be
    renewed); RetryLater when the time is over. Each says what was last seen.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    state: Object | None = None
    given_up: float | None = None
    try:
        following = follow(client, resource, namespace, name)
        async with asyncio.timeout_at(deadline) as limit, aclosing(following) as changes:
            async for kind, body in changes:
                if kind != SYNCED:
                    state = None if kind == "DELETED" else body
                wish.told(state)
                if wish.until(state):
                    return state
                if wish.over(state):
                    raise UserError(f"{resource.kind} {name} {_seen(resource, state)}")
                if not wish.hopeless(state):
                    given_up = None
                elif given_up is None:
                    given_up = loop.time() + _HOPELESS_SECONDS
                limit.reschedule(deadline if given_up is None else min(deadline, given_up))
    except TimeoutError as error:
        if wish.hopeless(state):
            raise UserError(f"{resource.kind} {name} {_seen(resource, state)}") from error
        raise RetryLater(f"{resource.kind} {name} {_seen(resource, state, f' after {seconds:g} s')}") from error
    raise AssertionError("unreachable: following ends only by an exception")


def _seen(resource: Resource, state: Object | None, when: str = "") -> str:
    wanted = main_condition(resource.kind)
    if state is None:
        return f"is not there{when}"
    if state["metadata"].get("deletionTimestamp"):
        return f"is still being deleted{when}"
    found = condition(state, wanted)
    if not found:
        return f"has no condition {wanted} yet{when}"
    told = f"{found.get('reason')}: {found.get('message')}" if found.get("message") else str(found.get("reason"))
    if has_failed(state):
        return f"has failed: {told}"
    return f"is {wanted if found.get('status') == 'True' else f'not {wanted}'}{when}: {told}"

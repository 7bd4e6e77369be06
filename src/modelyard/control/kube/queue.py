"""The work queue of client-go: each key once, one worker at a time, tried again with growing pauses.

Source: k8s.io/client-go/util/workqueue.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from modelyard.control.kube.client import jittered

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """A key that is added while it is worked on comes again afterwards. Not bounded in keys: the objects are."""

    def __init__(
        self, *, first_pause: float = 0.2, longest_pause: float = 60.0, jitter: Callable[[float], float] = jittered
    ) -> None:
        self._ready: deque[K] = deque()
        self._dirty: set[K] = set()
        self._busy: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._filled = asyncio.Event()
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._jitter = jitter

    def __len__(self) -> int:
        """Keys that wait, those being worked on again included."""
        return len(self._dirty)

    def add(self, key: K) -> None:
        """Work on it soon."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._busy:
            self._ready.append(key)
            self._filled.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Work on it when that time has passed; of several times the earliest counts."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._fire, key)

    def retry(self, key: K) -> None:
        """It failed: work on it after a pause that doubles each time."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.add_after(key, self._jitter(min(self._first_pause * 2 ** min(failures, 20), self._longest_pause)))

    def forget(self, key: K) -> None:
        """It worked: the next failure starts with the first pause, and nothing that was put off is left to do."""
        self._failures.pop(key, None)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    async def get(self) -> K:
        """The next key; nobody else gets it until `done`."""
        while not self._ready:
            self._filled.clear()
            await self._filled.wait()
        key = self._ready.popleft()
        self._dirty.discard(key)
        self._busy.add(key)
        return key

    def done(self, key: K) -> None:
        """The worker is finished with it, successfully or not."""
        self._busy.discard(key)
        if key in self._dirty:
            self._ready.append(key)
            self._filled.set()

    def _fire(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

"""Requests as an application sends them: one row each, over kept connections."""

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from modelyard.base.errors import ModelyardError, UserError
from modelyard.sdk.client import Client

_THREADS = 4


@dataclass(frozen=True, slots=True)
class Result:
    """labels: INT64 [n]; milliseconds: of each request."""

    labels: NDArray[np.int64]
    milliseconds: NDArray[np.float64]

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.milliseconds, share))


def send_all(url: str, name: str, images: NDArray[Any]) -> Result:
    """One request for each image, one after the other. Raises what the client raises."""
    labels, times = [], []
    with Client(url) as client:
        client.predict(name, {"X": images[:1]})  # opens the connection, reads the signature
        for image in images:
            started = time.perf_counter()
            answer = client.predict(name, {"X": image[None]})
            times.append((time.perf_counter() - started) * 1e3)
            labels.append(int(answer["label"][0]))
    return Result(np.array(labels), np.array(times))


class Load:
    """Continuous load in the background from entering to leaving. Nothing is tried again: a failure is a failure."""

    def __init__(self, url: str, name: str, images: NDArray[Any]) -> None:
        self.failures: list[str] = []
        self._url = url
        self._name = name
        self._images = images
        self._sent = [0] * _THREADS
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(index,)) for index in range(_THREADS)]

    @property
    def sent(self) -> int:
        """Requests so far, failed ones included."""
        return sum(self._sent)

    def wait_for(self, sent: int) -> None:
        """Until so many were sent."""
        deadline = time.monotonic() + 30
        while self.sent < sent:
            if time.monotonic() > deadline:
                raise UserError(f"only {self.sent} requests were answered; the last failure: {self.failures[-1:]}")
            time.sleep(0.01)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _send(self, index: int) -> None:
        step = index
        with Client(self._url, retry=False) as client:
            while not self._over.is_set():
                image = self._images[step % len(self._images)]
                try:
                    client.predict(self._name, {"X": image[None]})
                except ModelyardError as error:
                    self.failures.append(str(error))
                self._sent[index] += 1
                step += _THREADS

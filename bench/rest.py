"""What `modelyard up` costs at rest, and how quickly it is there: one table.

    PYTHONPATH=src:tests python bench/rest.py [--seconds 20] [--rounds 3]

Starts a server on an empty folder and measures the proportional memory (PSS) and the processor time of it and its Envoy
while nothing happens; then the time from the application of a pinned model to its first answer, and the time without
answers after Envoy was killed. Times are medians over the rounds. The status is 1 when a target is missed.
"""

import argparse
import asyncio
import contextlib
import http.client
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from modelyard.control.kube.client import Client
from modelyard.sdk import find, objects
from modelyard.storage.digest import digest
from yard_testing import Yard, kill, service, write_onnx

_BODY = b'{"inputs":[{"name":"X","shape":[1,2],"datatype":"FP32","data":[1,2]}]}'
_MAX_MB, _MAX_CPU_PERCENT, _MAX_OUTAGE_SECONDS = 220.0, 1.0, 2.0
_PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.001


class Measured:
    """Rows of the table; remembers whether a target was missed."""

    def __init__(self) -> None:
        self.missed = False

    def row(self, name: str, value: float, unit: str, most: float | None = None) -> None:
        target = "" if most is None else f"< {most:g} {unit}"
        verdict = "" if most is None else "ok" if value < most else "MISSED"
        self.missed |= verdict == "MISSED"
        sys.stdout.write(f"{f'{name:<46}{value:>10.2f} {unit:<4}{target:>12}  {verdict}'.rstrip()}\n")
        sys.stdout.flush()


def memory(processes: list[psutil.Process]) -> dict[str, float]:
    """Proportional set size in MB by program."""
    found: dict[str, float] = {}
    for each in processes:
        found[each.name()] = found.get(each.name(), 0.0) + each.memory_full_info().pss / 1e6
    return found


def cpu_seconds(processes: list[psutil.Process]) -> float:
    return sum(times.user + times.system for times in (each.cpu_times() for each in processes))


def answers(address: str, name: str, timeout: float = 5.0) -> bool:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request("POST", f"/v2/models/{name}/infer", _BODY, {"Content-Type": "application/json"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def until_it_answers(address: str, name: str) -> None:
    """Ask in a tight loop."""
    start = time.monotonic()
    while not answers(address, name):
        if time.monotonic() - start > _PATIENCE_SECONDS:
            raise SystemExit(f"{name} did not answer within {_PATIENCE_SECONDS:g} s")
        time.sleep(_PAUSE_SECONDS)


def pinned(name: str, path: Path) -> dict[str, Any]:
    """A Model that needs no look at its artifact: everything is said."""
    return {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": name},
        "spec": {
            "uri": path.name,
            "digest": digest(path),
            "format": "onnx",
            "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 2]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
        },
    }


async def create(folder: Path, *bodies: dict[str, Any]) -> None:
    """Without the start of a command, which is measured elsewhere."""
    async with Client(find.find(start=folder).config) as client:
        for body in bodies:
            await objects.apply(client, body, namespace="default")


def first_answer(yard: Yard, number: int) -> float:
    """Seconds from applying a pinned model and its service to the first answer."""
    name = f"pinned-{number}"
    path = yard.folder / f"{name}.onnx"
    write_onnx(path, float(number))
    start = time.monotonic()
    asyncio.run(create(yard.folder, pinned(name, path), service(name, model={"name": name})))
    until_it_answers(urlsplit(yard.url).netloc, name)
    return time.monotonic() - start


def outage(yard: Yard, name: str) -> float:
    """Seconds without answers after Envoy was killed."""
    (envoy,) = (each for each in yard.children() if each.name() == "envoy")
    start = time.monotonic()
    kill(envoy)
    with contextlib.suppress(psutil.TimeoutExpired):
        envoy.wait(5)
    until_it_answers(urlsplit(yard.url).netloc, name)
    return time.monotonic() - start


def at_rest(yard: Yard, seconds: float, measured: Measured) -> None:
    """Nothing is served, nobody asks."""
    processes = [psutil.Process(yard.pid), *yard.children()]
    time.sleep(3.0)  # what a start leaves behind is done
    before = cpu_seconds(processes)
    time.sleep(seconds)
    used = cpu_seconds(processes) - before
    found = memory(processes)
    for program, size in found.items():
        measured.row(f"memory of {program} (PSS)", size, "MB")
    measured.row("memory together (PSS)", sum(found.values()), "MB", _MAX_MB)
    measured.row(f"processor, of one core over {seconds:g} s", 100 * used / seconds, "%", _MAX_CPU_PERCENT)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to look at the processor time")
    parser.add_argument("--rounds", type=int, default=3, help="how often to measure each time")
    options = parser.parse_args()
    measured = Measured()
    with tempfile.TemporaryDirectory(prefix="modelyard-rest-") as folder:
        starts = []
        yard = Yard(Path(folder))
        for _ in range(options.rounds - 1):
            starts.append(started(yard))
            yard.stop()
        starts.append(started(yard))
        try:
            measured.row("from 'modelyard up' to listening", statistics.median(starts), "s")
            at_rest(yard, options.seconds, measured)
            times = [first_answer(yard, number) for number in range(options.rounds)]
            measured.row("from a pinned model to its first answer", statistics.median(times), "s")
            outages = [outage(yard, "pinned-0") for _ in range(options.rounds)]
            measured.row("without answers after Envoy was killed", statistics.median(outages), "s", _MAX_OUTAGE_SECONDS)
        finally:
            yard.stop()
    return int(measured.missed)


def started(yard: Yard) -> float:
    """Seconds until it says where it listens, after which requests are taken."""
    start = time.monotonic()
    yard.start()
    return time.monotonic() - start


if __name__ == "__main__":
    sys.exit(main())

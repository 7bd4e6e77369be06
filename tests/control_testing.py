"""A control plane of the gateway in a process of its own, for an Envoy that somebody else started.

As a program: `control_testing.py RUN LOGS PORT UPSTREAMS...`, upstreams being `unit=address`. It takes units from its
standard input, one in each line, sends the requests for `iris` there, and says `in force` when that is so. Whoever
kills it leaves an Envoy that goes on with what it was told last.
"""

import asyncio
import sys
from pathlib import Path

from modelyard.base.clock import SystemClock
from modelyard.control.gateway import addresses
from modelyard.control.gateway.envoy import EnvoyGateway
from modelyard.control.gateway.process import EnvoyProcess
from modelyard.control.ir.platform import Platform
from modelyard.control.ir.route import Endpoints
from modelyard.testing.gateway_suite import IRIS, acknowledged, route


class Elsewhere(EnvoyProcess):
    """Runs already, and goes on when this process ends."""

    @property
    def pid(self) -> int:
        return -1

    async def start(self) -> None:
        pass

    async def wait(self) -> int:
        await asyncio.Event().wait()
        return 0


async def _main(run: Path, logs: Path, port: int, upstreams: list[str]) -> None:
    addresses.claimed = lambda bound, port: port
    endpoints = tuple(
        Endpoints(unit=unit, addresses=(address,)) for unit, _, address in (each.partition("=") for each in upstreams)
    )
    gateway = EnvoyGateway(host="127.0.0.1", port=port, run=run, logs=logs, clock=SystemClock())
    gateway._envoy = Elsewhere(run, logs)
    gateway.configure(Platform(authentication="none", local_only=True))
    told = await asyncio.to_thread(sys.stdin.readline)
    async with gateway:
        while told:
            wanted = route(IRIS, told.strip())
            await gateway.publish((wanted,), endpoints)
            await acknowledged(gateway, wanted)
            print("in force", flush=True)
            told = await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))

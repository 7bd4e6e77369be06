"""A control plane for gateways, as a program of its own: `leader_testing.py FOLDER UNIT SOCKET`.

It tells its port, routes the model iris to one unit, and says `acknowledged` when that is in force. FOLDER has tls.crt,
tls.key and ca.crt. It knows that two pods, gateway-0 and gateway-1, serve callers once one has connected.
"""

import asyncio
import sys
from pathlib import Path

from modelyard.base.clock import SystemClock
from modelyard.control.gateway.remote import Identity, RemoteGateway
from modelyard.control.ir.observed import ObservedRoute
from modelyard.control.ir.platform import Platform
from modelyard.control.ir.route import Endpoints
from modelyard.testing.gateway_suite import IRIS, route


async def main(folder: Path, unit: str, socket: str) -> None:
    read = {name: (folder / name).read_text() for name in ("tls.crt", "tls.key", "ca.crt")}
    identity = Identity(read["tls.crt"], read["tls.key"], read["ca.crt"])
    gateway = RemoteGateway(listen="127.0.0.1:0", identity=lambda: identity, clock=SystemClock(), address=lambda: "x")
    async with gateway:
        print(gateway.port, flush=True)
        gateway.configure(Platform(authentication="none"))
        gateway.expect(["gateway-0", "gateway-1"], leaving=[])
        wanted = route(IRIS, unit)
        await gateway.publish((wanted,), (Endpoints(unit=unit, addresses=(f"unix:{socket}",)),))
        while gateway.observe(IRIS) != ObservedRoute(acknowledged=wanted):  # noqa: ASYNC110  whatever tells it
            await asyncio.sleep(0.01)
        print("acknowledged", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))

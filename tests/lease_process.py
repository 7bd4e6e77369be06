"""A program that competes for a Lease and, while it leads, counts in a ConfigMap. Says what happens, a word a line.

Arguments: kubeconfig, identity.
"""

import asyncio
import signal
import sys
from pathlib import Path

from modelyard.base.errors import ModelyardError
from modelyard.control.kube import auth
from modelyard.control.kube.client import Client
from modelyard.control.kube.lease import Election, LeaseLostError
from modelyard.control.kube.resources import CONFIGMAPS
from modelyard.control.plan.lease import Timing

TIMING = Timing(duration=3.0, held=2.8, renew=0.5, deadline=2.0, again=0.1)


def say(word: str) -> None:
    print(word, flush=True)


async def count(client: Client, election: Election, identity: str) -> None:
    """As fast as possible, so that some write is always under way."""
    await election.leads.wait()
    number = 0
    while True:
        number += 1
        try:
            await client.patch(CONFIGMAPS, "default", "count", {"data": {"by": identity, "number": str(number)}})
        except ModelyardError as error:
            say("refused" if "does not hold the Lease" in error.message else f"failed {error.message}")
        else:
            if number == 1:
                say("leads")
        await asyncio.sleep(0.002)


async def compete(path: Path, identity: str) -> int:
    config = auth.load(path)
    say("looks")
    ends = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ends.set)
    async with Client(config, attempts=1, timeout=1.0) as own:
        election = Election(own, namespace="default", name="lead", identity=identity, timing=TIMING)
        async with Client(config, guard=election.guard) as client:
            counting = asyncio.create_task(count(client, election, identity))
            running = asyncio.create_task(election.run())
            ending = asyncio.create_task(ends.wait())
            await asyncio.wait([running, ending], return_when=asyncio.FIRST_COMPLETED)
            try:
                if running.done():
                    # What the loop would still do if nobody ended it: none of it must be written.
                    await asyncio.sleep(0.3)
                    await running
            except LeaseLostError:
                say("lost")
                return 1
            finally:
                for each in (counting, running, ending):
                    each.cancel()
                await asyncio.gather(counting, running, ending, return_exceptions=True)
            await election.release()
            return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(compete(Path(sys.argv[1]), sys.argv[2])))

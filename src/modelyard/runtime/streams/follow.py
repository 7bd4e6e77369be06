"""Put a runner together: model, broker, sink; then follow until asked to stop."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from modelyard.base.conditions import Reason
from modelyard.runtime.report.file import ReportFile
from modelyard.runtime.scoring.refused import Refused
from modelyard.runtime.scoring.scored_model import ScoredModel
from modelyard.runtime.scoring.stopping import unless
from modelyard.runtime.streams import told
from modelyard.runtime.streams import wiring as wiring_of
from modelyard.runtime.streams.bench import Bench
from modelyard.runtime.streams.books import metrics
from modelyard.runtime.streams.encode import Codec
from modelyard.runtime.streams.feed import Feed
from modelyard.runtime.streams.port import Away
from modelyard.runtime.streams.runner import Runner
from modelyard.runtime.streams.scrape import offered
from modelyard.runtime.streams.told import Reporter
from modelyard.runtime.streams.wiring import Keys, Wiring
from modelyard.storage import credentials
from modelyard.wire.place import Place
from modelyard.wire.report import Failure, StreamReport
from modelyard.wire.work import StreamWork

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.25
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 15.0


async def follow(work: StreamWork, place: Place, file: ReportFile, stop: asyncio.Event) -> None:
    """Until `stop`. Raises Refused and LoadFailed for what neither the broker nor time can change."""
    keys = {role: credentials.take(Path(place.secrets) / role) if place.secrets else {} for role in ("source", "sink")}
    reporter = Reporter(file)
    reporter.tell(StreamReport())  # that of an earlier process may lie there
    codec = Codec(work)
    async with AsyncExitStack() as stack:
        model = ScoredModel(work.model, work.threads, place, stack)

        async def begin() -> Wiring:
            _, wiring = await asyncio.gather(
                model.backend(careful=False), _wire(work, place, keys, codec, stack, reporter)
            )
            return wiring

        stopped, wiring = await unless(stop, begin())
        if stopped or wiring is None:
            return
        bench = Bench(work, model, codec)
        runner = Runner(
            work=work,
            claims=wiring.claims,
            link=wiring.link,
            feed=lambda: Feed(bench=bench, files=wiring.files, most_bytes=wiring.most_bytes),
            start=secrets.randbelow(work.partitions),
        )
        scraped = offered(place.socket, lambda: metrics(runner.books, runner.partitions(), work.name))
        async with scraped, _telling(runner, wiring, reporter):
            await runner.run(stop)


async def clean(work: StreamWork, place: Place) -> None:
    """Remove what a stream has left at its broker, or beside its files. Raises Away and Refused."""
    keys = {role: credentials.take(Path(place.secrets) / role) if place.secrets else {} for role in ("source", "sink")}
    await wiring_of.clean(work, place, keys)


async def _wire(
    work: StreamWork, place: Place, keys: Keys, codec: Codec, stack: AsyncExitStack, reporter: Reporter
) -> Wiring:
    """Try until everything is as it must be; meanwhile the report says what is not. Raises Refused for keys."""
    pause = _FIRST_PAUSE_SECONDS
    while True:
        attempt = AsyncExitStack()
        try:
            wiring = await attempt.enter_async_context(wiring_of.wired(work, place, keys, codec))
        except (Away, Refused) as error:
            await attempt.aclose()
            if error.reason is Reason.BROKER_REFUSED:
                raise  # keys are read once: the process that is started in place of this one reads new ones
            _log.warning("%s: %s", error.reason, error.message)
            reporter.tell(StreamReport(problem=Failure(reason=error.reason, message=error.message[:1500], retry=True)))
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        else:
            stack.push_async_exit(attempt)
            return wiring


@asynccontextmanager
async def _telling(runner: Runner, wiring: Wiring, reporter: Reporter) -> AsyncIterator[None]:
    """Reports as long as this is open."""

    async def tell() -> None:
        while True:
            now = time.monotonic()
            found = told.report(
                runner.work, runner.books, runner.partitions(), runner.problems(), connected=wiring.connected, now=now
            )
            reporter.tell_when_due(found, now)
            await asyncio.sleep(_LOOK_SECONDS)

    async with asyncio.TaskGroup() as group:
        telling = group.create_task(tell())
        try:
            yield
        finally:
            telling.cancel()

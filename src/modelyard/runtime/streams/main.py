"""`python -m modelyard.runtime.streams`: follow a stream, or clean up after one, as the environment says.

Exit status: 0 after SIGTERM, or when everything is cleaned up; 1 when it cannot go on (the report says why); 2 when it
was not started by Modelyard.
"""

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import uvloop

from modelyard.base.conditions import Reason
from modelyard.base.errors import ModelyardError, RetryLater, UserError
from modelyard.runtime.backends.port import LoadFailed
from modelyard.runtime.report import endpoint
from modelyard.runtime.report.file import ReportFile
from modelyard.runtime.scoring.lean import without_pandas
from modelyard.runtime.streams import follow
from modelyard.wire import report as reports
from modelyard.wire import work as works
from modelyard.wire.place import Place
from modelyard.wire.work import WorkSpec

ENDED, FAILED, UNSTARTED = 0, 1, 2
_log = logging.getLogger("modelyard.stream")


def main() -> int:
    """Returns the exit status."""
    without_pandas()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        place = Place.from_environment(os.environ)
        work = works.decode(Path(place.work).read_bytes())
    except (UserError, OSError) as error:
        _log.error("%s", error)
        return UNSTARTED
    file = ReportFile.of(place)
    try:
        uvloop.run(_run(work, place, file))
    except Exception as error:
        told = _failure(error)
        assert told.failure is not None
        _log.error("%s: %s", told.failure.reason, told.failure.message)
        file.write(told)
        return FAILED
    return ENDED


async def _run(work: WorkSpec, place: Place, file: ReportFile) -> None:
    async with endpoint.offered(place.report_listen, lambda: file.latest):
        await _work(work, place, file)


async def _work(work: WorkSpec, place: Place, file: ReportFile) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if work.stream is not None:
        await follow.follow(work.stream, place, file, stop)
    elif work.clean is not None:
        await follow.clean(work.clean.stream, place)
        file.write(reports.Report(clean=reports.CleanReport(done=True)))
    else:
        raise UserError(f"{place.work} is no work for a stream")


def _failure(error: Exception) -> reports.Report:
    """The families of error as a report: whose reason is known keeps it."""
    reason = getattr(error, "reason", None)
    if isinstance(error, LoadFailed):
        return reports.failure(error.reason, error.message, retry=error.retry)
    if isinstance(error, ModelyardError):
        return reports.failure(reason or Reason.INVALID, error.message, retry=isinstance(error, RetryLater))
    _log.exception("the stream failed in a way that it should not")
    message = f"a defect of Modelyard, please report it; the log has more: {type(error).__name__}: {error}"
    return reports.failure(Reason.INTERNAL_ERROR, message, retry=True)

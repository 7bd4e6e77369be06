"""`python -m modelyard.runtime.jobs`: do the `score` or `run` work that the environment names, and leave a report.

Exit status: 0 when the work is done and committed (the report says so), 3 when it cannot be done whoever tries (the
report says why), 1 when another try may do it, 143 after SIGTERM, 2 when it was not started by Modelyard.
"""

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import pyarrow as pa
import uvloop

from modelyard.base.conditions import Reason
from modelyard.base.errors import RetryLater, UserError
from modelyard.runtime.backends.port import LoadFailed
from modelyard.runtime.jobs import program, runner
from modelyard.runtime.jobs.progress import Progress
from modelyard.runtime.report import endpoint
from modelyard.runtime.report.file import ReportFile
from modelyard.runtime.scoring.lean import without_pandas
from modelyard.wire import report as reports
from modelyard.wire import work as works
from modelyard.wire.place import Place
from modelyard.wire.work import WorkSpec

DONE, AGAIN, UNSTARTED, NEVER, TERMINATED = 0, 1, 2, 3, 143
_log = logging.getLogger("modelyard.job")


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
    progress = Progress(file)
    try:
        return DONE if uvloop.run(_run(work, place, file, progress)) else TERMINATED
    except Exception as error:
        told = _failure(error)
        assert told.failure is not None
        _log.error("%s: %s", told.failure.reason, told.failure.message)
        progress.fail(told)
        return AGAIN if told.failure.retry else NEVER


async def _run(work: WorkSpec, place: Place, file: ReportFile, progress: Progress) -> bool:
    async with endpoint.offered(place.report_listen, lambda: file.latest):
        return await _work(work, place, progress)


async def _work(work: WorkSpec, place: Place, progress: Progress) -> bool:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if work.score is not None:
        pa.set_cpu_count(work.score.threads)
        pa.set_io_thread_count(max(2, work.score.threads))
        return await runner.score(work.score, place, progress, stop)
    if work.run is not None:
        return await program.run(work.run, place, progress, stop)
    raise UserError(f"{place.work} is no work for a job")


def _failure(error: Exception) -> reports.Report:
    """The families of error as a report: whose reason is known keeps it."""
    reason = getattr(error, "reason", None)
    if isinstance(error, LoadFailed):
        return reports.failure(error.reason, error.message, retry=error.retry)
    if isinstance(error, UserError):
        return reports.failure(reason or Reason.INVALID, error.message)
    if isinstance(error, RetryLater):
        return reports.failure(reason or Reason.CRASHED, error.message, retry=True)
    _log.exception("the job failed in a way that it should not")
    message = f"a defect of Modelyard, please report it; the log has more: {type(error).__name__}: {error}"
    return reports.failure(Reason.INTERNAL_ERROR, message, retry=True)

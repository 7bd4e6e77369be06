"""`python -m modelyard.runtime.fetch`: bring what the work needs to its place, before the process that does the work.

Exit status: 0 when all of it is there, 3 when it cannot be had whoever tries (the report says why), 1 when another try
may do it, 143 at SIGTERM, 2 when it was not started by Modelyard.
"""

import asyncio
import logging
import os
import sys
from pathlib import Path

from modelyard.base.conditions import Reason
from modelyard.base.errors import ModelyardError, RetryLater, UserError
from modelyard.runtime.fetch import bring
from modelyard.runtime.report.file import ReportFile
from modelyard.wire import report as reports
from modelyard.wire import work as works
from modelyard.wire.place import Place

DONE, AGAIN, UNSTARTED, NEVER = 0, 1, 2, 3
_log = logging.getLogger("modelyard.fetch")


def main() -> int:
    """Returns the exit status."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        place = Place.from_environment(os.environ)
        work = works.decode(Path(place.work).read_bytes())
    except (UserError, OSError) as error:
        _log.error("%s", error)
        return UNSTARTED
    try:
        Path(place.report).unlink(missing_ok=True)  # of an earlier try
        asyncio.run(bring.all_of(work, place))
    except Exception as error:
        told = _failure(error)
        assert told.failure is not None
        _log.error("%s: %s", told.failure.reason, told.failure.message)
        ReportFile.of(place).write(told)
        return AGAIN if told.failure.retry else NEVER
    return DONE


def _failure(error: Exception) -> reports.Report:
    reason = getattr(error, "reason", None)
    if isinstance(error, ModelyardError):
        return reports.failure(reason or Reason.INVALID, error.message, retry=isinstance(error, RetryLater))
    _log.exception("fetching failed in a way that it should not")
    message = f"a defect of Modelyard, please report it; the log has more: {type(error).__name__}: {error}"
    return reports.failure(Reason.INTERNAL_ERROR, message, retry=True)

"""`python -m modelyard.runtime.prepare`: do the prepare work that the environment names and leave a report.

Exit status 0 when a report was written, whatever it says; 2 when there was nothing to work on or nowhere to report to.
"""

import asyncio
import logging
import os
from pathlib import Path

from modelyard.base.conditions import Reason
from modelyard.base.errors import ModelyardError, UserError
from modelyard.runtime.prepare.inspect import run
from modelyard.runtime.report.file import ReportFile
from modelyard.wire import report as reports
from modelyard.wire import work as works
from modelyard.wire.place import Place

_log = logging.getLogger("modelyard.prepare")


def main() -> int:
    """Returns the exit status."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    try:
        place = Place.from_environment(os.environ)
        report = _answer(place)
        ReportFile.of(place).write(report)
    except (ModelyardError, OSError) as error:
        _log.error("%s", error)
        return 2
    if report.failure is not None:
        _log.warning("%s: %s", report.failure.reason, report.failure.message)
    return 0


def _answer(place: Place) -> reports.Report:
    try:
        work = works.decode(Path(place.work).read_bytes()).prepare
        if work is None:
            raise UserError(f"{place.work} is no prepare work")
        return asyncio.run(run(work, place))
    except UserError:
        raise
    except Exception as error:
        _log.exception("reading the artifact failed in an unexpected way")
        return reports.failure(
            Reason.INTERNAL_ERROR,
            f"a defect of Modelyard, please report it; the log of this task has more: {type(error).__name__}: {error}",
        )

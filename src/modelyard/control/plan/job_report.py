"""What a runner says about a job, within the bounds of a status: reports are not trusted."""

import re

import msgspec

from modelyard.api.fields import WORD_PATTERN
from modelyard.base import ids
from modelyard.wire.report import JobReport

_MOST_SHARDS = 2**31 - 1
_MOST = 2**53
"""JSON numbers are exact up to here."""


def plausible(report: JobReport) -> JobReport:
    """The same report where it is one that a runner writes.

    Numbers are cut to what the schema of the status holds, of metrics of one name the last one counts, and what is no
    digest or no format is left out: a Model is then made without it, and what was found out there counts.
    """
    return msgspec.structs.replace(
        report,
        run=_whole(report.run),
        shards=_whole(report.shards, _MOST_SHARDS),
        committed=min(_whole(report.committed, _MOST_SHARDS), _whole(report.shards, _MOST_SHARDS)),
        rows=_whole(report.rows),
        error_rows=_whole(report.error_rows),
        total_rows=_whole(report.total_rows),
        rows_per_second=float(_whole(report.rows_per_second)),
        eta_seconds=None if report.eta_seconds is None else float(_whole(report.eta_seconds)),
        percent=None if report.percent is None else _whole(report.percent, 100),
        metrics=tuple({each.name: each for each in report.metrics}.values()),
        digest=report.digest if ids.is_digest(report.digest) else "",
        format=report.format if len(report.format) <= 63 and re.fullmatch(WORD_PATTERN, report.format) else "",
    )


def _whole(value: float, most: int = _MOST) -> int:
    """0 for what is no number, too."""
    return round(min(value, most)) if value > 0 else 0

"""The work of `prepare`, from the uri to the report.

Everything that runs code of the artifact happens in a worker process; this one only reads bytes and, for ONNX, loads a
graph, which is data.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from modelyard.base.conditions import Reason
from modelyard.base.errors import ModelyardError, RetryLater, UserError
from modelyard.runtime.backends.load import load, unknown
from modelyard.runtime.backends.port import Backend, LoadFailed
from modelyard.runtime.backends.speaking import SpeakingBackend
from modelyard.runtime.fetch import bring
from modelyard.runtime.fetch.download import download
from modelyard.runtime.prepare.detect import Detected, candidate, detect
from modelyard.runtime.prepare.folder import completed
from modelyard.runtime.prepare.signature import agreed, check
from modelyard.runtime.worker.tensors import zeros
from modelyard.storage import credentials
from modelyard.storage import digest as digests
from modelyard.storage.cache import Cache
from modelyard.storage.errors import StoreRefused, StoreUnavailable, unreadable
from modelyard.storage.location import parse
from modelyard.wire import report as reports
from modelyard.wire.place import Place
from modelyard.wire.report import PrepareReport, Report
from modelyard.wire.work import BUILTIN_FORMATS, ModelWork, PrepareWork


@dataclass(frozen=True, slots=True)
class _Stored:
    """An artifact that is in the cache."""

    path: Path
    digest: str
    size_bytes: int
    format: str
    format_version: str


async def run(work: PrepareWork, place: Place) -> Report:
    """Read the artifact, store it, load it once, score a row of zeros; a failure is a report as well.

    Uses `place.root`, `place.cache` and `place.scratch`. Starts worker processes, so it belongs into the main thread.
    """
    try:
        path = await _artifact(work, place)
        work = completed(work, path)
        stored = await asyncio.to_thread(_store, work, place, path)
        found = await _prove(work, stored, Path(place.scratch))
        report = Report(prepare=found)
        reports.encode(report)
    except (LoadFailed, StoreRefused, StoreUnavailable) as error:
        retry = isinstance(error, StoreUnavailable) or (isinstance(error, LoadFailed) and error.retry)
        return reports.failure(error.reason, error.message, retry=retry)
    except UserError as error:
        return reports.failure(Reason.UNSUPPORTED, error.message)
    return report


async def _artifact(work: PrepareWork, place: Place) -> Path:
    """Where it is, or where it was downloaded to. The keys are taken before anything else."""
    keys = credentials.take(Path(place.secrets) / "model") if place.secrets and not place.fetched else {}
    where = parse(work.uri, place.root)
    if where.scheme == "file":
        return Path(where.path)
    if place.fetched:
        return bring.artifact(place)
    target = Path(place.scratch) / "fetched"
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    return await download(where, keys, target)


def _store(work: PrepareWork, place: Place, path: Path) -> _Stored:
    found = digests.inventory(path)
    if work.digest and found.digest != work.digest:
        where = parse(work.uri, place.root)
        shown = path if where.scheme == "file" else where.uri.partition("?")[0]
        raise LoadFailed(
            Reason.DIGEST_MISMATCH,
            f"{shown} is {found.digest}, and `digest` pins {work.digest}; restore the file, or change `digest` "
            "if the new content is wanted",
        )
    detected = _format(work, path)
    cache = Cache(Path(place.cache))
    digest = cache.put(path, found)
    return _Stored(cache.path(digest), digest, found.size_bytes, detected.format, detected.version)


def _format(work: PrepareWork, path: Path) -> Detected:
    """What the bytes say, checked against what was declared; a Runtime's own format is as declared."""
    if work.format and work.format not in BUILTIN_FORMATS:
        if not work.command:
            raise LoadFailed(Reason.FORMAT_UNKNOWN, unknown(work.format))
        return Detected(work.format)
    try:
        file = candidate(path, work.format) if path.is_dir() else path
        found = detect(file)
    except OSError as error:
        raise unreadable(path, error) from error
    if work.format in ("", found.format):
        return found
    if (work.format, found.format) == ("joblib", "pickle"):
        return Detected("joblib")  # without arrays joblib writes plain pickles
    raise LoadFailed(
        Reason.FORMAT_MISMATCH,
        f"{file.name} is of format {found.format}, and `format` says {work.format}; correct it or leave it out",
    )


async def _prove(work: PrepareWork, stored: _Stored, scratch: Path) -> PrepareReport:
    model = ModelWork(
        name="model",
        digest=stored.digest,
        format=stored.format,
        trust=work.trust,
        inputs=work.inputs,
        outputs=work.outputs,
        command=work.command,
    )
    backend = await load(model, stored.path, threads=1, scratch=scratch)
    try:
        version = backend.format_version if isinstance(backend, SpeakingBackend) else stored.format_version
        _check_version(work.format_version, version)
        report = PrepareReport(
            digest=stored.digest,
            format=stored.format,
            format_version=version,
            size_bytes=stored.size_bytes,
            inputs=agreed("inputs", work.inputs, backend.inputs),
            outputs=agreed("outputs", work.outputs, backend.outputs),
        )
        check("inputs", report.inputs)
        check("outputs", report.outputs)
        await _warm_up(backend, report)
    finally:
        await backend.close()
    return report


def _check_version(declared: str, recorded: str) -> None:
    if declared and recorded and declared != recorded and not recorded.startswith(f"{declared}."):
        raise LoadFailed(
            Reason.FORMAT_MISMATCH,
            f"the artifact records version {recorded}, and `formatVersion` says {declared}; correct it or leave it out",
        )


async def _warm_up(backend: Backend, report: PrepareReport) -> None:
    try:
        await backend.infer(zeros(report.inputs))
    except ModelyardError as error:
        raise LoadFailed(
            Reason.WARMUP_FAILED,
            f"the model loads, but one row of zeros cannot be scored: {error.message}",
            retry=isinstance(error, RetryLater),
        ) from error

"""The file `model.json` in a model folder that a job commits. Source: `spec/model-folder.md`."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modelyard.base.conditions import Reason
from modelyard.runtime.jobs.told import Told
from modelyard.runtime.scoring.refused import Refused
from modelyard.wire.work import RunWork

NAME = "model.json"
_MOST_BYTES = 1 << 20


def describe(folder: Path, work: RunWork, told: Told) -> None:
    """Add metrics and provenance to the folder's model.json, or write one. What the program wrote there stays."""
    path = folder / NAME
    body = _read(path) if path.exists() else {}
    if work.artifact is not None and work.artifact.format:
        body.setdefault("format", work.artifact.format)
    if told.metrics:
        body.setdefault("metrics", {each.name: each.value for each in told.metrics})
    body["provenance"] = {
        "job": work.job_name,
        "uid": work.job,
        "command": list(work.command),
        "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    path.write_text(json.dumps(body, indent=2, sort_keys=True) + "\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("it is larger than 1 MiB")
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError, RecursionError) as error:
        raise Refused(
            Reason.INVALID, f"the program wrote a {path.name} that cannot be read: {error}; see spec/model-folder.md"
        ) from error
    return found

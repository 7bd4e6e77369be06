"""Goldens of the planners: `<area>/<case>.in.yaml` -> `<area>/<case>.out.yaml`, statuses and events included.

Regenerate with `UPDATE_GOLDENS=1 make test` and read the difference.
"""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from modelyard.api import load
from modelyard.api.job import ModelJob
from modelyard.api.model import Model
from modelyard.api.runtime import Runtime
from modelyard.api.service import ModelService
from modelyard.api.stream import ModelStream
from modelyard.control.ir.observed import Capabilities, Load, Observed, ObservedRoute
from modelyard.control.ir.revision import JobRevision, Revision
from modelyard.control.plan import diff, job, model, service, stream, stream_clean
from modelyard.control.plan.views import GoingStreamView, JobView, ModelView, Outcome, ServiceView, StreamView
from modelyard.control.render import kube as render

HERE = Path(__file__).parent
NOW = 1_800_000_000.0
AREAS = ("model", "service", "job", "stream")
CASES = sorted(path for area in AREAS for path in (HERE / area).glob("*.in.yaml"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.name.removesuffix('.in.yaml')}")
def test_the_plan_is_as_recorded(path: Path) -> None:
    given = yaml.safe_load(path.read_text())
    observed = msgspec.convert(given.get("observed", {}), Observed)
    outcome = _outcome(path.parent.name, given, observed)
    found = yaml.safe_dump(_shown(outcome, observed), sort_keys=False, width=110)
    expected = path.with_name(path.name.replace(".in.", ".out."))
    if os.environ.get("UPDATE_GOLDENS"):
        expected.write_text(found)
    assert found == expected.read_text(), "the plan changed; if it should, regenerate and read the difference"


def test_every_case_has_its_result() -> None:
    names = {path.name for area in AREAS for path in (HERE / area).glob("*.yaml")}
    assert {name.replace(".in.", ".out.") for name in names} == {name for name in names if ".out." in name}
    assert CASES


def _outcome(area: str, given: dict[str, Any], observed: Observed) -> Outcome:
    objects = [load.decode(body) for body in given["objects"] if body["kind"] != "ControllerRevision"]
    runtimes = tuple(each for each in objects if isinstance(each, Runtime))
    models = tuple(each for each in objects if isinstance(each, Model))
    if area == "model":
        capabilities = _capabilities(given, "memory")
        view = ModelView(model=models[0], runtimes=runtimes, observed=observed, capabilities=capabilities)
        return model.desire(view, NOW)
    if area == "job":
        recorded = [render.revision(body) for body in given["objects"] if body["kind"] == "ControllerRevision"]
        job_view = JobView(
            job=next(each for each in objects if isinstance(each, ModelJob)),
            models=models,
            runtimes=runtimes,
            revision=next((each for each in recorded if isinstance(each, JobRevision)), None),
            observed=observed,
            capabilities=_capabilities(given, "memory"),
        )
        return job.desire(job_view, NOW)
    if area == "stream":
        return _stream(given, objects, observed)
    revisions = tuple(render.revision(body) for body in given["objects"] if body["kind"] == "ControllerRevision")
    service_view = ServiceView(
        service=next(each for each in objects if isinstance(each, ModelService)),
        models=models,
        runtimes=runtimes,
        revisions=tuple(each for each in revisions if isinstance(each, Revision)),
        observed=observed,
        route=msgspec.convert(given.get("route", {}), ObservedRoute),
        capabilities=_capabilities(given, "threads"),
        gateway_url="http://127.0.0.1:8080",
        load=msgspec.convert(given.get("load", []), tuple[Load, ...]),
    )
    return service.desire(service_view, NOW)


def _stream(given: dict[str, Any], objects: list[load.Declared], observed: Observed) -> Outcome:
    recorded = [render.revision(body) for body in given["objects"] if body["kind"] == "ControllerRevision"]
    revisions = tuple(each for each in recorded if isinstance(each, Revision))
    declared = next(each for each in objects if isinstance(each, ModelStream))
    stored = next(body for body in given["objects"] if body["kind"] == "ModelStream")
    if declared.metadata.deletion_timestamp:
        going = GoingStreamView(
            key=stream.key(declared), stored=stored, stream=declared, revisions=revisions, observed=observed
        )
        return stream_clean.desire(going, NOW)
    view = StreamView(
        stream=declared,
        models=tuple(each for each in objects if isinstance(each, Model)),
        runtimes=tuple(each for each in objects if isinstance(each, Runtime)),
        revisions=revisions,
        observed=observed,
        capabilities=_capabilities(given, "memory"),
    )
    return stream.desire(view, NOW)


def _capabilities(given: dict[str, Any], enforced: str) -> Capabilities:
    """As the case says; otherwise those of a laptop."""
    if "capabilities" in given:
        return msgspec.convert(given["capabilities"], Capabilities)
    return Capabilities(enforces=frozenset({enforced}))


def _shown(outcome: Outcome, observed: Observed) -> dict[str, Any]:
    shown = {
        "desired": msgspec.to_builtins(outcome.desired),
        "actions": [msgspec.to_builtins(action) for action in diff.diff(outcome.desired, observed)],
        "models": [
            {"name": each.name, "spec": each.spec.model_dump(mode="json", by_alias=True, exclude_none=True)}
            for each in outcome.models
        ],
        "made": outcome.made
        and {
            "name": outcome.made.name,
            "annotations": outcome.made.annotations,
            "spec": outcome.made.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
        },
        "expired": outcome.expired,
        "finalizer": {True: "held", False: "released", None: None}[outcome.held],
        "numbersOnly": outcome.numbers_only,
        "obsoleteModels": list(outcome.obsolete_models),
        "status": outcome.status,
        "events": [f"{each.type} {each.reason}: {each.message}" for each in (*outcome.happened, *outcome.events)],
        "wakeInSeconds": None if outcome.wake_at is None else round(outcome.wake_at - NOW, 3),
    }
    return {key: value for key, value in shown.items() if value}

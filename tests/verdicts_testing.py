"""Objects of every kind, good and bad, and what an API server says about one of them.

The cases are those that the unit tests of the API have tables of, the inputs of the goldens, and the ones here.
"""

import asyncio
import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from apiserver_testing import DIGEST, Object, make, model, service
from modelyard.control.kube.client import ApiError, Client
from modelyard.control.kube.resources import OURS, Resource
from unit.api import test_job, test_service, test_stream
from unit.control.apiserver import test_admission

_RESOURCES = {each.kind: each for each in OURS}
_GOLDENS = Path(__file__).parent / "golden"
_STRICT = {"fieldValidation": "Strict", "fieldManager": "test"}
_PATIENCE = 20
_UNCHECKED = "some validation rules were not checked"
_UNKNOWN = re.compile(r'unknown field "([^"]*)"')


@dataclass(frozen=True)
class Case:
    """What is sent: a new object; or, with `old`, one that replaces it. status: its status is what is written."""

    new: Any
    old: Object | None = None
    status: bool = False
    kind: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a server said. fields: those that it names; stored: spec, or status, as it would be kept.

    partial: it says that it has not looked at all rules, or names no field at all.
    """

    code: int
    reason: str = ""
    fields: frozenset[str] = frozenset()
    stored: Any = None
    message: str = ""
    partial: bool = False

    def agrees(self, other: "Verdict") -> bool:
        """Whether the other server said the same. Words are those of two programs; where the other was partial, this
        one may name more fields."""
        same = replace(self, fields=other.fields, message=other.message, partial=other.partial) == other
        return same and (self.fields >= other.fields if other.partial else self.fields == other.fields)


async def judge(client: Client, namespace: str, case: Case) -> Verdict:
    """Ask a server without changing anything, but for an old object that is there meanwhile.

    An operator may look after that object, too: what it writes in between is no verdict.
    """
    kind = case.kind or (case.old or case.new)["kind"]
    resource = _RESOURCES[kind]
    new = _placed(case.new, namespace)
    made = None
    try:
        if case.old is None:
            answer = await _ask(client, "POST", resource.path(namespace), new)
        else:
            old = _placed(case.old, namespace)
            made = await client.request("POST", resource.path(namespace), body=old, parameters=_STRICT)
            answer = await _ask_over(client, resource, case, made, new)
        return Verdict(200, stored=answer.get("status" if case.status else "spec"))
    except ApiError as error:
        return _refusal(error)
    finally:
        if made is not None:
            await _remove(client, resource, made["metadata"])


async def _ask(client: Client, method: str, path: str, body: Any) -> Object:
    return await client.request(method, path, body=body, parameters={**_STRICT, "dryRun": "All"})


async def _ask_over(client: Client, resource: Resource, case: Case, made: Object, new: Any) -> Object:
    """As an editor does: again, of the version that is there now, when somebody else was faster."""
    namespace, name = made["metadata"]["namespace"], made["metadata"]["name"]
    path = resource.path(namespace, name, "status" if case.status else None)
    for _ in range(_PATIENCE):
        try:
            return await _ask(client, "PUT", path, _over(made, new))
        except ApiError as error:
            if not error.conflict:
                raise
            made = await client.get(resource, namespace, name)
    raise AssertionError(f"{name} never rests")


async def _remove(client: Client, resource: Resource, metadata: Object) -> None:
    """Until it is gone: an operator may have to let it go, and the next case has an object of the same name."""
    await client.delete(resource, metadata["namespace"], metadata["name"])
    async with asyncio.timeout(30):
        while True:
            try:
                await client.get(resource, metadata["namespace"], metadata["name"])
            except ApiError as error:
                if error.status != 404:
                    raise
                return
            await asyncio.sleep(0.02)


def _refusal(error: ApiError) -> Verdict:
    """A rule of a whole object has no field, so its message says which; the field of a Scale begins with a dot.

    An accessor error only says once more that a field of a Scale has a wrong type.
    """
    unchecked = any(_UNCHECKED in message for _, message in error.causes)
    fields = set(_UNKNOWN.findall(str(error)))
    for field, message in error.causes:
        if _UNCHECKED not in message and "accessor error" not in message:
            about = re.search(r"\b(metadata|spec|status)(\.\w+)+", message)
            fields.add(about[0] if field == "<nil>" and about else field.removeprefix("."))
    return Verdict(error.status, error.reason, frozenset(fields), None, str(error), partial=unchecked or not fields)


def _placed(obj: Any, namespace: str) -> Any:
    """In the namespace of this test, if it is in the one that cases are written for."""
    obj = copy.deepcopy(obj)
    if isinstance(obj, dict) and isinstance(metadata := obj.get("metadata"), dict):
        if metadata.get("namespace") == "default":
            metadata["namespace"] = namespace
        for name in ("uid", "generation", "resourceVersion", "creationTimestamp"):
            if isinstance(metadata.get("name"), str) and name != "creationTimestamp":
                metadata.pop(name, None)
    return obj


def _over(old: Object, new: Object) -> Object:
    """As an editor sends it back: of the version that was read."""
    return {**new, "metadata": {"resourceVersion": old["metadata"]["resourceVersion"], **new["metadata"]}}


def cases() -> dict[str, Case]:
    """Name -> case."""
    mixed = {f"mixed-{name.replace('-', '_')}": case for name, case in _more().items()}
    return {**_from_tables(), **_from_goldens(), **mixed}


def _table(test: Any) -> Iterator[tuple[Any, ...]]:
    """What a unit test goes through."""
    for mark in test.pytestmark:
        if mark.name == "parametrize":
            names, values = mark.args
            single = isinstance(names, str) and "," not in names
            yield from ((value,) if single else tuple(value) for value in values)


def _from_tables() -> dict[str, Case]:
    found: dict[str, list[Case]] = {
        "traffic": [
            Case(test_service.traffic(*splits))
            for splits, _ in _table(test_service.test_what_shares_nothing_well_is_refused_with_what_was_expected)
        ],
        "bounds": [
            Case(test_service.service(**spec))
            for spec, _ in _table(test_service.test_bounds_that_make_no_sense_are_refused)
        ],
        "no-job": [Case(obj) for obj, _ in _table(test_job.test_what_makes_no_job_is_refused_with_its_place)],
        "job-changed": [
            Case(new, old) for old, new, _ in _table(test_job.test_what_is_recorded_when_a_job_starts_cannot_be_changed)
        ],
        "job-adjusted": [
            Case(test_job.job(**change), test_job.job())
            for (change,) in _table(test_job.test_how_much_at_once_and_how_long_can_be_changed)
        ],
        "job-again": [
            Case(obj, obj) for (obj,) in _table(test_job.test_the_same_manifest_is_applied_again_without_a_change)
        ],
        "stream": [Case(obj) for (obj,) in _table(test_stream.test_what_makes_a_stream_is_accepted)],
        "no-stream": [Case(obj) for obj, _ in _table(test_stream.test_what_makes_no_stream_is_refused_with_its_place)],
        "stream-moved": [
            Case(new, old) for old, new in _table(test_stream.test_what_decides_where_it_goes_on_cannot_be_changed)
        ],
        "stream-adjusted": [
            Case(test_stream.stream(**change), test_stream.stream())
            for (change,) in _table(test_stream.test_how_records_are_scored_can_be_changed)
        ],
        "header": [
            Case({**service(), **change}, kind="ModelService")
            for change, _ in _table(test_admission.test_headers_that_do_not_fit_are_refused)
        ],
    }
    return {f"{name}-{number}": case for name, some in found.items() for number, case in enumerate(some)}


def _from_goldens() -> dict[str, Case]:
    """Each object once: those that the plan's goldens are about."""
    found: dict[str, Case] = {}
    for path in sorted(_GOLDENS.glob("*/*.in.yaml")):
        for number, obj in enumerate(yaml.safe_load(path.read_text()).get("objects", ())):
            if obj.get("kind") in _RESOURCES:
                obj.pop("status", None)
                if obj not in [case.new for case in found.values()]:
                    name = path.name.removesuffix(".in.yaml").replace("-", "_")
                    found[f"golden-{path.parent.name}/{name}/{number}"] = Case(obj)
    return found


def _more() -> dict[str, Case]:
    limit: Object = {"requests": 10, "per": "1m", "by": "user"}

    def runtime(**spec: Any) -> Object:
        return make("Runtime", "mine", spec=spec)

    process = {"command": ["python", "worker.py"]}

    def policy(**spec: Any) -> Object:
        return make("AccessPolicy", "mine", spec=spec)

    def condition(**changes: Any) -> Object:
        at = "2026-01-01T00:00:00Z"
        return {
            "type": "Ready",
            "status": "True",
            "reason": "Serving",
            "message": "",
            "lastTransitionTime": at,
        } | changes

    def told(**status: Any) -> Case:
        return Case({**service(), "status": status}, service(), status=True)

    def renamed(obj: Object, name: str) -> Object:
        return {**obj, "metadata": {**obj["metadata"], "name": name}}

    named = {
        "Model": model(),
        "Runtime": runtime(formats=[{"name": "onnx"}], process=process),
        "AccessPolicy": policy(),
        "ModelService": service(),
        "ModelJob": test_job.job(),
        "ModelStream": test_stream.stream(),
    }
    return {
        "model": Case(model()),
        "model-all": Case(model(digest=DIGEST, format="onnx", credentials="keys")),
        "model-empty": Case(make("Model", spec={})),
        "model-no-spec": Case(make("Model")),
        "model-spec-null": Case(make("Model", spec=None)),
        "model-digest": Case(model(digest="sha256:abc")),
        "model-uri-empty": Case(model(uri="")),
        "model-uri-long": Case(model(uri="u" * 2049)),
        "model-uri-number": Case(model(uri=7)),
        "model-unknown": Case(model(url="a", digset="b")),
        "model-changed": Case(model(uri="other"), model()),
        "model-again": Case(model(), model()),
        "service-both": Case(service(model={"name": "a", "uri": "b"}, replicas=-1)),
        "service-types": Case(service(replicas="two", timeout=5, model=[])),
        "service-fraction": Case(service(replicas=1.5)),
        "service-big": Case(service(replicas=2**40)),
        "service-nulls": Case(service(replicas=None, timeout=None, traffic=None)),
        "service-duration": Case(service(timeout="5 minutes")),
        "service-duration-short": Case(service(timeout="0s")),
        "service-unknown-deep": Case(service(model={"name": "a", "nmae": "b"}, resources={"limit": {}})),
        "service-quantities": Case(
            service(resources={"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": 2}})
        ),
        "service-no-quantity": Case(service(resources={"requests": {"cpu": "much"}})),
        "service-quantity-type": Case(service(resources={"requests": {"cpu": True}})),
        "service-foreign-resource": Case(service(resources={"requests": {"disk": "1"}})),
        "service-env-twice": Case(service(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}])),
        "service-env-both": Case(
            service(env=[{"name": "A", "value": "1", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}])
        ),
        "service-env-secret": Case(
            service(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}])
        ),
        "service-env-name": Case(service(env=[{"name": "1A", "value": "1"}])),
        "service-long-name": Case(make("ModelService", "a" * 41, spec={"model": {"name": "a"}})),
        "service-pod-template": Case(service(podTemplate={"spec": {"nodeSelector": {"a": "b"}}})),
        "service-pod-template-text": Case(service(podTemplate="x")),
        "service-status-ignored": Case({**service(), "status": {"replicas": 3}}),
        "runtime": Case(runtime(formats=[{"name": "onnx"}], process=process)),
        "runtime-empty": Case(runtime()),
        "runtime-formats": Case(runtime(formats=["not a format!"])),
        "runtime-many": Case(runtime(formats=[{"name": f"f{number}"} for number in range(65)], process=process)),
        "policy": Case(policy()),
        "policy-all": Case(policy(services=["a"], authentication="required", issuers=["corp"], rateLimits=[limit])),
        "policy-group": Case(policy(rateLimits=[{**limit, "by": "group", "group": "eng"}])),
        "policy-no-group": Case(policy(rateLimits=[{**limit, "by": "group"}])),
        "policy-needless-group": Case(policy(rateLimits=[{**limit, "group": "eng"}])),
        "policy-short": Case(policy(rateLimits=[{**limit, "per": "10ms"}])),
        "policy-long": Case(policy(rateLimits=[{**limit, "per": "25h"}])),
        "policy-none": Case(policy(services=[], issuers=[], rateLimits=[])),
        "policy-words": Case(policy(authentication="maybe", services=["A B"], issuers=["x y"])),
        "policy-requests": Case(policy(rateLimits=[{**limit, "requests": 0}, {**limit, "requests": 2**40}])),
        "policy-control": Case(policy(rateLimits=[{**limit, "by": "group", "group": "a\nb"}])),
        "spec-list": Case(make("ModelService", spec=[])),
        "labels": Case(make("Model", metadata={"labels": {"a/b": "c", "x" * 64: ""}}, spec={"uri": "a"})),
        "no-name": Case(make("Model", metadata={"name": ""}, spec={"uri": "a"})),
        "generated-badly": Case(make("Model", metadata={"generateName": "A-"}, spec={"uri": "a"})),
        **{
            f"dots-{kind}": Case({**obj, "metadata": {**obj["metadata"], "name": "a.b"}}) for kind, obj in named.items()
        },
        **{
            f"long-{kind}": Case({**obj, "metadata": {**obj["metadata"], "name": "a" * 64}})
            for kind, obj in named.items()
        },
        "generated": Case(make("Model", metadata={"name": "", "generateName": "a-"}, spec={"uri": "a"})),
        "other-metadata": Case(make("Model", metadata={"lables": {}}, spec={"uri": "a"})),
        "renamed": Case(make("Model", "other", spec={"uri": "a"}), make("Model", "one", spec={"uri": "a"})),
        "status": told(conditions=[condition()], replicas=2, observedGeneration=1),
        "status-empty": told(),
        "status-word": told(conditions=[condition(status="Maybe")]),
        "status-time": told(conditions=[condition(lastTransitionTime="today")]),
        "status-twice": told(conditions=[condition(), condition()]),
        "status-missing": told(conditions=[{"type": "Ready"}]),
        "status-reason": told(conditions=[condition(reason="not a reason")]),
        "status-type": told(replicas="three", conditions={}),
        "status-unknown": told(replica=3),
    }

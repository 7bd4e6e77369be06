"""The table of what a change does, against the kinds and against what is planned."""

from typing import Any

import pytest
from pydantic import BaseModel

from modelyard.api.effects import EFFECTS, Effect, effect
from modelyard.api.model import Model
from modelyard.api.schema import KINDS
from modelyard.api.service import ModelService
from modelyard.api.stream import ModelStream
from modelyard.control.ir import names
from modelyard.control.ir.observed import Capabilities
from modelyard.control.plan import revision, stream_work
from modelyard.control.plan.revision import Inputs
from modelyard.control.plan.views import ServiceView, StreamView

_CLUSTER = Capabilities(enforces=frozenset({"cpu", "memory"}), supports=frozenset({"pod", "image"}), fetches=True)
_MODEL = Model.model_validate(
    {
        "metadata": {"name": "m"},
        "spec": {"uri": "s3://b/m.onnx"},
        "status": {"digest": "sha256:" + "a" * 64, "format": "onnx"},
    }
)
_OF_BOTH: dict[str, Any] = {
    "resources": {"limits": {"memory": "1Gi"}},
    "env": [{"name": "A", "value": "1"}],
    "serviceAccountName": "reader",
    "podTemplate": {"spec": {"nodeSelector": {"a": "b"}}},
    "replicas": 7,
}
_OF_SERVICES: dict[str, Any] = {
    **_OF_BOTH,
    "timeout": "5s",
    "visibility": "internal",
    "traffic": [{"revision": "latest", "percent": 100}],
    "sticky": {"header": "X-User"},
    "retries": 1,
    "maxConcurrency": 5,
    "maxRequestSize": "1Mi",
    "compression": True,
}
_OF_STREAMS: dict[str, Any] = {
    **_OF_BOTH,
    "deadLetter": {"subject": "dead"},
    "delivery": "exactlyOnce",
    "batch": {"rows": 7},
    "maxDeliver": 7,
    "suspend": True,
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_field_of_every_spec_is_in_the_table(kind: type[BaseModel]) -> None:
    spec = kind.model_fields["spec"].annotation
    assert isinstance(spec, type)
    assert issubclass(spec, BaseModel)
    assert {each.alias or name for name, each in spec.model_fields.items()} == set(EFFECTS[kind.__name__])


@pytest.mark.parametrize("field", _OF_SERVICES)
def test_a_field_of_a_service_makes_a_revision_as_the_table_says(field: str) -> None:
    changed = _service(**{field: _OF_SERVICES[field]}) != _service()
    assert changed == (effect("ModelService", f"spec.{field}") is Effect.REVISION)


@pytest.mark.parametrize("field", _OF_STREAMS)
def test_a_field_of_a_stream_makes_a_revision_as_the_table_says(field: str) -> None:
    changed = _stream(**{field: _OF_STREAMS[field]}) != _stream()
    assert changed == (effect("ModelStream", f"spec.{field}") is Effect.REVISION)


def test_what_is_no_spec_has_no_effect() -> None:
    assert effect("ModelService", "metadata.labels") is Effect.NONE
    assert effect("Secret", "spec.env") is Effect.NONE
    assert effect("ModelService", "spec.traffic[latest].percent") is Effect.ROUTE


def _service(**spec: Any) -> str:
    body = {"metadata": {"name": "s"}, "spec": {"model": {"name": "m"}, **spec}}
    view = ServiceView(service=ModelService.model_validate(body), models=(_MODEL,), capabilities=_CLUSTER)
    found = revision.resolve(view)
    assert isinstance(found, Inputs), found
    return names.inputs_hash(revision.declared(found))


def _stream(**spec: Any) -> str:
    body = {
        "metadata": {"name": "s"},
        "spec": {
            "model": {"name": "m"},
            "source": {"uri": "nats://n:1", "stream": "in", "subjects": ["in.>"]},
            "sink": {"uri": "nats://n:1", "stream": "out", "subject": "out"},
            **spec,
        },
    }
    stream = ModelStream.model_validate(body)
    found = stream_work.resolve(StreamView(stream=stream, models=(_MODEL,), capabilities=_CLUSTER))
    assert isinstance(found, Inputs), found
    return names.inputs_hash(stream_work.declared(stream, found))

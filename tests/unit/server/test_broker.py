from pathlib import Path
from typing import Any

import pytest

from modelyard.server.broker import configuration, names_broker


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"source": {"uri": "nats://local"}, "sink": {"uri": "s3://lake/out/"}}, True),
        ({"source": {"uri": "nats://nats:4222"}, "sink": {"uri": "nats://local"}}, True),
        ({"source": {"uri": "nats://localhost"}, "sink": {"uri": "out/"}}, False),
        ({"source": {}, "sink": None}, False),
    ],
)
def test_a_source_or_a_sink_asks_for_it(spec: dict[str, Any], named: bool) -> None:
    assert names_broker({"spec": spec}) is named


def test_nothing_is_acknowledged_that_is_not_on_disk_and_nobody_else_is_served() -> None:
    found = configuration(Path("/data"), 4222, "secret", "name")
    assert found["jetstream"]["sync_interval"] == "always"
    assert found["listen"] == "127.0.0.1:4222"
    assert found["authorization"] == {"user": "modelyard", "password": "secret"}
    assert not {"http", "http_port", "https_port", "monitor_port"} & found.keys()

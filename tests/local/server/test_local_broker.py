"""nats://local in a project with a running server."""

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import nats
import psutil
import pytest

from modelyard.base.errors import UserError
from modelyard.sdk import broker
from yard_testing import Yard, gone, wait_until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def follows(uri: str = "nats://local") -> dict[str, Any]:
    return {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "ModelStream",
        "metadata": {"name": "fraud", "namespace": "default"},
        "spec": {
            "model": {"name": "none"},
            "source": {"uri": uri, "stream": "payments", "subjects": ["payments.*"]},
            "sink": {"uri": uri, "stream": "scored", "subject": "scored"},
        },
    }


def brokers(yard: Yard) -> list[psutil.Process]:
    return [each for each in yard.children() if each.name() == "nats-server"]


def options(yard: Yard) -> dict[str, Any]:
    try:
        return broker.connect_options(yard.folder)
    except UserError:
        return {}


async def _count(found: dict[str, Any], publish: bool) -> int:
    client = await nats.connect(**found)
    try:
        stored = client.jetstream()
        await stored.add_stream(name="kept", subjects=["kept"])
        if publish:
            await stored.publish("kept", b"one")
        return int((await stored.stream_info("kept")).state.messages)
    finally:
        await client.close()


def test_a_stream_that_names_it_starts_it_and_its_messages_outlive_the_server(yard: Yard) -> None:
    yard.start()
    assert brokers(yard) == []
    with pytest.raises(UserError, match="no local broker runs"):
        broker.connect_options(yard.folder)
    yard.apply(follows(), wait=False)
    before = wait_until(lambda: options(yard), "a broker")
    assert asyncio.run(_count(before, publish=True)) == 1
    (process,) = brokers(yard)
    yard.kill()
    gone([process])
    with pytest.raises(UserError, match="is not running"):
        broker.connect_options(yard.folder)
    with yard:
        assert wait_until(lambda: options(yard), "a broker again") == before
        assert asyncio.run(_count(before, publish=False)) == 1
        started = brokers(yard)
        assert len(started) == 1
    gone(started, seconds=0.1)


def test_a_stream_elsewhere_starts_none(yard: Yard) -> None:
    with yard:
        yard.apply(follows("nats://127.0.0.1:9"), wait=False)
        wait_until(lambda: yard.condition("fraud", kind="modelstream"), "it was looked at")
        assert brokers(yard) == []
        assert not (yard.data / "broker").exists()


def test_what_is_wrong_with_it_is_said_of_its_streams(yard: Yard) -> None:
    with yard, socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        (yard.data / "broker").mkdir()
        (yard.data / "broker" / "port").write_text(str(holder.getsockname()[1]))
        yard.apply(follows(), wait=False)

        def told() -> bool:
            events = json.loads(yard.cli("get", "events", "-o", "json"))["items"]
            return any(
                each["reason"] == "BrokerUnreachable" and "is taken by another program" in each["message"]
                for each in events
                if each["involvedObject"]["name"] == "fraud"
            )

        wait_until(told, "an event")
        assert "is taken by another program" in (yard.data / "server" / "server.log").read_text()

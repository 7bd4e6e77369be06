"""What is over in a moment is not written down; what is not, is."""

import asyncio

from engine_testing import World, virtual
from modelyard.control.engine.patience import NUMBERS_SECONDS, PASSING_SECONDS, Patience
from modelyard.control.ir.values import Key
from modelyard.control.kube.resources import MODELSERVICES
from modelyard.control.plan.views import Outcome

IRIS, DIGITS = (Key(kind="ModelService", namespace="default", name=name) for name in ("iris", "digits"))


def statuses(world: World, name: str = "digits") -> int:
    """How often the status of a service was written."""
    return world.api.writes.count(("status", MODELSERVICES.plural, name))


def test_what_passes_waits_once_from_when_it_was_first_seen() -> None:
    patience, passing = Patience(), Outcome(passing=True)
    assert patience.left(IRIS, passing, 100.0) == PASSING_SECONDS
    assert patience.left(IRIS, passing, 103.0) == PASSING_SECONDS - 3.0
    assert patience.left(DIGITS, passing, 103.0) == PASSING_SECONDS
    assert patience.left(IRIS, passing, 100.0 + PASSING_SECONDS) == 0.0
    patience.settled(IRIS)
    assert patience.left(IRIS, passing, 200.0) == PASSING_SECONDS


def test_numbers_wait_since_they_were_written_last_and_nothing_else_waits() -> None:
    patience, numbers = Patience(), Outcome(numbers_only=True)
    assert patience.left(IRIS, numbers, 100.0) == 0.0
    patience.wrote(IRIS, 100.0)
    assert patience.left(IRIS, numbers, 100.5) == NUMBERS_SECONDS - 0.5
    assert patience.left(IRIS, Outcome(), 100.5) == 0.0
    patience.forget(IRIS)
    assert patience.left(IRIS, numbers, 100.5) == 0.0


@virtual
async def test_a_change_that_the_gateway_takes_at_once_is_one_write_and_no_event() -> None:
    world = World()
    async with world.running():
        await world.serve("digits", "models/forest.onnx", replicas=0)
        await world.prepares()
        assert world.ready("ModelService", "digits")[:2] == ("True", "ScaledToZero")
        before, told = statuses(world), world.events()
        await world.serve("digits", "models/forest.onnx", replicas=0, timeout="30s")
        await world.settle()
        assert statuses(world) == before + 1
        assert world.events() == told
        assert world.ready("ModelService", "digits")[:2] == ("True", "ScaledToZero")


@virtual
async def test_a_gateway_that_takes_long_is_told_of_and_so_is_its_answer() -> None:
    world = World(automatic_gateway=False)
    async with world.running():
        await world.serve("digits", "models/forest.onnx", replicas=0)
        await world.prepares()
        assert world.ready("ModelService", "digits")[1] != "WaitingForGateway"
        await world.passes(PASSING_SECONDS)
        assert world.ready("ModelService", "digits")[:2] == ("False", "WaitingForGateway")
        world.gateway.settle()
        await world.settle()
        assert world.ready("ModelService", "digits")[:2] == ("True", "ScaledToZero")


@virtual
async def test_another_control_plane_writes_no_status_while_it_finds_the_gateway() -> None:
    world = World()
    async with world.running():
        await world.serve("digits", "models/forest.onnx", replicas=0)
        await world.prepares()
    world.gateway = type(world.gateway)(automatic=False)  # nobody is connected to the new one yet
    before, told = statuses(world), world.events()
    async with world.running():
        await world.passes(PASSING_SECONDS / 2)
        world.gateway.settle()
        await world.settle()
        await world.passes(2 * PASSING_SECONDS)
        assert world.ready("ModelService", "digits")[:2] == ("True", "ScaledToZero")
    assert statuses(world) == before
    assert world.events() == told


@virtual
async def test_a_look_that_waits_in_vain_is_not_made() -> None:
    world = World()
    async with world.running() as engine:
        await world.serve("digits", "models/forest.onnx", replicas=0)
        await world.prepares()
        await world.settle()
        looks = engine.counters.reconciles
        await asyncio.sleep(3 * PASSING_SECONDS)
        assert engine.counters.reconciles == looks

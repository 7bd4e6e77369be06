"""Streams in the world of `engine_testing`: what users ask for, and what runners say."""

from typing import Any

from engine_testing import World
from modelyard.control.ir.observed import ObservedReplica, ReplicaState
from modelyard.control.ir.values import Key
from modelyard.control.kube.resources import EVENTS, MODELSTREAMS
from modelyard.wire.report import CleanReport, PartitionReport, Report, StreamReport, failure
from modelyard.wire.work import StreamWork

Object = dict[str, Any]
FOREST, BOOSTED = "models/forest.onnx", "models/boosted.onnx"
NATS = "nats://nats:4222"
SOURCE: Object = {"uri": NATS, "stream": "payments", "subjects": ["payments.in.*.>"], "credentials": "nats"}
SINK: Object = {"uri": NATS, "stream": "scored", "subject": "payments.scored"}
FRAUD: Object = {"delivery": "exactlyOnce", "partitions": 2, "key": {"token": 3}, "replicas": 2}


def says(*held: tuple[int, int | None], **more: Any) -> StreamReport:
    """A runner that holds these partitions, each with its committed position."""
    partitions = tuple(PartitionReport(number=number, committed=committed, lag=0) for number, committed in held)
    return StreamReport(**{"ready": True, "connected": True, "partitions": partitions, **more})


class StreamWorld(World):
    """Levers for streams, by name in the namespace default."""

    async def follow(self, name: str = "fraud", *, model: Object | None = None, **spec: Any) -> None:
        """Apply a stream."""
        work = {"model": model or {"uri": FOREST}, "source": SOURCE, "sink": SINK}
        await self.apply("ModelStream", name, {**work, **FRAUD, **spec})

    async def following(self, name: str = "fraud", **spec: Any) -> list[str]:
        """Apply a stream, until its runners score both partitions. -> the runners"""
        await self.follow(name, **spec)
        await self.prepares()
        await self.loads()
        runners = self.runners(name)
        self.driver.report(runners[0], says((0, 100), (1, 120)))
        for other in runners[1:]:
            self.driver.report(other, says())
        await self.settle()
        return runners

    def find_stream(self, name: str = "fraud") -> Object | None:
        return self.api.find(MODELSTREAMS, name)

    def status(self, name: str = "fraud") -> Object:
        found = self.find_stream(name)
        assert found is not None
        status: Object = found.get("status", {})
        return status

    def told(self, of: str = "Ready", name: str = "fraud") -> tuple[str, str]:
        """Status and reason of a condition."""
        found = (each for each in self.status(name).get("conditions", ()) if each["type"] == of)
        return next(((each["status"], each["reason"]) for each in found), ("", ""))

    def members(self, name: str = "fraud", *states: ReplicaState) -> list[ObservedReplica]:
        units = self.driver.observe(Key(kind="ModelStream", namespace=self.namespace, name=name)).units
        found = [member for unit in units for member in unit.members]
        return [each for each in found if not states or each.state in states]

    def runners(self, name: str = "fraud", *states: ReplicaState) -> list[str]:
        """By default those that are ready."""
        return [each.name for each in self.members(name, *(states or (ReplicaState.READY,)))]

    def work(self, runner: str) -> StreamWork:
        found = self.driver.work(runner).stream
        assert found is not None
        return found

    def cleaning(self) -> list[str]:
        return [each for each in self.tasks() if "-clean-" in each]

    def ends_cleaning(self, task: str, broken: str = "") -> None:
        """A task that cleans ends, in a failure with that message if there is one."""
        done = Report(clean=CleanReport(done=True))
        self.driver.finish(task, failure("BrokerUnreachable", broken, retry=True) if broken else done)

    async def cleans(self, broken: str = "") -> None:
        """The one that runs ends."""
        (task,) = self.cleaning()
        self.ends_cleaning(task, broken)
        await self.settle()

    def count(self, reason: str) -> int:
        """How often events of that reason were told."""
        return sum(each["count"] for each in self.api.all(EVENTS) if each["reason"] == reason)

"""Jobs in the world of `engine_testing`: what users ask for, what runners do, and what is told about both."""

from typing import Any

from engine_testing import World
from modelyard.control.ir.actions import Forget, Run
from modelyard.control.ir.observed import MemberState, ObservedTask
from modelyard.control.ir.values import Key
from modelyard.control.kube.resources import EVENTS, MODELJOBS
from modelyard.wire.report import JobReport, Metric, Report, failure

Object = dict[str, Any]
FOREST = "models/forest.onnx"
SHARDS = 8
MADE = {"name": "digits-v2", "path": "model", "format": "onnx"}
DIGEST = "sha256:" + "d" * 64


def works(committed: int = 0, *, done: bool = False, **more: Any) -> Report:
    """What a runner of a scoring job says."""
    report = JobReport(run=1, done=done, shards=SHARDS, committed=committed, rows=10 * committed, total_rows=80, **more)
    return Report(job=report)


DONE = works(SHARDS, done=True)
TRAINED = Report(
    job=JobReport(run=1, done=True, output="out", digest=DIGEST, metrics=(Metric(name="accuracy", value=0.975),))
)


class JobWorld(World):
    """Levers for jobs, by name in the namespace default."""

    async def score(self, name: str = "score", *, model: Object | None = None, **spec: Any) -> None:
        """Apply a scoring job."""
        work = {"model": model or {"name": "forest"}, "input": {"uri": "in"}, "output": {"uri": "out"}}
        await self.apply("ModelJob", name, {"score": work, **spec})

    async def train(self, name: str = "train", **spec: Any) -> None:
        """Apply a job that makes a Model."""
        run = {"command": ["python", "train.py"], "output": {"uri": "out"}, "outputModel": MADE}
        await self.apply("ModelJob", name, {"run": run, **spec})

    async def scoring(self, name: str = "score", **spec: Any) -> ObservedTask:
        """Apply a scoring job and its Model, until its runners run."""
        await self.apply("Model", "forest", {"uri": FOREST})
        await self.score(name, **spec)
        await self.prepares()
        return self.task(name)

    def status(self, name: str) -> Object:
        found = self.api.find(MODELJOBS, name) or {}
        status: Object = found.get("status", {})
        return status

    def told(self, name: str, of: str = "Complete") -> tuple[str, str, str]:
        """Status, reason and message of a condition."""
        for condition in self.status(name).get("conditions", ()):
            if condition["type"] == of:
                return condition["status"], condition["reason"], condition["message"]
        return "", "", ""

    def job_tasks(self, name: str) -> tuple[ObservedTask, ...]:
        return self.driver.observe(Key(kind="ModelJob", namespace=self.namespace, name=name)).tasks

    def task(self, name: str) -> ObservedTask:
        (task,) = self.job_tasks(name)
        return task

    def runners(self, name: str, *states: MemberState) -> list[str]:
        """Of those that the driver has; by default those that work."""
        wanted = states or (MemberState.RUNNING,)
        return [each.name for task in self.job_tasks(name) for each in task.members if each.state in wanted]

    async def dies(self, runner: str, message: str = "") -> None:
        """A runner ends by itself."""
        self.driver.end(runner, status=1, how=message)
        await self.settle()

    async def fails_for_good(self, name: str) -> None:
        runner = self.runners(name)[0]
        self.driver.end(runner, status=1, report=failure("SchemaMismatch", "the input has no column X"))
        await self.ends_asked(name)

    async def ends(self, name: str, report: Report = DONE) -> None:
        """All work is done; one runner says so, and the others end as they are asked to."""
        self.driver.end(self.runners(name)[0], report=report)
        await self.ends_asked(name)

    async def ends_asked(self, name: str) -> None:
        """Runners that were asked to end do so."""
        await self.settle()
        for runner in self.runners(name, MemberState.ENDING):
            self.driver.end(runner, status=-15)
        await self.settle()

    def started(self) -> list[str]:
        """Names of all tasks of jobs that were ever started."""
        runs = [each.task for each in self.driver.applied if isinstance(each, Run)]
        return [task.name for task in runs if task.work.prepare is None]

    def forgotten(self) -> list[str]:
        return [each.task for each in self.driver.applied if isinstance(each, Forget)]

    def count(self, reason: str) -> int:
        """How often events of that reason were told."""
        return sum(each["count"] for each in self.api.all(EVENTS) if each["reason"] == reason)

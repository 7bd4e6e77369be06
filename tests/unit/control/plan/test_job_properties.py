"""Safety of jobs' planner under random histories: failures, restarts of the server, lost writes, suspension, time."""

from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from apiserver_testing import KINDS
from modelyard.api import load
from modelyard.api.job import ModelJob
from modelyard.api.model import Model
from modelyard.base.clock import seconds_since_epoch
from modelyard.control.apiserver.admission import admit
from modelyard.control.ir import names
from modelyard.control.ir.actions import Action, Adjust, Forget, Run
from modelyard.control.ir.observed import MemberState, Observed, ObservedMember, ObservedTask, Trouble
from modelyard.control.ir.revision import JobRevision
from modelyard.control.ir.task import Task
from modelyard.control.plan import job
from modelyard.control.plan.diff import diff
from modelyard.control.plan.views import JobView, MadeModel, Outcome
from modelyard.wire.report import JobReport, Metric, Report, failure

Object = dict[str, Any]
KIND = KINDS["ModelJob"]
SHARDS, ROWS = 8, 1000
RUNNING, PENDING, ENDING = MemberState.RUNNING, MemberState.PENDING, MemberState.ENDING
SCORE: Object = {"model": {"name": "forest"}, "input": {"uri": "in"}, "output": {"uri": "out"}}
TRAIN: Object = {
    "command": ["python", "train.py"],
    "output": {"uri": "out"},
    "outputModel": {"name": "digits", "path": "model"},
}


def _model(name: str, digit: int, **annotations: str) -> Model:
    body = {
        "apiVersion": "modelyard.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": name, "uid": f"m-{name}", "annotations": annotations},
        "spec": {"uri": f"{name}.onnx"},
        "status": {"digest": "sha256:" + str(digit) * 64, "format": "onnx"},
    }
    found = load.decode(body)
    assert isinstance(found, Model)
    return found


@dataclass
class World:
    """A simulated laptop: everything that outlives a planning step."""

    work: Object
    deadline: int | None = None
    limit: int = 3
    parallelism: int = 1
    suspend: bool = False
    now: float = 1_800_000_000.25
    status: Object = field(default_factory=dict)
    revision: JobRevision | None = None
    task: ObservedTask | None = None
    forgotten: bool = False
    committed: int = 0
    forest: int | None = 1
    stranger: bool = False
    made: list[MadeModel] = field(default_factory=list)
    ran: list[Task] = field(default_factory=list)
    lost: int = 0
    crashes: int = 0

    def body(self) -> Object:
        spec = {
            **self.work,
            "parallelism": self.parallelism,
            "backoffLimit": self.limit,
            "activeDeadlineSeconds": self.deadline,
            "suspend": self.suspend,
        }
        return {
            "apiVersion": "modelyard.dev/v1alpha1",
            "kind": "ModelJob",
            "metadata": {"name": "score", "namespace": "default", "uid": "j-1", "generation": 1},
            "spec": {name: value for name, value in spec.items() if value is not None},
            "status": self.status,
        }

    def view(self) -> JobView:
        declared = load.decode(self.body())
        assert isinstance(declared, ModelJob)
        models = [_model("forest", self.forest)] if self.forest is not None and "score" in self.work else []
        if "run" in self.work:
            models += [_model("digits", 7)] if self.stranger else []
            models += [_model("digits", 8, **each.annotations) for each in self.made[:1] if not self.stranger]
        return JobView(job=declared, models=tuple(models), revision=self.revision, observed=self.observed())

    def observed(self) -> Observed:
        return Observed(tasks=(self.task,) if self.task else ())

    def step(self) -> tuple[Outcome, tuple[Action, ...]]:
        outcome = job.desire(self.view(), self.now)
        actions = diff(outcome.desired, self.observed())
        self.check(outcome, actions)
        for record in outcome.desired.records:
            assert isinstance(record, JobRevision)
            assert self.revision is None, "recorded once"
            self.revision = record
        for action in actions:
            self.apply(action)
        if outcome.made and not self.made:
            self.made.append(outcome.made)
        assert outcome.status is not None
        if self.lost:
            self.lost -= 1
        else:
            self.status = outcome.status
        return outcome, actions

    def apply(self, action: Action) -> None:
        match action:
            case Run(task=task):
                assert self.task is None
                self.ran.append(task)
                self.forgotten = False
                self.task = ObservedTask(
                    name=task.name, owner=task.owner, parallelism=task.parallelism, started_at=self.now
                )
                self._staff(RUNNING)
            case Adjust(parallelism=parallelism):
                self._change(parallelism=parallelism)
                self._staff(RUNNING)
            case Forget():
                self.forgotten = True
                self._staff(ENDING)
            case _:
                raise AssertionError(f"a job has no units: {action}")

    def _staff(self, state: MemberState) -> None:
        assert self.task is not None
        crew = {each.name: each for each in self.task.members}
        wanted = [f"{self.task.name}-{index}" for index in range(self.task.parallelism)]
        members = tuple(
            msgspec.structs.replace(crew.get(each, ObservedMember(name=each, state=state)), state=state)
            for each in wanted
        )
        self._change(members=() if self.task.finished_at is not None else members)

    def _change(self, **changes: Any) -> None:
        assert self.task is not None
        self.task = msgspec.structs.replace(self.task, **changes)

    def member(self, index: int, **changes: Any) -> None:
        assert self.task is not None
        crew = list(self.task.members)
        if crew:
            crew[index % len(crew)] = msgspec.structs.replace(crew[index % len(crew)], **changes)
            self._change(members=tuple(crew))

    def finish(self, report: Report | None, message: str = "") -> None:
        self._change(finished_at=self.now, members=(), report=report, message=message)

    def report(self, committed: int, *, done: bool = False, already: bool = False) -> Report:
        share = ROWS * committed // SHARDS
        shards = (SHARDS, committed) if "score" in self.work else (0, 0)
        told = JobReport(run=1, done=done, already=already, shards=shards[0], committed=shards[1], rows=share)
        return Report(job=told)

    def rest(self) -> Outcome:
        """Until nothing changes: feeding back what was planned must get there, and then say the same."""
        for _ in range(8):
            before, lost = self.status, self.lost
            outcome, actions = self.step()
            if self.forgotten and self.task:
                self.task = None
            elif not actions and not outcome.desired.records and self.status == before and not lost:
                assert outcome.events == (), "told once"
                assert outcome.status == self.status
                return outcome
        raise AssertionError("planning what was planned keeps changing things")

    def check(self, outcome: Outcome, actions: tuple[Action, ...]) -> None:
        status, before = outcome.status, self.status
        assert status is not None
        if status != before:
            whole = admit(KIND, self.body(), None)[0]
            stored = admit(KIND, {**whole, "status": status}, whole, subresource="status")[0]
            assert stored["status"] == status, "the API server takes it as it is"
        complete, failed, *_ = conditions(status)
        assert (complete["type"], failed["type"]) == ("Complete", "Failed")
        assert not complete["status"] == failed["status"] == "True"
        assert complete["message"], "it always says why"
        assert progress(status) >= progress(before), "progress never goes back"
        assert status.get("failed", 0) >= before.get("failed", 0), "nor do failures"
        assert status.get("failed", 0) <= self.crashes, "none is counted twice"
        assert not ended(status) or status["active"] == 0
        if ended(before):
            assert without(status) == without(before), "what is over does not change"
            assert (outcome.desired.tasks, outcome.desired.records, outcome.events) == ((), (), ())
        assert (outcome.made is None) or (complete["status"] == "True" and not ended(before))
        self._check_tasks(outcome, actions, ended(before) or ended(status))
        self._check_reason(complete, failed)

    def _check_tasks(self, outcome: Outcome, actions: tuple[Action, ...], over: bool) -> None:
        for task in outcome.desired.tasks:
            assert self.revision is not None, "only what was recorded runs"
            assert msgspec.structs.replace(task, parallelism=self.revision.task.parallelism) == self.revision.task
            assert task.parallelism == self.parallelism
        if over:
            assert not any(isinstance(action, Run) for action in actions), "what is over is not run again"
        if over and not ended(self.status):
            assert actions == (), "all is left as it is until the result is stored"
        if self.suspend:
            assert outcome.desired.tasks == ()
        if self.suspend and self.task and self.task.finished_at is None:
            assert [type(action) for action in actions] in ([Forget], []), "nothing runs while it is suspended"
            assert actions or ended(outcome.status or {}), "and what ends for another reason ends in the next step"

    def _check_reason(self, complete: Object, failed: Object) -> None:
        done = self.task is not None and self.task.report is not None and self.task.report.job is not None
        if done and not ended(self.status) and not self.stranger:
            assert complete["status"] == "True", "work that is done counts, whatever is asked for now"
        if failed["status"] != "True" or ended(self.status):
            return
        if failed["reason"] == "DeadlineExceeded":
            started = self.status.get("startTime")
            assert self.deadline is not None
            assert started is not None
            assert self.now >= seconds_since_epoch(started) + self.deadline
        if failed["reason"] == "Crashed":
            assert self.task is not None
            assert self.task.message, "a task that its driver ended is no failure"
        if failed["reason"] == "BackoffLimitExceeded":
            assert f"backoffLimit is {self.limit}" in complete["message"]


def conditions(status: Object) -> list[Object]:
    return list(status.get("conditions", ()))


def ended(status: Object) -> bool:
    return any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in conditions(status))


def without(status: Object) -> Object:
    """Without the generation, which follows the spec."""
    cut = [{k: v for k, v in each.items() if k != "observedGeneration"} for each in conditions(status)]
    return {**{k: v for k, v in status.items() if k != "observedGeneration"}, "conditions": cut}


def progress(status: Object) -> tuple[int, int]:
    return status.get("run", 0), status.get("shards", {}).get("committed", 0)


WORDS = st.sampled_from(["", "a disk failed", "first line\nsecond line"])
NOTHING = st.none()
EVENTS = {
    "report": (3, st.integers(0, 3), st.integers(0, SHARDS)),
    "crash": (3, st.integers(0, 3), WORDS),
    "done": (1, st.booleans(), NOTHING),
    "end for good": (1, WORDS, NOTHING),
    "end": (1, WORDS, NOTHING),
    "restart": (2, NOTHING, NOTHING),
    "gone": (2, NOTHING, NOTHING),
    "suspend": (4, st.booleans(), NOTHING),
    "scale": (2, st.integers(1, 4), NOTHING),
    "limit": (1, st.integers(0, 4), NOTHING),
    "time": (2, st.sampled_from([0.001, 0.4, 1.0, 30.0, 100.0]), NOTHING),
    "forest": (1, st.sampled_from([None, 1, 2]), NOTHING),
    "stranger": (1, st.booleans(), NOTHING),
    "lose": (2, st.integers(1, 2), NOTHING),
}
"""How often, and with what."""
EVENT = st.sampled_from([kind for kind, (weight, *_) in EVENTS.items() for _ in range(weight)]).flatmap(
    lambda kind: st.tuples(st.just(kind), *EVENTS[kind][1:])
)
HISTORIES = st.lists(st.tuples(EVENT, st.sampled_from(["nothing", "nothing", "step", "rest"])), min_size=4, max_size=25)
WORLDS = st.builds(
    World,
    work=st.sampled_from([{"score": SCORE}, {"score": SCORE}, {"run": TRAIN}]),
    deadline=st.sampled_from([None, None, 20, 200]),
    forest=st.sampled_from([None, 1, 1, 1]),
)


def happen(world: World, kind: str, first: Any, second: Any) -> None:
    if kind == "suspend":
        world.suspend = first
    elif kind == "scale" and "score" in world.work:
        world.parallelism = first
    elif kind in ("limit", "forest", "stranger", "lost"):
        setattr(world, kind, first)
    elif kind == "lose":
        world.lost = first
    elif kind == "time":
        world.now += first
    elif kind == "restart" or (kind == "gone" and world.forgotten):
        world.task = None
    elif world.task and world.task.finished_at is None and not world.forgotten:
        _member_happens(world, kind, first, second)


def _member_happens(world: World, kind: str, first: Any, second: Any) -> None:
    assert world.task is not None
    if kind == "report":
        world.committed = max(world.committed, second)
        world.member(first, report=world.report(second), state=RUNNING)
    elif kind == "crash":
        trouble = Trouble(reason="Crashed", message=second, since=world.now)
        world._change(failures=world.task.failures + 1)
        world.crashes += 1
        world.member(first, state=PENDING, trouble=trouble)
    elif kind == "done":
        world.finish(world.report(SHARDS, done=True, already=first))
    elif kind == "end for good":
        world.finish(failure("SchemaMismatch", first))
    elif kind == "end":
        world.finish(None, first)


def live(world: World, history: list[tuple[tuple[str, Any, Any], str]]) -> None:
    world.rest()
    for event, then in history:
        happen(world, *event)
        if then == "step":
            world.step()
        elif then == "rest":
            world.rest()


@settings(max_examples=400, deadline=None)
@given(WORLDS, HISTORIES)
def test_no_history_breaks_what_a_job_promises(world: World, history: list[tuple[tuple[str, Any, Any], str]]) -> None:
    live(world, history)
    assert len({task.name for task in world.ran}) <= 1, "a job has one task"
    assert len({each.name for each in world.made}) <= 1


@settings(max_examples=120, deadline=None)
@given(WORLDS, HISTORIES)
def test_every_history_can_end_well(world: World, history: list[tuple[tuple[str, Any, Any], str]]) -> None:
    world.deadline = None
    live(world, history)
    world.lost, world.limit, world.suspend, world.stranger = 0, 100, False, False
    world.forest = world.forest or 2
    world.rest()
    if not ended(world.status):
        assert world.task is not None
        assert world.task.parallelism == world.parallelism
        world.finish(world.report(SHARDS, done=True))
        assert world.rest().desired.tasks == ()
        complete = conditions(world.status)[0]
        assert (complete["status"], complete["reason"]) == ("True", "Completed")
        assert len(world.made) == ("run" in world.work)
    assert world.status["active"] == 0
    assert world.task is None, "nothing is left when it is over"


@given(st.integers(1, 3), st.floats(0.1, 500, allow_nan=False), st.sampled_from([10, 100]))
def test_the_deadline_counts_from_the_last_start(times: int, pause: float, deadline: int) -> None:
    world = World(work={"score": SCORE}, deadline=deadline)
    world.rest()
    for _ in range(times):
        world.now += deadline / 2
        world.rest()
        world.suspend = True
        world.rest()
        world.now += pause
        world.rest()
        assert not ended(world.status)
        world.suspend = False
        world.rest()
    outcome = world.rest()
    assert not ended(world.status)
    assert outcome.wake_at is not None
    assert world.now < outcome.wake_at <= world.now + deadline
    world.now = outcome.wake_at
    world.rest()
    assert conditions(world.status)[1]["reason"] == "DeadlineExceeded"


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.integers(0, 12))
def test_failures_are_counted_over_restarts_of_the_server(lives: list[int], limit: int) -> None:
    world = World(work={"score": SCORE}, limit=limit)
    total = 0
    for failed in lives:
        world.now += 0.01
        world.rest()
        for _ in range(failed):
            if world.task:
                happen(world, "crash", 0, "out of luck")
                total += 1
                world.rest()
        if total > limit:
            break
        world.task = None
    else:
        world.rest()
    assert world.status["failed"] == total
    assert ended(world.status) is (total > limit)


NUMBERS = st.integers(-(2**70), 2**70)
REPORTS = st.builds(
    JobReport,
    run=NUMBERS,
    done=st.booleans(),
    already=st.booleans(),
    shards=NUMBERS,
    committed=NUMBERS,
    rows=NUMBERS,
    error_rows=NUMBERS,
    total_rows=NUMBERS,
    rows_per_second=st.floats(),
    eta_seconds=st.none() | st.floats(),
    percent=st.none() | NUMBERS,
    metrics=st.lists(
        st.builds(Metric, name=st.sampled_from(["", "loss", "accuracy"]), value=st.floats()), max_size=4
    ).map(tuple),
    digest=st.sampled_from(["", "sha256:abc", "sha256:" + "b" * 64, "md5:x\n"]),
    format=st.sampled_from(["", "onnx", "no format", "x" * 200, "onnx\n"]),
    note=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([{"score": SCORE}, {"run": TRAIN}]), st.lists(REPORTS, min_size=1, max_size=3))
def test_nothing_that_a_runner_says_breaks_a_status(work: Object, reports: list[JobReport]) -> None:
    world = World(work=work)
    world.rest()
    for report in reports:
        world.member(0, report=Report(job=report))
        world.rest()
    world.finish(Report(job=msgspec.structs.replace(reports[-1], done=True)))
    world.rest()
    assert ended(world.status)
    for made in world.made:
        assert made.annotations[names.ANNOTATION_JOB_UID] == "j-1"


def test_failures_of_a_task_that_is_being_ended_are_counted_once() -> None:
    world = World(work={"score": SCORE})
    world.rest()
    world.task, world.now = None, world.now + 1
    world.step()
    happen(world, "crash", 0, "out of luck")
    world.suspend = True
    for _ in range(3):
        world.step()
        assert world.status["failed"] == 1
    assert world.status["active"] == 0

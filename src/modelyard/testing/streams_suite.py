"""What every Driver does with units that follow a stream, and with what cleans up after them; see `driver_suite`."""

from modelyard.base.conditions import Reason
from modelyard.base.errors import RetryLater, UserError
from modelyard.control.ir.actions import Resize, Run, Start, Stop
from modelyard.control.ir.observed import ObservedReplica, ReplicaState
from modelyard.control.ir.unit import Credential
from modelyard.testing.driver_rig import (
    STREAM,
    Rig,
    clean,
    ended,
    found,
    hinted,
    members,
    message,
    ready,
    refused,
    states,
    stream,
    told,
    troubled,
    unit,
    until,
)

NATS = Credential(role="source", secret="nats")  # noqa: S106  the name of one


class StreamsSuite:
    """Runners of a stream: no requests reach them, their reports are seen, and they learn what has begun."""

    async def test_a_runner_gets_ready_without_an_address(self, rig: Rig) -> None:
        fraud = stream()
        await rig.driver.apply(Start(unit=fraud, replicas=2))
        first, second = await ready(rig, fraud.name, 2)
        assert (first.address, second.address) == ("", "")
        assert first.name != second.name
        assert all(each is not None and each.ready for each in told(rig, fraud.name))

    async def test_what_serves_has_no_report_to_tell(self, rig: Rig) -> None:
        await rig.driver.apply(Start(unit=unit(), replicas=1))
        (replica,) = await ready(rig, unit().name)
        assert replica.report is None

    async def test_its_latest_report_is_seen_and_its_owner_is_told(self, rig: Rig) -> None:
        fraud = stream(lever="progress")
        await rig.driver.apply(Start(unit=fraud, replicas=1))
        await ready(rig, fraud.name)
        async with hinted(rig) as keys:
            await rig.step()
            keys.clear()
            await until(rig, lambda: _records(rig, fraud.name) == [7], "the second report")
            await until(rig, lambda: keys == [STREAM] * len(keys) != [], "a hint for the owner")
        assert states(rig, fraud.name) == [ReplicaState.READY]

    async def test_a_runner_that_is_not_ready_is_heard_too(self, rig: Rig) -> None:
        fraud = stream(lever="waits")
        async with hinted(rig) as keys:
            await rig.driver.apply(Start(unit=fraud, replicas=1))
            await until(rig, lambda: any(told(rig, fraud.name)), "a report")
            keys.clear()
            await until(rig, lambda: states(rig, fraud.name) == [ReplicaState.STARTING], "it is starting")
        (report,) = told(rig, fraud.name)
        assert report is not None
        assert (report.ready, report.connected) == (False, True)

    async def test_a_runner_that_says_what_it_waits_for_is_not_ended_for_being_late(self, rig: Rig) -> None:
        late = stream(lever="waits", startup_timeout_seconds=0.5)
        tells = stream("fraud-str-00002.default", lever="away", startup_timeout_seconds=0.5)
        await rig.driver.apply(Start(unit=tells, replicas=1))
        await until(rig, lambda: any(told(rig, tells.name)), "a report")
        await rig.driver.apply(Start(unit=late, replicas=1))
        await troubled(rig, late.name, Reason.STARTUP_TIMEOUT)
        assert states(rig, tells.name) == [ReplicaState.STARTING]

    async def test_a_report_goes_with_its_process(self, rig: Rig) -> None:
        fraud = stream(lever="progress")
        await rig.driver.apply(Start(unit=fraud, replicas=1))
        await until(rig, lambda: _records(rig, fraud.name) == [7], "the second report")
        rig.kill(members(rig, fraud.name)[0])
        await troubled(rig, fraud.name, Reason.CRASHED)
        assert members(rig, fraud.name)[0].report is None
        await until(rig, lambda: _records(rig, fraud.name) == [7], "the report of the next process")

    async def test_a_failure_that_is_reported_while_it_works_ends_it(self, rig: Rig) -> None:
        fraud = stream(lever="later=RecordFailed")
        await rig.driver.apply(Start(unit=fraud, replicas=1))
        failed = await troubled(rig, fraud.name, Reason.RECORD_FAILED)
        assert message(failed) == "record 7 cannot be scored"
        assert failed.report is None
        await until(rig, lambda: members(rig, fraud.name)[0].restarts >= 2, "it is started again")

    async def test_a_process_is_told_what_had_begun_when_it_started(self, rig: Rig) -> None:
        fraud = stream()
        await rig.driver.apply(Start(unit=fraud, replicas=1, begun=(0,)))
        (first,) = await ready(rig, fraud.name)
        assert (_begun(rig, first), _asked(rig, fraud.name)) == ((0,), (0,))
        await rig.driver.apply(Resize(unit=fraud.name, owner=STREAM, replicas=1, begun=(0, 1)))
        assert _asked(rig, fraud.name) == (0, 1)
        await rig.step()
        assert (await ready(rig, fraud.name), _begun(rig, first)) == ((first,), (0,))
        await rig.driver.apply(Resize(unit=fraud.name, owner=STREAM, replicas=2, begun=(0, 1, 2)))
        _, second = await ready(rig, fraud.name, 2)
        assert _begun(rig, second) == (0, 1, 2)
        rig.kill(first)
        await troubled(rig, fraud.name, Reason.CRASHED)
        came_back, _ = await ready(rig, fraud.name, 2)
        assert _begun(rig, came_back) == (0, 1, 2)
        each = found(rig, fraud.name)
        assert each is not None
        assert each.unit == fraud, "what is recorded stays as it is"

    async def test_news_of_what_has_begun_is_told_once(self, rig: Rig) -> None:
        fraud = stream()
        await rig.driver.apply(Start(unit=fraud, replicas=1))
        await ready(rig, fraud.name)
        change = Resize(unit=fraud.name, owner=STREAM, replicas=1, begun=(3,))
        async with hinted(rig) as keys:
            await rig.step()
            keys.clear()
            await rig.driver.apply(change)
            await until(rig, lambda: keys == [STREAM], "a hint for the owner")
            keys.clear()
            await rig.driver.apply(change)
            await rig.step()
            assert keys == []

    async def test_a_runner_whose_credentials_are_missing_waits_for_them(self, rig: Rig) -> None:
        fraud = stream(credentials=(NATS,))
        await rig.driver.apply(Start(unit=fraud, replicas=1))
        waiting = await troubled(rig, fraud.name, Reason.SECRET_NOT_FOUND)
        assert (waiting.state, waiting.restarts) == (ReplicaState.PENDING, 0)
        assert "source needs Secret nats" in message(waiting)
        rig.secret_files["nats"] = {"user": b"ana"}
        rig.look_again()
        (member,) = await ready(rig, fraud.name)
        assert member.trouble is None

    async def test_a_leaving_runner_finishes_what_it_has_begun(self, rig: Rig) -> None:
        fraud = stream(lever="drain=0.5")
        await rig.driver.apply(Start(unit=fraud, replicas=1))
        await ready(rig, fraud.name)
        began = rig.clock.monotonic()
        await rig.driver.apply(Stop(unit=fraud.name, owner=STREAM))
        await until(rig, lambda: states(rig, fraud.name) == [ReplicaState.DRAINING], "it drains")
        assert any(told(rig, fraud.name)), "it is still heard"
        other = stream(lever="drain=0.5", drain_seconds=1.0)
        await refused(rig, Start(unit=other, replicas=1), RetryLater)
        await until(rig, lambda: found(rig, fraud.name) is None, "the unit is forgotten")
        assert rig.clock.monotonic() - began >= 0.5

    async def test_cleaning_up_runs_once(self, rig: Rig) -> None:
        rig.secret_files["nats"] = {"user": b"ana"}
        tidy = clean(credentials=(NATS,))
        await rig.driver.apply(Run(task=tidy))
        over = await ended(rig, tidy.name)
        assert (over.owner, over.message) == (STREAM, "")
        assert over.report is not None
        assert over.report.clean is not None
        assert over.report.clean.done

    async def test_cleaning_up_that_fails_says_why(self, rig: Rig) -> None:
        tidy = clean(lever="failure=BrokerUnreachable")
        await rig.driver.apply(Run(task=tidy))
        over = await ended(rig, tidy.name)
        assert over.report is not None
        assert over.report.failure is not None
        assert over.report.failure.reason == Reason.BROKER_UNREACHABLE

    async def test_a_stream_is_no_task_and_cleaning_up_no_unit(self, rig: Rig) -> None:
        await refused(rig, Run(task=clean(work=stream().work)), UserError)
        await refused(rig, Run(task=clean(restart=True)), UserError)
        await refused(rig, Start(unit=stream(work=clean().work), replicas=1), UserError)
        assert rig.driver.observe() == type(rig.driver.observe())()


def _records(rig: Rig, name: str) -> list[int]:
    return [each.records for each in told(rig, name) if each is not None]


def _begun(rig: Rig, replica: ObservedReplica) -> tuple[int, ...]:
    work = rig.work(replica).stream
    assert work is not None
    return work.begun


def _asked(rig: Rig, name: str) -> tuple[int, ...]:
    each = found(rig, name)
    assert each is not None
    return each.begun

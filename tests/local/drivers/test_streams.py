import json
from pathlib import Path

import psutil
import pytest

from drivers_testing import ProcessRig, notes
from modelyard.base.conditions import Reason
from modelyard.control.drivers.processes import replica
from modelyard.control.ir.actions import Resize, Run, Start, Stop
from modelyard.control.ir.observed import ReplicaState
from modelyard.control.ir.unit import Credential
from modelyard.testing.driver_rig import (
    STREAM,
    clean,
    crew,
    ended,
    found,
    hinted,
    members,
    message,
    ready,
    states,
    stream,
    told,
    troubled,
    unit,
    until,
    working,
)

NATS = (Credential(role="source", secret="nats"), Credential(role="sink", secret="other"))


def seen(rig: ProcessRig) -> dict[str, str]:
    """The environment of the process that noted it last."""
    found: dict[str, str] = json.loads((rig.base / "notes" / "environment.json").read_text())
    return found


def contents(folder: Path) -> dict[str, bytes | None]:
    """Of a folder that is for its owner alone; None: another folder."""
    for path in (folder.parent, folder, *folder.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o600 if path.is_file() else 0o700)
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


async def test_a_runner_knows_its_socket_and_where_the_broker_is_announced(rig: ProcessRig) -> None:
    fraud = stream(variables=(notes(rig.base),))
    await rig.driver.apply(Start(unit=fraud, replicas=1))
    await ready(rig, fraud.name)
    assert seen(rig)["MODELYARD_BROKER"] == str(rig.folders.run / "broker.json")
    assert seen(rig)["MODELYARD_SOCKET"] == str(rig.folders.socket(f"{fraud.name}-0"))
    assert "MODELYARD_SECRETS" not in seen(rig)


async def test_cleaning_up_knows_where_the_broker_is_announced(rig: ProcessRig) -> None:
    tidy = clean(lever="take=20")
    await rig.driver.apply(Run(task=tidy))
    (member,) = await working(rig, tidy.name, 1)
    await until(rig, lambda: "MODELYARD_BROKER" in psutil.Process(member.pid).environ(), "its place")
    assert "MODELYARD_SOCKET" not in psutil.Process(member.pid).environ()


async def test_nothing_else_is_told_of_the_broker(rig: ProcessRig) -> None:
    iris = unit(variables=(notes(rig.base),))
    await rig.driver.apply(Start(unit=iris, replicas=1))
    await ready(rig, iris.name)
    assert "MODELYARD_BROKER" not in seen(rig)
    await rig.driver.apply(Run(task=crew(lever="done", parallelism=1, variables=iris.variables[1:])))
    await ended(rig, crew().name)
    assert "MODELYARD_BROKER" not in seen(rig)


async def test_credentials_are_files_of_each_process_alone_and_go_with_it(rig: ProcessRig) -> None:
    rig.secret_files |= {"nats": {"user": b"ana\n", "ca.crt": b"\x00"}, "other": {}}
    fraud = stream(lever="later=RecordFailed", credentials=NATS, variables=(notes(rig.base),))
    await rig.driver.apply(Start(unit=fraud, replicas=1))
    await ready(rig, fraud.name)
    folder = Path(seen(rig)["MODELYARD_SECRETS"])
    assert contents(folder) == {"source/user": b"ana\n", "source/ca.crt": b"\x00", "source": None, "sink": None}
    rig.secret_files["nats"] = {"user": b"new"}
    await until(rig, lambda: members(rig, fraud.name)[0].restarts >= 1, "it has ended")
    await ready(rig, fraud.name)
    assert (folder / "source" / "user").read_bytes() == b"new"
    await until(rig, lambda: members(rig, fraud.name)[0].restarts >= 2, "it has ended again")
    await until(rig, lambda: states(rig, fraud.name) == [ReplicaState.PENDING], "it waits")
    assert not folder.parent.exists(), "while nothing runs, nothing lies there"


async def test_nothing_waits_for_the_gateway_before_sigterm(rig: ProcessRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "LEAVE_SECONDS", 600.0)
    fraud = stream()
    await rig.driver.apply(Start(unit=fraud, replicas=1))
    await ready(rig, fraud.name)
    await rig.driver.apply(Stop(unit=fraud.name, owner=STREAM))
    await until(rig, lambda: found(rig, fraud.name) is None, "it has ended")


@pytest.mark.parametrize("lever", ["chatty", "chatty waits"])
async def test_runners_that_report_all_the_time_do_not_make_their_owner_busy(rig: ProcessRig, lever: str) -> None:
    fraud = stream(lever=lever)
    await rig.driver.apply(Start(unit=fraud, replicas=3))

    def heard() -> bool:
        reports = told(rig, fraud.name)
        return len(reports) == 3 and all(each is not None and each.records for each in reports)

    await until(rig, heard, "all report")
    before = told(rig, fraud.name)
    async with hinted(rig) as keys:
        ends = rig.clock.monotonic() + 1.5
        await until(rig, lambda: rig.clock.monotonic() >= ends, "a while")
        looks = len(keys)
    assert 1 <= looks <= 4
    assert told(rig, fraud.name) != before


async def test_a_report_that_cannot_be_read_ends_a_runner_that_works(rig: ProcessRig) -> None:
    fraud = stream(lever="spoil")
    await rig.driver.apply(Start(unit=fraud, replicas=1))
    spoilt = await troubled(rig, fraud.name, Reason.CRASHED)
    assert "was ended, since the report is not valid" in message(spoilt)


async def test_a_failure_is_known_although_its_runner_does_not_end(
    rig: ProcessRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "_REPORTED_SECONDS", 0.1)
    fraud = stream(lever="later=RecordFailed linger stubborn")
    await rig.driver.apply(Start(unit=fraud, replicas=1))
    assert message(await troubled(rig, fraud.name, Reason.RECORD_FAILED)) == "record 7 cannot be scored"
    assert members(rig, fraud.name)[0].pid == 0


async def test_a_unit_that_shrank_to_nothing_is_watched_again_when_it_grows(rig: ProcessRig) -> None:
    fraud = stream(lever="progress")
    await rig.driver.apply(Start(unit=fraud, replicas=1))
    await ready(rig, fraud.name)
    await rig.driver.apply(Resize(unit=fraud.name, owner=STREAM, replicas=0))
    await until(rig, lambda: members(rig, fraud.name) == (), "it has left")
    await rig.driver.apply(Resize(unit=fraud.name, owner=STREAM, replicas=1))
    await until(rig, lambda: [each.records for each in told(rig, fraud.name) if each] == [7], "the second report")

import json
import os
import time
from pathlib import Path

import psutil
import pytest

from drivers_testing import ProcessRig, alive, marked, noted, notes, running
from modelyard.base.conditions import Reason
from modelyard.control.ir.actions import Adjust, Forget, Run
from modelyard.control.ir.observed import MemberState, ObservedTask, Usage
from modelyard.control.ir.unit import Credential, Resources
from modelyard.testing.driver_rig import (
    JOB,
    busy,
    crew,
    crewed,
    ended,
    failures,
    gang,
    hinted,
    result,
    stages,
    task,
    until,
    upset,
    working,
)

LAKE = (Credential(role="input", secret="lake"), Credential(role="output", secret="mart"))


def seen(rig: ProcessRig, index: int) -> dict[str, str]:
    """The environment of a member that reported."""
    found: dict[str, str] = json.loads((rig.base / "notes" / f"environment-{index}.json").read_text())
    return found


def there(rig: ProcessRig, name: str) -> ObservedTask:
    found = result(rig, name)
    assert found is not None
    return found


async def test_a_member_knows_its_index_and_its_work(rig: ProcessRig) -> None:
    score = crew(lever="progress", variables=(notes(rig.base),))
    await rig.driver.apply(Run(task=score))
    await busy(rig, score.name)
    first, second = seen(rig, 0), seen(rig, 1)
    assert (first.get("MODELYARD_INDEX", "0"), second["MODELYARD_INDEX"]) == ("0", "1")
    assert not {"MODELYARD_MASTER", "MODELYARD_ATTEMPT", "MODELYARD_SECRETS", "MODELYARD_SOCKET"} & second.keys()
    assert first["MODELYARD_WORK"] != second["MODELYARD_WORK"]
    assert "score" in json.loads((rig.base / "notes" / "work.json").read_text())


async def test_a_gang_agrees_on_a_master_that_is_new_at_each_attempt(rig: ProcessRig) -> None:
    train = gang(lever="progress", variables=(notes(rig.base),))
    await rig.driver.apply(Run(task=train))
    (first, _) = await busy(rig, train.name)
    before = seen(rig, 0)
    assert before["MODELYARD_MASTER"] == seen(rig, 1)["MODELYARD_MASTER"]
    host, _, port = before["MODELYARD_MASTER"].partition(":")
    assert (host, before.get("MODELYARD_ATTEMPT", "1")) == ("127.0.0.1", "1")
    assert 1024 < int(port) < 65536
    rig.kill(first)
    await until(rig, lambda: seen(rig, 0).get("MODELYARD_ATTEMPT") == "2", "the second attempt")
    await until(rig, lambda: seen(rig, 1).get("MODELYARD_ATTEMPT") == "2", "of all")
    assert seen(rig, 0)["MODELYARD_MASTER"] == seen(rig, 1)["MODELYARD_MASTER"]
    assert seen(rig, 0)["MODELYARD_MASTER"] != before["MODELYARD_MASTER"]


@pytest.mark.parametrize("restart", [True, False])
async def test_credentials_are_files_for_their_process_alone_and_go_with_it(rig: ProcessRig, restart: bool) -> None:
    rig.secret_files |= {"lake": {"access-key": b"open\n", "tls.crt": b"\x00\xff"}, "mart": {}}
    some = crew(credentials=LAKE, parallelism=1) if restart else task(lever="hang", credentials=LAKE)
    await rig.driver.apply(Run(task=some))
    await working(rig, some.name, 1)
    (folder,) = rig.folders.work.glob("*/secrets")
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert files == {"input/access-key": b"open\n", "input/tls.crt": b"\x00\xff"}
    process = psutil.Process(crewed(rig, some.name)[0].pid)
    assert process.environ()["MODELYARD_SECRETS"] == str(folder)
    assert (folder / "output").is_dir()
    for path in (folder.parent, folder, *folder.rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o600 if path.is_file() else 0o700)
    await rig.driver.apply(Forget(task=some.name, owner=some.owner))
    await until(rig, lambda: result(rig, some.name) is None, "it is forgotten")
    assert not folder.parent.exists()


async def test_credentials_are_read_again_at_each_start(rig: ProcessRig) -> None:
    rig.secret_files["lake"] = {"token": b"old"}
    score = crew(credentials=LAKE[:1], parallelism=1)
    await rig.driver.apply(Run(task=score))
    (member,) = await working(rig, score.name, 1)
    rig.secret_files["lake"] = {"token": b"new"}
    rig.kill(member)
    await until(rig, lambda: failures(rig, score.name) == 1, "it has failed")
    await working(rig, score.name, 1)
    (path,) = rig.folders.work.glob("*/secrets/input/token")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("key", ["../../report.json", "..", ".", "", "a/b", "a\nb", "ä"])
async def test_a_key_that_is_no_name_of_a_file_is_refused(rig: ProcessRig, key: str) -> None:
    rig.secret_files["lake"] = {"good": b"", key: b"bad"}
    score = crew(credentials=LAKE[:1], parallelism=1)
    await rig.driver.apply(Run(task=score))
    assert f"key {key!r} of Secret lake" in await upset(rig, score.name, Reason.INVALID)
    assert not list(rig.folders.work.iterdir())


async def test_the_last_lines_of_a_members_log_are_in_its_trouble(rig: ProcessRig) -> None:
    score = crew(lever="1:say=fail 1:exit=3")
    await rig.driver.apply(Run(task=score))
    assert await upset(rig, score.name, Reason.CRASHED, 1) == (
        "ended with exit status 3; 'modelyard logs score' shows its log, which ends with:\nabout to fail"
    )
    (path,) = rig.driver.log_files(JOB)
    assert path == rig.folders.logs / f"{score.name}-1.log"


async def test_logs_of_members_that_ended_stay_until_the_task_is_forgotten(rig: ProcessRig) -> None:
    score = crew(lever="say=work 0:done", parallelism=2)
    await rig.driver.apply(Run(task=score))
    await ended(rig, score.name)
    assert rig.folders.logs / f"{score.name}-0.log" in rig.driver.log_files(JOB)
    await rig.driver.apply(Forget(task=score.name, owner=JOB))
    assert rig.driver.log_files(JOB) == ()


async def test_a_failure_is_known_although_its_process_does_not_end(rig: ProcessRig) -> None:
    score = crew(lever="fatal=InputInvalid stubborn linger", parallelism=1)
    began = time.monotonic()
    await rig.driver.apply(Run(task=score))
    over = await ended(rig, score.name)
    assert over.report is not None
    assert over.report.failure is not None
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("lever", ["garbage", "fifo"])
async def test_a_report_that_cannot_be_read_ends_its_member(rig: ProcessRig, lever: str) -> None:
    score = crew(lever=f"0:{lever}")
    await rig.driver.apply(Run(task=score))
    assert "the report is not" in await upset(rig, score.name, Reason.CRASHED)
    assert failures(rig, score.name) >= 1
    assert stages(rig, score.name)[1] is MemberState.RUNNING


async def test_memory_above_the_limit_is_a_failure_that_says_so(rig: ProcessRig) -> None:
    score = crew(lever="0:hungry=120", resources=Resources(memory_limit_bytes=64 * 2**20))
    await rig.driver.apply(Run(task=score))
    said = await upset(rig, score.name, Reason.CRASHED)
    assert "of 64.0 MiB of memory and was ended; raise spec.resources.limits.memory" in said
    assert failures(rig, score.name) >= 1
    assert stages(rig, score.name)[1] is MemberState.RUNNING


async def test_usage_of_a_task_grows_and_outlives_its_members(rig: ProcessRig) -> None:
    score = crew(resources=Resources(memory_limit_bytes=2**30))  # looked at every second
    await rig.driver.apply(Run(task=score))
    await working(rig, score.name)
    await until(rig, lambda: there(rig, score.name).usage.memory_byte_seconds > 0, "memory is counted")
    before = there(rig, score.name).usage
    await rig.driver.apply(Adjust(task=score.name, owner=JOB, parallelism=0))
    await until(rig, lambda: crewed(rig, score.name) == (), "they have left")
    after = there(rig, score.name).usage
    assert after.cpu_seconds > 0
    assert after.memory_byte_seconds >= before.memory_byte_seconds


async def test_usage_of_a_task_that_runs_once_is_counted(rig: ProcessRig) -> None:
    await rig.driver.apply(Run(task=task(lever="say=something")))
    assert (await ended(rig, task().name)).usage != Usage()


async def test_members_that_report_all_the_time_do_not_make_their_owner_busy(rig: ProcessRig) -> None:
    score = crew(lever="chatty", parallelism=3)
    await rig.driver.apply(Run(task=score))
    await busy(rig, score.name, 3)
    began = there(rig, score.name)
    looks = 0
    async with hinted(rig) as keys:
        ends = rig.clock.monotonic() + 1.5
        await until(rig, lambda: rig.clock.monotonic() >= ends, "a while")
        looks = len(keys)
    assert 1 <= looks <= 4
    assert there(rig, score.name) != began


async def test_what_a_member_started_ends_with_it(rig: ProcessRig) -> None:
    score = crew(lever="progress far-child", variables=(notes(rig.base),), parallelism=1)
    await rig.driver.apply(Run(task=score))
    await busy(rig, score.name, 1)
    child = noted(rig.base, "far-child")
    assert alive(child)
    await rig.driver.apply(Adjust(task=score.name, owner=JOB, parallelism=0))
    await until(rig, lambda: crewed(rig, score.name) == (), "it has left")
    assert not alive(child)


async def test_the_driver_ends_although_members_have_much_grace(base: Path) -> None:
    async with running(base) as rig:
        await rig.driver.apply(Run(task=crew(lever="progress stubborn", grace_seconds=600.0)))
        await rig.driver.apply(Run(task=gang(lever="progress stubborn", grace_seconds=600.0)))
        await busy(rig, crew().name)
        await busy(rig, gang().name)
        await rig.driver.apply(Forget(task=gang().name, owner=JOB))
        began = time.monotonic()
    assert time.monotonic() - began < 20
    assert not marked(base)
    assert not os.listdir(rig.folders.work)

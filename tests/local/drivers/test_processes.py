import asyncio
import errno
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from drivers_testing import ProcessRig, alive, marked, noted, notes, running, wait_for
from modelyard.base.conditions import Reason
from modelyard.base.errors import RetryLater, UserError
from modelyard.control.drivers.processes.driver import ProcessDriver
from modelyard.control.drivers.processes.site import Programs
from modelyard.control.ir.actions import Resize, Run, Start, Stop
from modelyard.control.ir.observed import ReplicaState
from modelyard.control.ir.unit import Resources, Variable
from modelyard.testing import driver_rig, driver_suite
from modelyard.testing.driver_rig import IRIS, MACHINE, MODEL, SECRET, ready, refused, task, troubled, unit, until


class TestProcessDriver(driver_suite.DriverSuite):
    pass


async def test_a_ready_replica_listens_at_its_address(rig: ProcessRig) -> None:
    await rig.driver.apply(Start(unit=unit(), replicas=1))
    (replica,) = await ready(rig, unit().name)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(replica.address.removeprefix("unix:"))


async def test_a_name_that_is_too_long_for_the_kernel_still_gets_a_socket(rig: ProcessRig) -> None:
    name = f"{'i' * 60}-svc-00001.{'n' * 60}"
    await rig.driver.apply(Start(unit=unit(name), replicas=2))
    first, second = await ready(rig, name, 2)
    assert len({first.address, second.address}) == 2
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(second.address.removeprefix("unix:"))


async def test_a_process_sees_its_place_and_little_of_our_environment(
    rig: ProcessRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ours")
    variables = (notes(rig.base), Variable(name="LANG", value="tlh"), Variable(name="MODELYARD_CACHE", value="/"))
    await rig.driver.apply(Start(unit=unit(variables=variables), replicas=1))
    await ready(rig, unit().name)
    seen = json.loads((rig.base / "notes" / "environment.json").read_text())
    assert "AWS_SECRET_ACCESS_KEY" not in seen
    assert seen["LANG"] == "tlh"
    assert seen["MODELYARD_CACHE"] == str(rig.folders.cache)
    assert seen["MODELYARD_ROOT"] == str(rig.base)
    assert seen["MODELYARD_SCRATCH"] == seen["TMPDIR"]
    assert os.stat(seen["MODELYARD_SCRATCH"]).st_mode & 0o777 == 0o700


async def test_a_server_knows_its_gateways_secret_when_it_sees_it_and_not_before(rig: ProcessRig) -> None:
    rig.unit_secrets[unit().name] = "open sesame"
    await rig.driver.apply(Start(unit=unit(), replicas=1))
    (replica,) = await ready(rig, unit().name)
    process = psutil.Process(replica.pid)
    assert process.environ()["MODELYARD_GATEWAY_DIGEST"] == hashlib.sha256(b"open sesame").hexdigest()
    assert "MODELYARD_SECRETS" not in process.environ()
    assert process.environ()["MODELYARD_SHADOW"] == str(rig.folders.run / "shadow.sock")
    assert "sesame" not in " ".join((*process.cmdline(), *process.environ().values()))
    files = [each.read_text() for each in rig.folders.own(replica.name).rglob("*") if each.is_file()]
    assert files
    assert "sesame" not in "".join(files)


async def test_secrets_are_in_the_environment_alone(rig: ProcessRig) -> None:
    rig.secrets[SECRET] = "open sesame"
    variables = (notes(rig.base), Variable(name="TOKEN", secret=SECRET))
    await rig.driver.apply(Start(unit=unit(variables=variables), replicas=1))
    (replica,) = await ready(rig, unit().name)
    process = psutil.Process(replica.pid)
    assert process.environ()["TOKEN"] == "open sesame"
    assert "sesame" not in " ".join(process.cmdline())
    for folder in (rig.folders.work, rig.folders.run, rig.folders.logs):
        for path in folder.rglob("*"):
            assert not path.is_file() or b"sesame" not in path.read_bytes()
            assert path.stat().st_mode & 0o077 == 0
    assert "sesame" not in repr(rig.driver.observe())


async def test_the_last_lines_of_the_log_are_in_the_trouble(rig: ProcessRig) -> None:
    await rig.driver.apply(Start(unit=unit(lever="say=fail exit=3"), replicas=1))
    crashed = await troubled(rig, unit().name, Reason.CRASHED)
    assert driver_rig.message(crashed) == (
        "ended with exit status 3; 'modelyard logs iris' shows its log, which ends with:\nabout to fail"
    )
    (path,) = rig.driver.log_files(IRIS)
    assert path == rig.folders.logs / f"{unit().name}-0.log"
    assert path.read_text().startswith("about to fail\n")


async def test_a_log_is_bounded_whatever_is_written(rig: ProcessRig) -> None:
    await rig.driver.apply(Start(unit=unit(lever="flood=250000 exit=3"), replicas=1))
    crashed = await troubled(rig, unit().name, Reason.CRASHED)
    assert "249999" in driver_rig.message(crashed)
    older, current = rig.driver.log_files(IRIS)
    assert (older.name, current.name) == (f"{unit().name}-0.log.1", f"{unit().name}-0.log")
    assert older.stat().st_size == 8 * 2**20
    assert current.stat().st_size <= 8 * 2**20
    assert current.read_text().splitlines()[-1].strip() == "249999"


@pytest.mark.parametrize("lever", ["garbage", "fifo"])
async def test_what_is_not_a_report_is_told(rig: ProcessRig, lever: str) -> None:
    await rig.driver.apply(Start(unit=unit(lever=lever), replicas=1))
    replica = await troubled(rig, unit().name, Reason.CRASHED)
    assert "the report is not" in driver_rig.message(replica)


async def test_a_task_without_a_readable_report_says_so(rig: ProcessRig) -> None:
    await rig.driver.apply(Run(task=task(lever="silent say=nothing")))
    await until(rig, lambda: rig.driver.observe().tasks[0].finished_at is not None, "it has ended")
    (ended,) = rig.driver.observe(MODEL).tasks
    assert ended.message == (
        "it ended with exit status 0 without a report; 'modelyard logs iris' shows its log, which ends with:\n"
        "about to nothing"
    )


@pytest.mark.parametrize(
    ("number", "reason", "told"),
    [
        (errno.ENOSPC, Reason.DISK_FULL, "free some space on that disk"),
        (errno.EMFILE, Reason.INTERNAL_ERROR, "Too many open files"),
    ],
)
async def test_what_the_machine_refuses_is_told_and_tried_again(
    rig: ProcessRig, monkeypatch: pytest.MonkeyPatch, number: int, reason: Reason, told: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", refuse)
        await rig.driver.apply(Start(unit=unit(), replicas=1))
        replica = await troubled(rig, unit().name, reason)
    assert told in driver_rig.message(replica)
    assert (replica.state, replica.restarts) == (ReplicaState.PENDING, 0)
    await ready(rig, unit().name)


async def test_a_program_that_is_not_there_is_told(base: Path) -> None:
    rig = ProcessRig(base)
    rig.driver = ProcessDriver(
        folders=rig.folders, secrets=lambda *_: None, programs=Programs(serve=("/no/such/program",)), machine=MACHINE
    )
    async with rig.driver:
        await rig.driver.apply(Start(unit=unit(), replicas=1))
        replica = await troubled(rig, unit().name, Reason.CRASHED)
        assert "/no/such/program" in driver_rig.message(replica)


@pytest.mark.parametrize("child", ["child", "far-child"])
async def test_what_a_replica_started_ends_with_it(rig: ProcessRig, child: str) -> None:
    variables = (notes(rig.base),)
    await rig.driver.apply(Start(unit=unit(lever=child, variables=variables), replicas=1))
    (replica,) = await ready(rig, unit().name)
    first = noted(rig.base, child)
    assert alive(first)
    rig.kill(replica)
    await troubled(rig, unit().name, Reason.CRASHED)
    assert not alive(first)
    await ready(rig, unit().name)
    second = noted(rig.base, child)
    await rig.driver.apply(Stop(unit=unit().name, owner=IRIS))
    await until(rig, lambda: rig.driver.observe().units == (), "it has ended")
    assert not alive(second)


async def test_memory_above_the_limit_ends_a_replica_and_says_so(rig: ProcessRig) -> None:
    limited = unit(lever="hungry=120", resources=Resources(memory_limit_bytes=64 * 2**20))
    await rig.driver.apply(Start(unit=limited, replicas=1))
    replica = await troubled(rig, limited.name, Reason.CRASHED)
    said = driver_rig.message(replica)
    assert "of 64.0 MiB of memory and was ended; raise spec.resources.limits.memory" in said


async def test_usage_grows_and_outlives_replicas(rig: ProcessRig) -> None:
    large = Resources(memory_limit_bytes=2**30)  # looked at every second
    await rig.driver.apply(Start(unit=unit(resources=large), replicas=2))
    await ready(rig, unit().name, 2)
    await until(rig, lambda: rig.driver.observe().units[0].usage.memory_byte_seconds > 0, "memory is counted")
    before = rig.driver.observe().units[0].usage
    assert before.cpu_seconds > 0
    await rig.driver.apply(Resize(unit=unit().name, owner=IRIS, replicas=0))
    await until(rig, lambda: rig.driver.observe().units[0].members == (), "they have left")
    after = rig.driver.observe().units[0].usage
    assert after.cpu_seconds >= before.cpu_seconds
    assert after.memory_byte_seconds >= before.memory_byte_seconds


async def test_leaving_the_driver_ends_everything_and_then_it_refuses(base: Path) -> None:
    async with running(base) as rig:
        await rig.driver.apply(Start(unit=unit(lever="drain=0.3"), replicas=2))
        await rig.driver.apply(Run(task=task(lever="hang")))
        await ready(rig, unit().name, 2)
    assert not marked(base)
    assert not list(rig.folders.run.rglob("*.sock"))
    assert rig.driver.observe().units == ()
    await refused(rig, Start(unit=unit(), replicas=1), RetryLater)
    await rig.driver.close()


async def test_an_error_of_the_body_stays_itself(base: Path) -> None:
    async def body() -> None:
        async with running(base) as rig:
            await rig.driver.apply(Start(unit=unit(), replicas=1))
            await ready(rig, unit().name)
            raise UserError("the body failed")

    with pytest.raises(UserError, match="the body failed"):
        await body()
    assert not marked(base)


async def test_who_does_not_want_to_wait_for_the_drain_cancels(base: Path) -> None:
    entered, over = asyncio.Event(), asyncio.Event()

    async def server() -> None:
        async with running(base) as rig:
            variables = (notes(base),)
            stubborn = unit(lever="stubborn far-child", variables=variables, drain_seconds=60.0)
            await rig.driver.apply(Start(unit=stubborn, replicas=1))
            await ready(rig, unit().name)
            entered.set()
            await over.wait()

    running_server = asyncio.create_task(server())
    await entered.wait()
    running_server.cancel()
    await asyncio.sleep(0.2)
    assert not running_server.done()
    began = time.monotonic()
    running_server.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running_server
    assert time.monotonic() - began < 5
    assert not marked(base)
    assert not alive(noted(base, "far-child"))


async def test_a_run_folder_that_is_too_long_is_refused(base: Path) -> None:
    with pytest.raises(UserError, match="too long for Unix sockets"):
        async with running(base / ("x" * 60)):
            pass


SERVER = """
import asyncio, sys
from pathlib import Path
import drivers_testing as t
from modelyard.control.ir.actions import Run, Start
from modelyard.testing import driver_rig

async def main() -> None:
    base = Path(sys.argv[1])
    async with t.running(base) as rig:
        variables = (t.Variable(name="NOTES", value=str(base / "notes")),)
        await rig.driver.apply(Start(unit=driver_rig.unit(lever=sys.argv[2], variables=variables), replicas=2))
        await rig.driver.apply(Run(task=driver_rig.crew(lever="progress " + sys.argv[2], variables=variables)))
        await driver_rig.ready(rig, driver_rig.unit().name, 2)
        await driver_rig.busy(rig, driver_rig.crew().name)
        (base / "up").touch()
        await asyncio.Event().wait()

asyncio.run(main())
"""


def killed_server(base: Path, lever: str) -> None:
    """A driver in a process of its own, killed with -9 once its replicas are ready."""
    (base / "notes").mkdir(exist_ok=True)
    path = os.pathsep.join(each for each in sys.path if each)
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(base), lever], env={**os.environ, "PYTHONPATH": path}
    ) as server:
        try:
            wait_for(lambda: (base / "up").exists() or server.poll() is not None, "the server is up")
            assert server.poll() is None
        finally:
            server.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels have no death signal")
def test_replicas_do_not_outlive_a_server_killed_with_9(base: Path) -> None:
    killed_server(base, "")
    wait_for(lambda: not marked(base), "the replicas are gone")


@pytest.mark.parametrize("child", ["child", "far-child"])
async def test_leftovers_of_a_killed_server_are_ended_before_anything_starts(base: Path, child: str) -> None:
    killed_server(base, child)
    left = noted(base, child)
    assert alive(left)
    bystander = subprocess.Popen(  # noqa: ASYNC220  nobody waits for it in the loop
        [sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True
    )
    try:
        (base / "run" / "processes" / str(bystander.pid)).write_text("12.5")  # a number that was used again
        async with running(base) as rig:
            assert not alive(left)
            assert not marked(base)
            assert alive(bystander.pid)
            await rig.driver.apply(Start(unit=unit(), replicas=1))
            await ready(rig, unit().name)
    finally:
        bystander.kill()
        bystander.wait()

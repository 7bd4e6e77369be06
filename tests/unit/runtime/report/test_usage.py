"""What a container has used, from the files of its control group."""

import time
from pathlib import Path

from modelyard.runtime.report.usage import Meter
from modelyard.wire.report import UsageReport


class Now:
    """A clock that stands."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def second(group: Path, microseconds: int, used: int, idle: int = 0) -> None:
    (group / "cpu.stat").write_text(f"usage_usec {microseconds}\nuser_usec 1\nsystem_usec 2\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon 1\ninactive_file {idle}\n")


def test_the_second_version_of_control_groups_is_read(tmp_path: Path) -> None:
    clock = Now()
    second(tmp_path, 1_500_000, 1000, 400)
    meter = Meter(tmp_path, clock)
    assert meter.read() == UsageReport(cpu_seconds=1.5)
    clock.seconds += 10
    second(tmp_path, 2_500_000, 1400)
    assert meter.read() == UsageReport(cpu_seconds=2.5, memory_byte_seconds=10_000.0)
    clock.seconds += 1
    assert meter.read() == UsageReport(cpu_seconds=2.5, memory_byte_seconds=11_400.0)


def test_the_first_version_of_control_groups_is_read(tmp_path: Path) -> None:
    for name, text in (
        ("cpuacct/cpuacct.usage", "2500000000\n"),
        ("memory/memory.usage_in_bytes", "1000\n"),
        ("memory/memory.stat", "inactive_file 1\ntotal_inactive_file 200\n"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    clock = Now()
    meter = Meter(tmp_path, clock)
    clock.seconds += 2
    assert meter.read() == UsageReport(cpu_seconds=2.5, memory_byte_seconds=1600.0)


def test_without_a_control_group_the_process_counts(tmp_path: Path) -> None:
    meter = Meter(tmp_path)
    before = meter.read()
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    after = meter.read()
    assert after.cpu_seconds >= before.cpu_seconds + 0.04
    assert after.memory_byte_seconds > before.memory_byte_seconds


def test_what_cannot_be_read_counts_for_nothing(tmp_path: Path) -> None:
    second(tmp_path, 1, 1000, 5000)
    (tmp_path / "cpu.stat").write_text("usage_usec\nusage_usec many\n")
    clock = Now()
    meter = Meter(tmp_path, clock)
    clock.seconds += 1
    found = meter.read()
    assert found.cpu_seconds > 0, "of the process"
    assert found.memory_byte_seconds == 0

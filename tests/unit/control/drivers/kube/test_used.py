"""What the pods of a workload have used together."""

from modelyard.control.drivers.kube.used import Used
from modelyard.control.ir.observed import Usage


def cpu(seconds: float) -> Usage:
    return Usage(cpu_seconds=seconds, memory_byte_seconds=seconds * 10)


def test_pods_are_added_up_and_those_that_are_gone_stay_counted() -> None:
    used = Used()
    used.tell("w", "a", 0, cpu(1))
    used.tell("w", "b", 0, cpu(2))
    used.tell("w", "a", 0, cpu(4))
    used.tell("other", "c", 0, cpu(100))
    used.add_up({"w", "other"}, {"a", "b", "c"})
    assert used.sums == {"w": cpu(6), "other": cpu(100)}
    used.add_up({"w"}, {"b"})
    used.tell("w", "d", 0, cpu(8))
    used.add_up({"w"}, {"b", "d"})
    assert used.sums == {"w": cpu(14)}


def test_a_container_that_is_started_again_counts_from_nought() -> None:
    used = Used()
    for restarts, seconds in ((0, 5), (1, 1), (1, 2), (0, 50), (3, 4)):
        used.tell("w", "a", restarts, cpu(seconds))
    used.add_up({"w"}, {"a"})
    assert used.sums == {"w": cpu(5 + 2 + 4)}


def test_of_a_workload_that_is_gone_nothing_is_kept() -> None:
    used = Used()
    used.tell("w", "a", 0, cpu(1))
    used.add_up({"w"}, ())
    used.add_up((), ())
    used.tell("w", "b", 0, cpu(2))
    used.add_up({"w"}, {"b"})
    assert used.sums == {"w": cpu(2)}

from modelyard.control.drivers.machine import Ledger, Machine, this_machine
from modelyard.control.ir.unit import Resources

GIB = 2**30


def ledger(freed: list[str] | None = None) -> Ledger:
    told = [] if freed is None else freed
    return Ledger(Machine(memory_bytes=8 * GIB, cpu_millis=2000), freed=lambda: told.append("freed"))


def test_promises_never_exceed_the_machine() -> None:
    book = ledger()
    large = Resources(memory_request_bytes=5 * GIB)
    assert book.admit("a", large) == ""
    assert book.admit("b", large).startswith("asks for 5.0 GiB of memory (3.0 GiB of 8.0 GiB are free); lower")
    book.release("a")
    assert book.admit("b", large) == ""


def test_being_admitted_again_takes_nothing_more() -> None:
    book = ledger()
    assert [book.admit("a", Resources(memory_request_bytes=5 * GIB)) for _ in range(3)] == ["", "", ""]


def test_a_memory_limit_asks_for_itself_and_a_cpu_limit_for_nothing() -> None:
    book = ledger()
    assert book.admit("a", Resources(memory_limit_bytes=9 * GIB)) != ""
    assert book.admit("b", Resources(memory_limit_bytes=9 * GIB, memory_request_bytes=GIB)) == ""
    assert book.admit("c", Resources(cpu_limit_millis=64_000)) == ""


def test_everything_that_lacks_is_named() -> None:
    said = ledger().admit("a", Resources(memory_request_bytes=9 * GIB, cpu_request_millis=2500, gpus=1))
    assert "9.0 GiB of memory (8.0 GiB of 8.0 GiB are free)" in said
    assert "2.5 CPU (2 CPU of 2 CPU are free)" in said
    assert "GPUs: 1 (0 of 0 are free)" in said


def test_only_room_that_was_taken_is_freed() -> None:
    freed: list[str] = []
    book = ledger(freed)
    book.release("a")
    assert freed == []
    book.admit("a", Resources())
    book.release("a")
    assert freed == ["freed"]


def test_this_machine_has_something() -> None:
    assert this_machine().memory_bytes > 0
    assert this_machine().cpu_millis >= 1000

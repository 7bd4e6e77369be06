from collections.abc import Callable

from modelyard.control.drivers.ledger import SERVICE_PRIORITY, Ask, Ledger
from modelyard.control.drivers.machine import Machine

GIB = 2**30


def ledger(freed: list[str] | None = None) -> Ledger:
    told = [] if freed is None else freed
    return Ledger(Machine(memory_bytes=8 * GIB, cpu_millis=2000), freed=lambda: told.append("freed"))


def ask(name: str, gib: int, priority: int = 0, evict: Callable[[str], None] | None = None) -> Ask:
    return Ask(name=name, share=Machine(memory_bytes=gib * GIB), priority=priority, evict=evict)


def test_promises_never_exceed_the_machine() -> None:
    book = ledger()
    assert book.admit(ask("a", 5)) == ""
    assert book.admit(ask("b", 5)).startswith("asks for 5.0 GiB of memory (3.0 GiB of 8.0 GiB are free); lower")
    book.release("a")
    assert book.admit(ask("b", 5)) == ""


def test_being_admitted_again_takes_nothing_more() -> None:
    book = ledger()
    assert [book.admit(ask("a", 5)) for _ in range(3)] == ["", "", ""]


def test_everything_that_lacks_is_named() -> None:
    share = Machine(memory_bytes=9 * GIB, cpu_millis=2500, gpus=1)
    said = ledger().admit(Ask(name="a", share=share))
    assert "9.0 GiB of memory (8.0 GiB of 8.0 GiB are free)" in said
    assert "2.5 CPU (2 CPU of 2 CPU are free)" in said
    assert "GPUs: 1 (0 of 0 are free)" in said


def test_only_room_that_was_taken_is_freed() -> None:
    freed: list[str] = []
    book = ledger(freed)
    book.release("a")
    assert freed == []
    book.admit(ask("a", 0))
    book.release("a")
    assert freed == ["freed"]


def test_a_lower_priority_makes_room_once_and_does_not_get_it_back_first() -> None:
    evicted: list[str] = []
    book = ledger()
    assert book.admit(ask("job", 6, evict=evicted.append)) == ""
    for _ in range(2):
        assert "others are ending and make room for it" in book.admit(ask("service", 5, SERVICE_PRIORITY))
    assert evicted == ["service"]
    book.release("job")
    assert "kept for work of a higher priority" in book.admit(ask("job", 6))
    assert book.admit(ask("small job", 3)) == ""
    assert book.admit(ask("service", 5, SERVICE_PRIORITY)) == ""


def test_room_is_no_longer_kept_for_who_went_away() -> None:
    freed: list[str] = []
    book = ledger(freed)
    book.admit(ask("old service", 6, SERVICE_PRIORITY))
    book.admit(ask("service", 5, SERVICE_PRIORITY))
    book.admit(ask("job", 5))
    book.release("old service")
    assert book.admit(ask("job", 5)) != ""
    freed.clear()
    book.release("service")
    assert freed == ["freed"]
    assert book.admit(ask("job", 5)) == ""


def test_nobody_leaves_for_the_same_priority_or_in_vain() -> None:
    evicted: list[str] = []
    book = ledger()
    book.admit(ask("service", 3, SERVICE_PRIORITY))
    book.admit(ask("job", 5, evict=evicted.append))
    assert "removing or scaling down" in book.admit(ask("other job", 4, evict=evicted.append))
    assert "removing or scaling down" in book.admit(ask("large service", 6, SERVICE_PRIORITY))
    assert evicted == []


def test_nobody_leaves_while_enough_others_are_ending_already() -> None:
    evicted: list[str] = []
    book = ledger()
    book.admit(ask("ending", 4))
    book.admit(ask("job", 4, evict=evicted.append))
    book.leaving("ending")
    assert "others are ending" in book.admit(ask("service", 4, SERVICE_PRIORITY))
    assert evicted == []
    book.release("ending")
    assert book.admit(ask("service", 4, SERVICE_PRIORITY)) == ""


def test_who_does_not_wait_keeps_nothing_free_and_evicts_nobody() -> None:
    evicted: list[str] = []
    book = ledger()
    book.admit(ask("job", 6, evict=evicted.append))
    once = Ask(name="once", share=Machine(memory_bytes=5 * GIB), priority=1, waits=False)
    assert "removing or scaling down" in book.admit(once)
    book.release("job")
    assert evicted == []
    assert book.admit(ask("job", 6)) == ""

from modelyard.control.drivers.machine import Machine, share, this_machine, together
from modelyard.control.ir.unit import Resources

GIB = 2**30


def test_a_memory_limit_asks_for_itself_and_a_cpu_limit_for_nothing() -> None:
    assert share(Resources(memory_limit_bytes=9 * GIB)) == Machine(memory_bytes=9 * GIB)
    assert share(Resources(memory_limit_bytes=9 * GIB, memory_request_bytes=GIB)) == Machine(memory_bytes=GIB)
    assert share(Resources(cpu_limit_millis=64_000)) == Machine()


def test_so_many_processes_ask_for_so_many_times_as_much() -> None:
    three = share(Resources(memory_request_bytes=GIB, cpu_request_millis=500, gpus=1), 3)
    assert three == Machine(memory_bytes=3 * GIB, cpu_millis=1500, gpus=3)
    assert together([Machine(memory_bytes=GIB, cpu_millis=500, gpus=1)] * 3) == three


def test_what_fits_fits_in_everything() -> None:
    machine = Machine(memory_bytes=GIB, cpu_millis=1000)
    assert machine.holds(Machine(memory_bytes=GIB, cpu_millis=1000))
    assert not machine.holds(Machine(cpu_millis=1001))
    assert not machine.holds(Machine(gpus=1))
    assert machine.without(Machine(memory_bytes=GIB)) == Machine(cpu_millis=1000)


def test_this_machine_has_something() -> None:
    assert this_machine().memory_bytes > 0
    assert this_machine().cpu_millis >= 1000

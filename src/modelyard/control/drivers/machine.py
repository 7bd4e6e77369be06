"""Admission: what was promised to replicas never exceeds what the machine has."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from modelyard.base import quantities
from modelyard.control.ir.unit import Resources


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What may be promised: bytes of memory, thousandths of a core, GPUs."""

    memory_bytes: int
    cpu_millis: int
    gpus: int = 0


def this_machine() -> Machine:
    """All memory and cores of this machine. GPUs are not handed out here."""
    return Machine(memory_bytes=psutil.virtual_memory().total, cpu_millis=1000 * (os.cpu_count() or 1))


class Ledger:
    """Who was promised what. A replica keeps its share while it waits to be started again.

    freed: called when there is more room than before.
    """

    def __init__(self, machine: Machine, freed: Callable[[], None]) -> None:
        self._freed = freed
        self._machine = machine
        self._shares: dict[str, Machine] = {}

    def admit(self, name: str, resources: Resources) -> str:
        """Promise a replica its share; "" if done, else a sentence that names what is asked and what is free.

        As in Kubernetes, a memory limit without a request asks for the limit. A CPU limit does not: it sets threads.
        """
        share = Machine(
            memory_bytes=resources.memory_request_bytes or resources.memory_limit_bytes,
            cpu_millis=resources.cpu_request_millis,
            gpus=resources.gpus,
        )
        self._shares.pop(name, None)
        lacking = self._lacking(share)
        if lacking:
            return (
                f"asks for {' and '.join(lacking)}; lower spec.resources, or make room by removing or scaling down "
                "another service"
            )
        self._shares[name] = share
        return ""

    def release(self, name: str) -> None:
        """The replica is gone."""
        if self._shares.pop(name, None) is not None:
            self._freed()

    def _lacking(self, share: Machine) -> list[str]:
        total, taken = self._machine, list(self._shares.values())
        memory = total.memory_bytes - sum(each.memory_bytes for each in taken)
        cpu = total.cpu_millis - sum(each.cpu_millis for each in taken)
        gpus = total.gpus - sum(each.gpus for each in taken)
        lacking = []
        if share.memory_bytes > memory:
            asked, free, of = (quantities.bytes_text(n) for n in (share.memory_bytes, memory, total.memory_bytes))
            lacking.append(f"{asked} of memory ({free} of {of} are free)")
        if share.cpu_millis > cpu:
            lacking.append(f"{_cores(share.cpu_millis)} ({_cores(cpu)} of {_cores(total.cpu_millis)} are free)")
        if share.gpus > gpus:
            lacking.append(f"GPUs: {share.gpus} ({gpus} of {total.gpus} are free)")
        return lacking


def _cores(millis: int) -> str:
    return f"{millis / 1000:g} CPU"

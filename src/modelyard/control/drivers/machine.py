"""What a machine has, and what replicas and members of tasks ask for."""

import os
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from modelyard.control.ir.unit import Resources


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What may be promised, or a share of it: bytes of memory, thousandths of a core, GPUs."""

    memory_bytes: int = 0
    cpu_millis: int = 0
    gpus: int = 0

    def holds(self, share: "Machine") -> bool:
        """Whether the share fits."""
        return (
            share.memory_bytes <= self.memory_bytes and share.cpu_millis <= self.cpu_millis and share.gpus <= self.gpus
        )

    def without(self, share: "Machine") -> "Machine":
        """What is left beside a share."""
        return Machine(
            memory_bytes=self.memory_bytes - share.memory_bytes,
            cpu_millis=self.cpu_millis - share.cpu_millis,
            gpus=self.gpus - share.gpus,
        )


def this_machine() -> Machine:
    """All memory and cores of this machine. GPUs are not handed out here."""
    return Machine(memory_bytes=psutil.virtual_memory().total, cpu_millis=1000 * (os.cpu_count() or 1))


def together(shares: Iterable[Machine]) -> Machine:
    """The sum."""
    total = Machine()
    for share in shares:
        total = Machine(
            memory_bytes=total.memory_bytes + share.memory_bytes,
            cpu_millis=total.cpu_millis + share.cpu_millis,
            gpus=total.gpus + share.gpus,
        )
    return total


def share(resources: Resources, count: int = 1) -> Machine:
    """What so many processes ask for.

    As in Kubernetes, a memory limit without a request asks for the limit. A CPU limit does not: it sets threads.
    """
    return Machine(
        memory_bytes=count * (resources.memory_request_bytes or resources.memory_limit_bytes),
        cpu_millis=count * resources.cpu_request_millis,
        gpus=count * resources.gpus,
    )

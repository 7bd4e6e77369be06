import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from modelyard.control.drivers.processes.process import ending
from modelyard.control.drivers.processes.site import LONGEST_RUN_FOLDER, Folders, Programs
from modelyard.testing.driver_rig import clean, crew, gang, stream, task, unit


def folders(run: str = "/run/modelyard-0/12345678") -> Folders:
    return Folders(run=Path(run), work=Path("/w"), logs=Path("/l"), cache=Path("/c"), root=Path("/p"))


def test_sockets_are_readable_names_where_the_kernel_allows() -> None:
    assert folders().socket("iris-svc-00001.default-0") == Path(
        "/run/modelyard-0/12345678/r/iris-svc-00001.default-0.sock"
    )


@given(st.text("abc-.", min_size=1, max_size=200))
def test_every_socket_fits_the_kernel(name: str) -> None:
    longest = "/" + "r" * (LONGEST_RUN_FOLDER - 1)
    assert len(os.fsencode(folders(longest).socket(name))) <= 107


def test_endings_are_told_in_words() -> None:
    assert ending(3) == "ended with exit status 3"
    assert ending(-11) == "was ended by SIGSEGV"
    assert ending(-9).startswith("was ended by SIGKILL: by somebody, or by the kernel")
    assert ending(-60) == "was ended by signal 60"


def test_each_work_has_its_program() -> None:
    programs = Programs(serve=("serve",), prepare=("prepare",), job=("job",), stream=("stream",))
    works = (unit().work, task().work, crew().work, gang().work, stream().work, clean().work)
    assert [*map(programs.of, works)] == [("serve",), ("prepare",), ("job",), ("job",), ("stream",), ("stream",)]
    assert Programs().stream[1:] == ("-m", "modelyard.runtime.streams")

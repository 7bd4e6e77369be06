"""A program that becomes another one, which dies with its parent.

`python -I -S launch.py PARENT_PID [--fd FROM:TO]... [--limit NAME=VALUE]... -- ARGV...` asks the kernel for SIGKILL
when the parent ends, makes sure that it has not ended already, starts a session of its own and executes ARGV. It costs
10 to 20 ms. `preexec_fn` could do the same without it, but runs Python between fork and exec, which can deadlock.

Only the standard library: the file runs by its path, without the package. The kernel sends the signal when the *thread*
that forked ends, so callers start children from their main thread. macOS has no such signal: there a child outlives a
parent that was killed, until something else ends it.

Source: prctl(2), PR_SET_PDEATHSIG.
"""

import ctypes
import fcntl
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence

_PR_SET_PDEATHSIG = 1
_ABOVE_TARGETS = 64
_CANNOT_RUN = 126
_NOT_FOUND = 127
_TERMINATED = 128 + signal.SIGTERM


def command(
    argv: Sequence[str], *, descriptors: Mapping[int, int] | None = None, limits: Mapping[str, int] | None = None
) -> list[str]:
    """The command line that runs argv bound to the calling process.

    descriptors: the child's number -> an open descriptor of the caller, which must also be in `pass_fds`.
    limits: `core`, `nofile` ... (the names of `resource.RLIMIT_*`) -> soft and hard limit.
    """
    line = [sys.executable, "-I", "-S", os.path.abspath(__file__), str(os.getpid())]
    for target, source in (descriptors or {}).items():
        line += ["--fd", f"{source}:{target}"]
    for name, value in (limits or {}).items():
        line += ["--limit", f"{name}={value}"]
    return [*line, "--", *argv]


def main(arguments: list[str]) -> int:
    """Become the program; returns an exit status only where that is impossible."""
    split = arguments.index("--")
    options, argv = arguments[1:split], arguments[split + 1 :]
    _die_with(int(arguments[0]))
    if os.getsid(0) != os.getpid():
        os.setsid()
    moves = []
    for name, value in zip(options[::2], options[1::2], strict=True):
        if name == "--fd":
            source, _, target = value.partition(":")
            moves.append((int(source), int(target)))
        else:
            limit, _, number = value.partition("=")
            resource.setrlimit(getattr(resource, f"RLIMIT_{limit.upper()}"), (int(number), int(number)))
    _move(moves)
    # Python ignores these two at its start, and what is ignored stays so across exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)  # noqa: S606  no shell is wanted
    except OSError as error:
        sys.stderr.write(f"cannot run {argv[0]}: {error.strerror}\n")
        return _NOT_FOUND if isinstance(error, FileNotFoundError) else _CANNOT_RUN


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            sys.exit("cannot bind to the parent process: prctl failed")
    if os.getppid() != parent:
        sys.exit(_TERMINATED)


def _move(moves: list[tuple[int, int]]) -> None:
    """Give descriptors their numbers; by way of high ones, since sources and targets may overlap."""
    parked = []
    for source, target in moves:
        parked.append((fcntl.fcntl(source, fcntl.F_DUPFD, _ABOVE_TARGETS), target))
        os.close(source)
    for source, target in parked:
        os.dup2(source, target, inheritable=True)
        os.close(source)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

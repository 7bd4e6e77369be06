"""The data folder of a local server: one server at a time, its own kind of content, private to its user."""

import fcntl
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from modelyard.base.errors import UserError

LAYOUT = 1
"""Raised when a release cannot read what an older one wrote; a newer folder is refused."""
NAME = ".modelyard"
_EPHEMERAL = "ephemeral"


@dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """root: the project, to which relative URIs belong. data: what survives. run: sockets, in a short private path."""

    root: Path
    data: Path
    run: Path

    @property
    def kubeconfig(self) -> Path:
        return self.data / "kubeconfig"

    @property
    def own(self) -> Path:
        """The server's own things: objects, certificates, token, log."""
        return self.data / "server"

    @property
    def logs(self) -> Path:
        """One file for each replica and task."""
        return self.data / "logs"

    @property
    def cache(self) -> Path:
        return self.data / "cache"

    def announce(self, gateway: str, broker: Path) -> None:
        """Tell commands where the server is, what relative paths are relative to, and where the broker is announced."""
        body = {"root": str(self.root), "gateway": gateway, "broker": str(broker), "pid": os.getpid()}
        write_whole(self.data / "server.json", json.dumps(body, indent=1) + "\n")

    def withdraw(self) -> None:
        """The server ends."""
        with suppress(OSError):
            (self.data / "server.json").unlink()


@contextmanager
def opened(root: Path, data: Path, *, ephemeral: bool = False) -> Iterator[Folder]:
    """Create or take over the data folder and hold its lock. Raises UserError when another server has it."""
    root = root.resolve()
    if not root.is_dir():
        raise UserError(f"{root} is not a folder: give the folder of your project, as in 'modelyard up .'")
    data = data.resolve()
    try:
        with _held(data, ephemeral=ephemeral):
            folder = Folder(root=root, data=data, run=_run_folder(data))
            for each in (folder.own, folder.logs, folder.cache):
                each.mkdir(exist_ok=True, mode=0o700)
            try:
                yield folder
            finally:
                folder.withdraw()
                shutil.rmtree(folder.run, ignore_errors=True)
                if ephemeral:
                    shutil.rmtree(data, ignore_errors=True)
    except PermissionError as error:
        raise UserError(f"{error.filename} cannot be written: {error.strerror}; use --data-dir DIR") from error


@contextmanager
def _held(data: Path, *, ephemeral: bool) -> Iterator[None]:
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{data} is not a folder; use --data-dir DIR") from error
    except PermissionError:
        raise
    except OSError as error:  # read-only, full, or a place like /proc
        raise UserError(f"{data} cannot be made: {error.strerror}; use --data-dir DIR") from error
    data.chmod(0o700)
    lock = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            raise UserError(
                f"{data} is in use by another 'modelyard up' (process {holder}): stop it, or give this one "
                "a folder of its own with --data-dir DIR and another --listen"
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        _check(data, ephemeral=ephemeral)
        yield
    finally:
        os.close(lock)


def _check(data: Path, *, ephemeral: bool) -> None:
    """Only with the lock held: what the folder holds belongs to nobody else now."""
    marker = data / _EPHEMERAL
    layout = data / "layout"
    if ephemeral:
        if layout.exists() and not marker.exists():
            raise UserError(f"{data} holds the state of a server, which --ephemeral would remove; use --data-dir DIR")
        _empty(data)
        marker.touch()
    elif marker.exists():
        _empty(data)  # an ephemeral server was killed here
    if layout.exists():
        text = layout.read_text().strip()
        if text != str(LAYOUT):
            raise UserError(
                f"{data} has layout {text or 'unknown'}, this release reads {LAYOUT}: use the release that wrote it, "
                "or another --data-dir"
            )
    elif any(each.name not in ("lock", _EPHEMERAL) and not each.name.startswith(".layout.") for each in data.iterdir()):
        raise UserError(f"{data} holds files that Modelyard did not write; give an empty folder with --data-dir")
    write_whole(layout, f"{LAYOUT}\n")
    write_whole(data / ".gitignore", "*\n")


def _empty(data: Path) -> None:
    for each in data.iterdir():
        if each.name == "lock":
            continue
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()


def _run_folder(data: Path) -> Path:
    """A short path of our own for sockets, whose paths may have 107 bytes. The same for one data folder, always."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    if len(str(base)) > 24 or not base.is_dir():
        base = Path("/tmp")  # noqa: S108  the folder made below is checked to be ours alone
    mine = base / f"modelyard-{os.getuid()}"
    for each in (mine, mine / sha256(str(data).encode()).hexdigest()[:8]):
        with suppress(FileExistsError):
            each.mkdir(mode=0o700)
        found = each.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise UserError(f"{each} must be a folder of yours with mode 0700: remove it, and start again")
    return each


def write_whole(path: Path, text: str) -> None:
    """Write whole or not at all, for this user alone."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(text)
    draft.replace(path)

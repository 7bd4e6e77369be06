"""Which server a command or program talks to: the project's own, or a context that was named. Never a guess."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from modelyard.base.errors import UserError
from modelyard.control.kube import auth

FOLDER = ".modelyard"


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalServer:
    """What a local server says about itself in `server.json`.

    data: its data folder. root: the folder that relative URIs belong to. gateway: `http://host:port` of the models.
    """

    data: Path
    root: Path
    gateway: str
    pid: int

    @property
    def logs(self) -> Path:
        """One file for each replica and task."""
        return self.data / "logs"


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where objects live. description: for people, printed before anything is changed."""

    config: auth.ClientConfig
    description: str
    kubeconfig: Path
    local: LocalServer | None = None


def find(context: str | None = None, start: Path | None = None) -> Target:
    """The server of the project around `start` (default: the current folder), or that of a named context.

    kubectl's current context is never used. Raises UserError that names what to do.
    """
    return _named(context) if context else _project(start or Path.cwd())


def data_folder(start: Path | None = None) -> Path:
    """The nearest `.modelyard` upwards; its server may be stopped. Raises UserError."""
    begin = (start or Path.cwd()).resolve()
    for folder in (begin, *begin.parents):
        data = folder / FOLDER
        if (data / "kubeconfig").is_file():
            return data
    raise UserError(
        f"no Modelyard server belongs to {begin}: start one with 'modelyard up' in the project folder, "
        "or name another server with --context NAME"
    )


def gateway(start: Path | None = None) -> str:
    """`http://host:port` at which the models of the project around `start` answer. Raises UserError."""
    data = data_folder(start)
    return _running(data).gateway


def _project(start: Path) -> Target:
    return of_data_folder(data_folder(start))


def of_data_folder(data: Path) -> Target:
    """The local server that keeps its state there. Raises UserError when it does not run."""
    local = _running(data)
    config = auth.load(data / "kubeconfig")
    return Target(
        config=config,
        description=f"{config.server} (project {local.root})",
        kubeconfig=data / "kubeconfig",
        local=local,
    )


def _named(context: str) -> Target:
    paths = _kubeconfigs()
    merged = auth.merged(paths)
    path = merged.path_of(context)
    if path is None:
        names = ", ".join(str(path) for path in paths) or "$KUBECONFIG or ~/.kube/config"
        known = f" (there are: {', '.join(merged.entries['contexts'])})" if merged.entries["contexts"] else ""
        raise UserError(f"--context: there is no context {context!r} in {names}{known}")
    config = merged.config(context)
    local = _read(path.parent) if (path.parent / "server.json").is_file() else None
    return Target(config=config, description=f"{config.server} (context {context})", kubeconfig=path, local=local)


def _kubeconfigs() -> list[Path]:
    named = [Path(each) for each in os.environ.get("KUBECONFIG", "").split(os.pathsep) if each]
    return [path for path in named or [Path.home() / ".kube" / "config"] if path.is_file()]


def _running(data: Path) -> LocalServer:
    """Refuses a stopped server at once: connecting to its old port would only end in a time-out."""
    local = _read(data) if (data / "server.json").is_file() else None
    if local is None or not _alive(local.pid):
        project = data.parent
        raise UserError(
            f"the server of {project} is not running: start it with 'modelyard up {project}' in another terminal"
        )
    return local


def _read(data: Path) -> LocalServer:
    path = data / "server.json"
    try:
        body = json.loads(path.read_text())
        return LocalServer(data=data, root=Path(body["root"]), gateway=str(body["gateway"]), pid=int(body["pid"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}): stop the server, remove the file and start again") from error


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

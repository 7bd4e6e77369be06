"""Place: where a process of the runtime half finds its things, from the environment that its driver sets.

What it has to do there is in its WorkSpec (`wire.work`).
"""

from collections.abc import Mapping

import msgspec

from modelyard.base.errors import UserError

ENV_WORK = "MODELYARD_WORK"
ENV_REPORT = "MODELYARD_REPORT"
ENV_SOCKET = "MODELYARD_SOCKET"
ENV_CACHE = "MODELYARD_CACHE"
ENV_ROOT = "MODELYARD_ROOT"
ENV_SCRATCH = "MODELYARD_SCRATCH"
ENV_SECRETS = "MODELYARD_SECRETS"
ENV_INDEX = "MODELYARD_INDEX"
ENV_ATTEMPT = "MODELYARD_ATTEMPT"
ENV_MASTER = "MODELYARD_MASTER"
ENV_BROKER = "MODELYARD_BROKER"
ENV_SHADOW = "MODELYARD_SHADOW"
ENV_LISTEN = "MODELYARD_LISTEN"
ENV_GATEWAY_DIGEST = "MODELYARD_GATEWAY_DIGEST"
ENV_TERMINATION = "MODELYARD_TERMINATION"
ENV_REPORT_LISTEN = "MODELYARD_REPORT_LISTEN"
ENV_FETCHED = "MODELYARD_FETCHED"
ENV_PROGRAM = "MODELYARD_PROGRAM"
ENV_ACCOUNT = "MODELYARD_ACCOUNT"
ENV_PIPES = "MODELYARD_PIPES"
ENV_MODEL = "MODEL_DIR"
"""Where a worker finds its artifact; HELLO says the same."""

PROGRAM_OUTPUT, PROGRAM_PROGRESS = "output", "progress.json"
"""In the folder `Place.program`. For a RunWork whose program runs in a container of the user's own image:

1. `runtime.fetch` runs first, with ENV_PROGRAM, and makes `<folder>/output`, empty, for everybody to write.
2. The user's container has the same folder mounted, and finds OUTPUT_DIR=`<folder>/output`,
   PROGRESS_FILE=`<folder>/progress.json`, RANK, WORLD_SIZE and the other variables of `runtime.jobs.program`, of which
   RESUME is missing: whether CHECKPOINT_URI holds anything is for the program to look.
3. Beside it `runtime.progress` tells at ENV_REPORT_LISTEN what `progress.json` says, and later what the next one does.
4. When it has ended with exit status 0, `runtime.jobs` runs, with ENV_PROGRAM: it starts nothing, commits what lies in
   `output` and reports what `progress.json` says.
"""

PIPE_REQUESTS, PIPE_ANSWERS, PIPE_MODEL = "requests", "answers", "model"
"""In the folder `Place.pipes`. For a worker that runs in a container of the user's own image:

1. `runtime.fetch` runs first, with ENV_PIPES, and makes two FIFOs: `requests`, which the worker reads as if it were
   descriptor 3, and `answers`, which it writes as if it were 4.
2. The worker's container and the process that does the work have the same folder. Whichever comes first waits for the
   other where it opens `requests`. Before that, the process that does the work makes `model`, a link to the artifact.
3. Where a worker has ended, or is to end, both FIFOs are replaced: the next one hears nothing of what was said before.
"""

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
)
"""How many threads a worker's libraries may use."""

_HIGHEST_PORT = 65535


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a process finds its things: paths, from the environment that the driver sets.

    cache: folder of artifacts by digest. root: what relative URIs are relative to. scratch: the only folder it may
    write besides. socket: Unix socket to listen on. report: file that it replaces atomically with its latest Report.
    secrets: a folder of files `<role>/<key>`. index: among the members of its task, attempt: of a gang, from 1; master:
    `host:port` where rank 0 may listen. broker: the file that tells how LOCAL_BROKER is reached, once it runs. shadow:
    where who gets copies of requests may ask the revision whose answers callers get: a socket, or `:port` of whichever
    gateway sent the copy. gateway_digest: the SHA-256 of what requests must bear in GATEWAY_HEADER, 64 hexadecimal
    digits, "": nothing.

    In pods besides: listen: `host:port` for requests, in place of the socket. termination: the file that outlives the
    container, for a last report. report_listen: `host:port` where the latest report may be read. fetched: the folder
    that `runtime.fetch` puts the artifact of prepare work into, and where prepare takes it from. program: the folder
    in which the program of another container leaves its output, see PROGRAM_OUTPUT. account: the ServiceAccount whose
    cloud identity opens stores for which there are no keys, "": none. pipes: the folder by which a worker
    in another container is reached, see PIPE_REQUESTS.
    """

    work: str
    report: str
    cache: str
    scratch: str
    socket: str = ""
    root: str = ""
    secrets: str = ""
    index: int = 0
    attempt: int = 1
    master: str = ""
    broker: str = ""
    shadow: str = ""
    listen: str = ""
    gateway_digest: str = ""
    termination: str = ""
    report_listen: str = ""
    fetched: str = ""
    program: str = ""
    account: str = ""
    pipes: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Place":
        """Read the variables; a missing one is a UserError that names it."""
        missing = [name for name in (ENV_WORK, ENV_REPORT, ENV_CACHE, ENV_SCRATCH) if not environment.get(name)]
        if missing:
            raise UserError(f"{', '.join(missing)} must be set: this program is started by Modelyard, not by hand")
        return cls(
            work=environment[ENV_WORK],
            report=environment[ENV_REPORT],
            cache=environment[ENV_CACHE],
            scratch=environment[ENV_SCRATCH],
            socket=environment.get(ENV_SOCKET, ""),
            root=environment.get(ENV_ROOT, ""),
            secrets=environment.get(ENV_SECRETS, ""),
            index=_number(environment, ENV_INDEX, 0),
            attempt=_number(environment, ENV_ATTEMPT, 1),
            master=environment.get(ENV_MASTER, ""),
            broker=environment.get(ENV_BROKER, ""),
            shadow=environment.get(ENV_SHADOW, ""),
            listen=environment.get(ENV_LISTEN, ""),
            gateway_digest=environment.get(ENV_GATEWAY_DIGEST, ""),
            termination=environment.get(ENV_TERMINATION, ""),
            report_listen=environment.get(ENV_REPORT_LISTEN, ""),
            fetched=environment.get(ENV_FETCHED, ""),
            program=environment.get(ENV_PROGRAM, ""),
            account=environment.get(ENV_ACCOUNT, ""),
            pipes=environment.get(ENV_PIPES, ""),
        )

    def environment(self) -> dict[str, str]:
        """The inverse, for drivers."""
        pairs = {
            ENV_WORK: self.work,
            ENV_REPORT: self.report,
            ENV_CACHE: self.cache,
            ENV_SCRATCH: self.scratch,
            ENV_SOCKET: self.socket,
            ENV_ROOT: self.root,
            ENV_SECRETS: self.secrets,
            ENV_INDEX: str(self.index) if self.index else "",
            ENV_ATTEMPT: str(self.attempt) if self.attempt > 1 else "",
            ENV_MASTER: self.master,
            ENV_BROKER: self.broker,
            ENV_SHADOW: self.shadow,
            ENV_LISTEN: self.listen,
            ENV_GATEWAY_DIGEST: self.gateway_digest,
            ENV_TERMINATION: self.termination,
            ENV_REPORT_LISTEN: self.report_listen,
            ENV_FETCHED: self.fetched,
            ENV_PROGRAM: self.program,
            ENV_ACCOUNT: self.account,
            ENV_PIPES: self.pipes,
        }
        return {name: value for name, value in pairs.items() if value}


def host_and_port(name: str, address: str) -> tuple[str, int]:
    """`0.0.0.0:8080` or `[::]:8080` -> host and port. name: of the variable. Raises UserError."""
    host, _, port = address.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or not port.isascii() or not port.isdecimal() or len(port) > 5 or int(port) > _HIGHEST_PORT:
        raise UserError(f"{name} must be HOST:PORT, such as 0.0.0.0:8080, not {address!r}")
    return host, int(port)


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "")
    if text and not text.isdecimal():
        raise UserError(f"{name} must be a whole number, not {text!r}: this program is not started by hand")
    return int(text) if text else default

"""The names of everything at a job's output, and what a listing of them says. Pure.

    part-00002-00017.parquet            shard 17 of run 2: its one put is the commit
    _SUCCESS                            for other tools; never read here
    _run/2.json                         the run: whose it is, and its frozen shards
    _run/2/attempts/00017-1.json        somebody began shard 17 for the first time
    _run/2/drafts/00017-<id>.json       what the attempt <id> is about to commit: counts and SHA-256
    _run/2/errors/00017-<id>.ndjson     the rows that it could not score
    _run/2/commits/00017-4000-2-<id>    shard 17 is committed with 4,000 rows and 2 errors, by the attempt <id>
    _run/2/done.json                    the run is closed

Commits are derived: whoever sees a part without one finds out whose it is and adds it. Names below `_run/` never end as
parts do, so that a glob for parts finds nothing else.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

SUCCESS = "_SUCCESS"
SUFFIXES = {"parquet": ".parquet", "csv": ".csv", "jsonl": ".jsonl", "arrow": ".arrow"}
_NUMBER, _SHARD, _ID = r"(?P<run>\d{1,9})", r"(?P<shard>\d{5,9})", r"(?P<id>[0-9a-f]{16})"
_PART = re.compile(rf"part-{_NUMBER}-{_SHARD}\.[a-z]+")
_RUN = re.compile(rf"_run/{_NUMBER}\.json")
_DONE = re.compile(rf"_run/{_NUMBER}/done\.json")
_ATTEMPT = re.compile(rf"_run/{_NUMBER}/attempts/{_SHARD}-(?P<count>\d{{1,4}})\.json")
_DRAFT = re.compile(rf"_run/{_NUMBER}/drafts/{_SHARD}-{_ID}\.json")
_COMMIT = re.compile(rf"_run/{_NUMBER}/commits/{_SHARD}-(?P<rows>\d{{1,18}})-(?P<errors>\d{{1,18}})-{_ID}")
_SWEPT = re.compile(rf"_run/{_NUMBER}/swept")


def part(run: int, shard: int, format_name: str) -> str:
    """The result of one shard."""
    return f"part-{run:05d}-{shard:05d}{SUFFIXES[format_name]}"


def run(number: int) -> str:
    """The record of a run."""
    return f"_run/{number}.json"


def done(number: int) -> str:
    """The end of a run."""
    return f"_run/{number}/done.json"


def attempt(number: int, shard: int, count: int) -> str:
    """Somebody begins a shard for the count-th time."""
    return f"_run/{number}/attempts/{shard:05d}-{count}.json"


def draft(number: int, shard: int, attempt_id: str) -> str:
    """What an attempt is about to commit."""
    return f"_run/{number}/drafts/{shard:05d}-{attempt_id}.json"


def errors(number: int, shard: int, attempt_id: str) -> str:
    """The rows that an attempt could not score."""
    return f"_run/{number}/errors/{shard:05d}-{attempt_id}.ndjson"


def commit(number: int, shard: int, commit_of: "Commit") -> str:
    """The derived note that a shard is committed."""
    return f"_run/{number}/commits/{shard:05d}-{commit_of.rows}-{commit_of.errors}-{commit_of.attempt}"


def swept(number: int) -> str:
    """What earlier runs left was removed, before the first commit of an overwriting run."""
    return f"_run/{number}/swept"


def staging(number: int) -> str:
    """Where a file is written before it gets its name, on file://."""
    return f"_run/{number}/staging"


@dataclass(frozen=True, slots=True)
class Commit:
    """rows, errors: of a committed shard; attempt: the id of the one that won."""

    rows: int
    errors: int
    attempt: str


@dataclass(frozen=True, slots=True)
class RunSeen:
    """One run in a listing. attempts: shard -> how often it was begun. parts: committed shards."""

    closed: bool = False
    swept: bool = False
    parts: frozenset[int] = frozenset()
    attempts: Mapping[int, int] = field(default_factory=dict)
    drafts: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    commits: Mapping[int, Commit] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(each.rows for each in self.commits.values())

    @property
    def errors(self) -> int:
        return sum(each.errors for each in self.commits.values())


@dataclass(frozen=True, slots=True)
class Seen:
    """runs: by number. foreign: something lies here that no run has written. old_parts: keys by run."""

    runs: Mapping[int, RunSeen] = field(default_factory=dict)
    foreign: tuple[str, ...] = ()
    parts: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    success: bool = False

    @property
    def latest(self) -> int:
        """The highest number, 0 without any run."""
        return max(self.runs, default=0)


def see(keys: Iterable[str]) -> Seen:
    """What a listing says. Keys that are not ours are foreign, except below `_run/`, where nobody else may write."""
    builder = _Builder()
    for key in keys:
        builder.add(key)
    return builder.seen()


class _Builder:
    def __init__(self) -> None:
        self._recorded: set[int] = set()
        self._closed: set[int] = set()
        self._swept: set[int] = set()
        self._parts: dict[int, dict[int, str]] = {}
        self._attempts: dict[int, dict[int, int]] = {}
        self._drafts: dict[int, dict[int, list[str]]] = {}
        self._commits: dict[int, dict[int, Commit]] = {}
        self._foreign: list[str] = []
        self._success = False

    def add(self, key: str) -> None:
        if key == SUCCESS:
            self._success = True
        elif found := _PART.fullmatch(key):
            self._parts.setdefault(int(found["run"]), {})[int(found["shard"])] = key
        elif not key.startswith("_run/"):
            self._foreign.append(key)
        elif found := _RUN.fullmatch(key):
            self._recorded.add(int(found["run"]))
        elif found := _DONE.fullmatch(key):
            self._closed.add(int(found["run"]))
        elif found := _SWEPT.fullmatch(key):
            self._swept.add(int(found["run"]))
        else:
            self._add_shard(key)

    def _add_shard(self, key: str) -> None:
        if found := _ATTEMPT.fullmatch(key):
            counts = self._attempts.setdefault(int(found["run"]), {})
            shard = int(found["shard"])
            counts[shard] = max(counts.get(shard, 0), int(found["count"]))
        elif found := _DRAFT.fullmatch(key):
            drafts = self._drafts.setdefault(int(found["run"]), {})
            drafts.setdefault(int(found["shard"]), []).append(found["id"])
        elif found := _COMMIT.fullmatch(key):
            commits = self._commits.setdefault(int(found["run"]), {})
            commits[int(found["shard"])] = Commit(int(found["rows"]), int(found["errors"]), found["id"])

    def seen(self) -> Seen:
        runs = {
            number: RunSeen(
                closed=number in self._closed,
                swept=number in self._swept,
                parts=frozenset(self._parts.get(number, ())),
                attempts=self._attempts.get(number, {}),
                drafts={shard: tuple(ids) for shard, ids in self._drafts.get(number, {}).items()},
                commits=self._commits.get(number, {}),
            )
            for number in self._recorded
        }
        # A part without a record of its run was copied here by somebody.
        strange = [key for number, parts in self._parts.items() if number not in runs for key in parts.values()]
        return Seen(
            runs=runs,
            foreign=(*self._foreign, *strange),
            parts={number: tuple(parts.values()) for number, parts in self._parts.items()},
            success=self._success,
        )

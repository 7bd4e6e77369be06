"""What the revisions of a service have to do, as a server's `/metrics` tells it."""

import re
from dataclasses import dataclass, field

from modelyard.base.errors import ModelyardError
from modelyard.control.kube.client import Client
from modelyard.sdk.objects import Object

PATH = "/metrics"
_SAMPLE = re.compile(
    r'modelyard_gateway_([a-z0-9_]{1,64})\{model="([^"]{1,300})",revision="([^"]{1,300})"'
    r'(?:,(?:outcome|quantile)="([a-z0-9.]{1,16})")?\} ([0-9]{1,20}(?:\.[0-9]{1,20})?(?:e[+-]?[0-9]{1,2})?)'
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RevisionLoad:
    """revision: its name. figures: by their names in `/metrics`, without `modelyard_gateway_`, and what tells more."""

    revision: str
    figures: dict[tuple[str, str], float] = field(default_factory=dict)

    def figure(self, name: str, more: str = "") -> float | None:
        """more: the outcome or quantile."""
        return self.figures.get((name, more))


@dataclass(frozen=True, kw_only=True, slots=True)
class Loads:
    """problem: why nothing is known, in a sentence, or ""."""

    revisions: tuple[RevisionLoad, ...] = ()
    problem: str = ""


async def of(client: Client, service: Object) -> Loads:
    """Of a ModelService's revisions that were called."""
    metadata = service["metadata"]
    model = f"{metadata['name']}.{metadata['namespace']}"
    try:
        text = await client.text(PATH, {"model": model})
    except ModelyardError as error:
        return Loads(problem=f"{PATH} of the server cannot be read: {error.message}")
    return Loads(revisions=parse(text, model))


def parse(text: str, model: str) -> tuple[RevisionLoad, ...]:
    """Loads of a model, by its canonical id, in the order of its revisions; lines of another form are left out."""
    found: dict[str, RevisionLoad] = {}
    for line in text.splitlines():
        match = _SAMPLE.fullmatch(line)
        if match is None or match[2] != model:
            continue
        name, _, unit, more, value = match.groups()
        revision = unit.partition(".")[0]
        found.setdefault(revision, RevisionLoad(revision=revision)).figures[name, more or ""] = float(value)
    return tuple(found[each] for each in sorted(found))

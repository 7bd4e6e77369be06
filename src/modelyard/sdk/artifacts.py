"""Whether the files on this machine are still what the server serves."""

from collections.abc import Iterable
from dataclasses import dataclass

from modelyard.base.errors import ModelyardError
from modelyard.sdk.find import Target
from modelyard.sdk.manifests import local_path
from modelyard.sdk.objects import Object
from modelyard.storage.digest import digest


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """A Model as the server has it, and the name under which `modelyard refresh` reads it again."""

    model: Object
    name: str


def changed(target: Target, served: Iterable[Served]) -> list[str]:
    """A sentence for each artifact whose bytes differ from those that are served. Reads the files."""
    return [sentence for each in served if (sentence := _changed(target, each))]


def _changed(target: Target, served: Served) -> str:
    spec = served.model["spec"]
    known = (served.model.get("status") or {}).get("digest")
    path = local_path(spec["uri"], target)
    if path is None or known is None or not path.exists():
        return ""
    try:
        found = digest(path)
    except ModelyardError:
        return ""  # the server reads the same file, and says what is wrong with it in the Model's condition
    if found == known:
        return ""
    kind = f"{spec['uri']} is no longer what is served ({_short(found)} on disk, {_short(known)} served)"
    if spec.get("digest"):
        return f"{kind}; Model {served.name} pins its digest: declare the new content as a new Model"
    return f"{kind}: 'modelyard refresh {served.name}' rolls the new content out"


def _short(text: str) -> str:
    return text[: len("sha256:") + 12]

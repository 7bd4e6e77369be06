"""A model folder: what its `model.json` says about the artifact. Source: `spec/model-folder.md`."""

from pathlib import Path

import msgspec

from modelyard.base.conditions import Reason
from modelyard.runtime.backends.port import LoadFailed
from modelyard.wire.work import PrepareWork, TensorSpec

NAME = "model.json"
_MOST_BYTES = 1 << 20


class _ModelFile(msgspec.Struct, frozen=True):
    format: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()


def completed(work: PrepareWork, path: Path) -> PrepareWork:
    """The work with what the folder's model.json adds to it; what was declared wins.

    Raises LoadFailed (ArtifactInvalid) for a model.json that cannot be read, OSError as it comes.
    """
    file = path / NAME
    if not path.is_dir() or not file.is_file():
        return work
    if file.stat().st_size > _MOST_BYTES:
        raise LoadFailed(Reason.ARTIFACT_INVALID, f"{file.name} is larger than 1 MiB; see spec/model-folder.md")
    try:
        found = msgspec.json.decode(file.read_bytes(), type=_ModelFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LoadFailed(
            Reason.ARTIFACT_INVALID,
            f"{file.name} in the model folder cannot be read: {error}; see spec/model-folder.md",
        ) from error
    return msgspec.structs.replace(
        work,
        format=work.format or found.format,
        inputs=work.inputs or found.inputs,
        outputs=work.outputs or found.outputs,
    )

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from drivers_testing import ProcessRig, marked, running


@pytest.fixture
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("d")


@pytest.fixture
async def rig(base: Path) -> AsyncIterator[ProcessRig]:
    async with running(base) as rig:
        yield rig
    assert not marked(base), "no process is left"
    assert not list(rig.folders.run.rglob("*.sock"))
    assert not list(rig.folders.records().iterdir())
    assert not list(rig.folders.work.iterdir())

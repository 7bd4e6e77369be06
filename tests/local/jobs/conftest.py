from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs_testing import slow_model
from yard_testing import Yard


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """A server for the jobs of one module, with the Model `slow`, which is not slow unless a test says so."""
    folder: Path = tmp_path_factory.mktemp("yard")
    with Yard(folder) as found:
        found.apply(*slow_model(folder, 0.0), wait=True)
        yield found

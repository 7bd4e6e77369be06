from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_testing import Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Project]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    found = Project(tmp_path.resolve(), capsys)
    with found.serving():
        yield found

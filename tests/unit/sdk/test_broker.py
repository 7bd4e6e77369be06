import json
import os
from pathlib import Path

import pytest

from modelyard.base.errors import UserError
from modelyard.sdk import broker


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Its server runs."""
    data = tmp_path / ".modelyard"
    data.mkdir()
    (data / "kubeconfig").touch()
    announced = str(tmp_path / "run" / "broker.json")
    body = {"root": str(tmp_path), "gateway": "http://127.0.0.1:2", "broker": announced, "pid": os.getpid()}
    (data / "server.json").write_text(json.dumps(body))
    (tmp_path / "run").mkdir()
    return tmp_path


def test_a_broker_that_runs_is_found_from_anywhere_in_the_project(project: Path) -> None:
    facts = {"url": "nats://127.0.0.1:4222", "user": "modelyard", "password": "secret"}
    (project / "run" / "broker.json").write_text(json.dumps(facts))
    (project / "src").mkdir()
    expected = {"servers": ["nats://127.0.0.1:4222"], "user": "modelyard", "password": "secret"}
    assert broker.connect_options(project / "src") == expected


def test_the_current_folder_is_the_default(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "run" / "broker.json").write_text(json.dumps({"url": "nats://h:1", "user": "u", "password": "p"}))
    monkeypatch.chdir(project)
    assert broker.connect_options()["servers"] == ["nats://h:1"]


def test_without_a_broker_it_says_when_one_is_started(project: Path) -> None:
    with pytest.raises(UserError, match=r"no local broker runs .* uri: nats://local, so apply one; .*server\.log says"):
        broker.connect_options(project)


def test_without_a_server_it_says_how_one_is_started(project: Path) -> None:
    (project / ".modelyard" / "server.json").unlink()
    with pytest.raises(UserError, match="is not running: start it with 'modelyard up"):
        broker.connect_options(project)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"url": "nats://h:1"}'])
def test_what_cannot_be_read_is_no_traceback(project: Path, text: str) -> None:
    (project / "run" / "broker.json").write_text(text)
    with pytest.raises(UserError, match="stop 'modelyard up' and start it again"):
        broker.connect_options(project)

import json
import os
from pathlib import Path

import pytest
import yaml

from modelyard.base.errors import UserError
from modelyard.sdk import find


def kubeconfig(path: Path, server: str = "https://127.0.0.1:1", context: str = "modelyard") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    body = {
        "current-context": context,
        "contexts": [{"name": context, "context": {"cluster": f"c-{context}", "user": "u"}}],
        "clusters": [{"name": f"c-{context}", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    path.write_text(yaml.safe_dump(body))


def announce(data: Path, pid: int) -> None:
    (data / "server.json").write_text(
        json.dumps({"root": str(data.parent), "gateway": "http://127.0.0.1:2", "pid": pid})
    )


def test_the_nearest_project_upwards_is_taken(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "a"):
        kubeconfig(folder / ".modelyard" / "kubeconfig", f"https://{folder.name}")
        announce(folder / ".modelyard", os.getpid())
    (tmp_path / "a" / "b").mkdir()
    found = find.find(start=tmp_path / "a" / "b")
    assert found.config.server == "https://a"
    assert found.local is not None
    assert found.local.root == (tmp_path / "a").resolve()
    assert find.gateway(tmp_path / "a" / "b") == "http://127.0.0.1:2"


def test_without_a_project_the_current_context_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubeconfig(tmp_path / "config")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(UserError, match="'modelyard up' in the project folder, or name another server with --context"):
        find.find(start=tmp_path)


def test_a_named_context_is_looked_for_in_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubeconfig(tmp_path / "one", "https://one", "a")
    kubeconfig(tmp_path / "two", "https://two", "b")
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(str(tmp_path / each) for each in ("one", "missing", "two")))
    found = find.find("b")
    assert (found.config.server, found.local) == ("https://two", None)
    assert "context b" in found.description
    with pytest.raises(UserError, match="there is no context 'c'"):
        find.find("c")


def test_a_server_that_ended_is_not_waited_for(tmp_path: Path) -> None:
    kubeconfig(tmp_path / ".modelyard" / "kubeconfig")
    with pytest.raises(UserError, match="is not running: start it with 'modelyard up"):
        find.find(start=tmp_path)
    announce(tmp_path / ".modelyard", 2**22 + 1)  # above the largest process number of Linux
    with pytest.raises(UserError, match="is not running"):
        find.find(start=tmp_path)
    (tmp_path / ".modelyard" / "server.json").write_text("{")
    with pytest.raises(UserError, match=r"server\.json cannot be read"):
        find.find(start=tmp_path)

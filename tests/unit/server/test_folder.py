import stat
from pathlib import Path

import pytest

from modelyard.base.errors import UserError
from modelyard.server import folder


def test_a_data_folder_is_private_and_ignores_itself_in_git(tmp_path: Path) -> None:
    with folder.opened(tmp_path, tmp_path / ".modelyard") as opened:
        assert stat.S_IMODE(opened.data.stat().st_mode) == 0o700
        assert (opened.data / ".gitignore").read_text() == "*\n"
        assert stat.S_IMODE(opened.run.stat().st_mode) == 0o700
        assert len(str(opened.run)) < 60


def test_a_second_server_on_the_same_folder_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    data = tmp_path / ".modelyard"
    with folder.opened(tmp_path, data):
        with pytest.raises(UserError, match=r"in use by another 'modelyard up' \(process \d+\).*--data-dir"):
            with folder.opened(tmp_path, data):
                pass
    with folder.opened(tmp_path, data):
        pass


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds files that Modelyard did not write"):
        with folder.opened(tmp_path, tmp_path):
            pass


def test_a_folder_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    data = tmp_path / ".modelyard"
    with folder.opened(tmp_path, data):
        pass
    (data / "layout").write_text("99\n")
    with pytest.raises(UserError, match="has layout 99, this release reads 1"), folder.opened(tmp_path, data):
        pass


def test_an_ephemeral_server_leaves_nothing_behind(tmp_path: Path) -> None:
    data = tmp_path / ".modelyard"
    with folder.opened(tmp_path, data, ephemeral=True) as opened:
        (opened.cache / "artifact").touch()
    assert not data.exists()
    assert not opened.run.exists()


def test_an_ephemeral_server_never_removes_the_state_of_another_one(tmp_path: Path) -> None:
    data = tmp_path / ".modelyard"
    with folder.opened(tmp_path, data) as opened:
        (opened.cache / "artifact").touch()
    with pytest.raises(UserError, match="holds the state of a server"):
        with folder.opened(tmp_path, data, ephemeral=True):
            pass
    assert (data / "cache" / "artifact").exists()


def test_what_a_killed_ephemeral_server_left_is_taken_over(tmp_path: Path) -> None:
    data = tmp_path / ".modelyard"
    data.mkdir()
    (data / "ephemeral").touch()
    (data / "layout").write_text("1\n")
    (data / "old").touch()
    with folder.opened(tmp_path, data, ephemeral=True):
        assert not (data / "old").exists()


def test_a_folder_that_was_cut_off_while_being_made_is_taken_over(tmp_path: Path) -> None:
    data = tmp_path / ".modelyard"
    data.mkdir()
    (data / "lock").touch()
    (data / ".layout.123").touch()
    with folder.opened(tmp_path, data):
        assert (data / "layout").read_text() == "1\n"


def test_a_missing_project_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere is not a folder"):
        with folder.opened(tmp_path / "nowhere", tmp_path / "data"):
            pass


def test_commands_learn_where_the_server_is(tmp_path: Path) -> None:
    with folder.opened(tmp_path, tmp_path / "data") as opened:
        opened.announce("http://127.0.0.1:8080", opened.run / "broker.json")
        found = opened.data / "server.json"
        assert '"gateway": "http://127.0.0.1:8080"' in found.read_text()
        assert stat.S_IMODE(found.stat().st_mode) == 0o600
    assert not found.exists()

"""However a node ends, nothing of it is left. These nodes are beside the one that the other tests stand on."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.node import files
from cluster.node.build import HERE
from cluster.node.node import NAME, Node
from cluster_testing import Cluster
from kubectl_testing import until


class Beside:
    """Another node, by `node.sh`."""

    def __init__(self, name: str) -> None:
        self.node = Node(name)
        self._environment = {**os.environ, NAME: name}

    def run(self, *command: str) -> "subprocess.Popen[str]":
        """`node.sh run`, in a process group of its own, as a shell would."""
        return subprocess.Popen(
            [str(HERE / "node.sh"), "run", *command],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def coming_up(self) -> "subprocess.Popen[str]":
        """One whose API server has been started, and that is not Ready."""
        process = self.run("sleep", "1000")
        until((self.node.work / "pids" / "kube-apiserver").exists, 120)
        return process


@pytest.fixture
def beside(cluster: Cluster) -> Iterator[Beside]:
    """A node that nobody uses now."""
    name = next(each for each in reversed(files.NAMES) if each != cluster.node.which.name and not Node(each).running)
    found = Beside(name)
    found.node.down()
    yield found
    found.node.down()


def test_ctrl_c_ends_the_command_and_the_node_and_leaves_nothing(beside: Beside, tmp_path: Path) -> None:
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    command = f"trap 'touch {ended}; exit 0' INT; touch {begun}; while :; do sleep 0.1; done"
    process = beside.run("bash", "-c", command)
    until(begun.exists, 120)
    assert [each for each in beside.node.left() if "kube-apiserver" in each], "it sees what there is"
    os.killpg(process.pid, signal.SIGINT)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, told
    assert ended.exists(), "the command was given the time to end by itself"
    assert beside.node.left() == [], told


def test_a_node_that_comes_up_is_told_to_end_and_leaves_nothing(beside: Beside) -> None:
    process = beside.coming_up()
    process.terminate()
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, told
    assert beside.node.left() == [], told


def test_a_node_whose_script_is_killed_ends_by_itself_and_down_removes_its_folders(beside: Beside) -> None:
    process = beside.coming_up()
    process.kill()
    process.communicate(timeout=60)

    def running() -> list[str]:
        return [each for each in beside.node.left() if each.startswith(("process", "network"))]

    until(lambda: not running(), 30)
    assert beside.node.left(), "folders, which nobody removed"
    beside.node.down()
    assert beside.node.left() == []

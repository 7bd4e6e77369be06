import os

from modelyard.base import launch


def test_a_command_names_its_parent_and_keeps_the_arguments_apart() -> None:
    line = launch.command(["run", "--fd", "--"], descriptors={3: 17}, limits={"core": 0})
    split = line.index("--")
    assert line[split + 1 :] == ["run", "--fd", "--"]
    assert line[4:split] == [str(os.getpid()), "--fd", "17:3", "--limit", "core=0"]

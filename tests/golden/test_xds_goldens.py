"""Goldens of the Envoy renderer: `xds/<case>.in.yaml` -> `xds/<case>.out.yaml`. The same cases are fed to a real Envoy.

Regenerate with `UPDATE_GOLDENS=1 make test` and read the difference.
"""

import os
from pathlib import Path

import pytest
import yaml

from xds_testing import CASES, case, extensions, rendered


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name.removesuffix(".in.yaml"))
def test_the_rendering_is_as_recorded(path: Path) -> None:
    everything = extensions(path) or rendered(*case(path))
    found = yaml.safe_dump(everything, sort_keys=False, width=110)
    expected = path.with_name(path.name.replace(".in.", ".out."))
    if os.environ.get("UPDATE_GOLDENS"):
        expected.write_text(found)
    assert found == expected.read_text(), "the rendering changed; if it should, regenerate and read the difference"


def test_every_case_has_its_result() -> None:
    names = {path.name for path in CASES[0].parent.glob("*.yaml")}
    assert {name.replace(".in.", ".out.") for name in names} == {name for name in names if ".out." in name}

"""Goldens of what Envoy starts with: `bootstrap/laptop.json`, and the files of a pod.

Regenerate with `UPDATE_GOLDENS=1 make test` and read the difference.
"""

import json
import os
from pathlib import Path

import pytest

from modelyard.control.render import xds_bootstrap
from modelyard.control.render.xds_bootstrap import Limits

FOLDER = Path(__file__).parent / "bootstrap"
LAPTOP = xds_bootstrap.on_sockets(
    "/run/ads.sock", "/run/envoy.sock", Limits(connections=4096, public_connections=3072, heap_bytes=2**30)
)
FOUND = {"laptop.json": json.dumps(LAPTOP, indent=2) + "\n"} | {
    f"pod-{name.replace('.yaml', '.json')}": text for name, text in xds_bootstrap.files(2**30).items()
}


@pytest.mark.parametrize("name", FOUND)
def test_what_envoy_starts_with_is_as_recorded(name: str) -> None:
    path = FOLDER / name
    if os.environ.get("UPDATE_GOLDENS"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(FOUND[name])
    assert path.read_text() == FOUND[name], "it changed; if it should, regenerate and read the difference"


def test_nothing_else_is_recorded() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(FOUND)

"""Each half runs with no more than its image holds: its own packages, and those of its lock."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from tools.images.build import IMAGES, ROOT

ENTRIES = {
    "runtime": ["front.__main__", "jobs.__main__", "streams.__main__", "prepare.__main__", "fetch"],
    "operator": ["operator"],
}
HALF = {"runtime": "modelyard.runtime", "operator": "modelyard.server"}
# As in an image: no other packages in sight. Prints what of the standard library's outside was loaded.
PROGRAM = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def in_sight(image: str, folder: Path) -> None:
    """Lay out, as links, what the image holds of our source and of the installed packages."""
    (folder / "modelyard").mkdir()
    for part in ("__init__.py", *IMAGES[image].parts):
        (folder / "modelyard" / part).symlink_to(ROOT / "src/modelyard" / part)
    lock = (ROOT / f"requirements/{image}.lock").read_text()
    for name in re.findall(r"^([A-Za-z0-9._-]+)==", lock, re.MULTILINE):
        try:
            held = distribution(name)
        except PackageNotFoundError:
            continue  # for another Python, or only in the image
        for top in {file.parts[0] for file in held.files or () if ".." not in file.parts}:
            link = folder / top
            if not link.exists():
                link.symlink_to(Path(str(held.locate_file(top))))


@pytest.mark.parametrize("image", ENTRIES)
def test_a_half_starts_with_what_its_image_holds(image: str, tmp_path: Path) -> None:
    in_sight(image, tmp_path)
    modules = [f"{HALF[image]}.{entry}" for entry in ENTRIES[image]]
    command = [sys.executable, "-S", "-P", "-c", PROGRAM, *modules]
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "modelyard" in done.stdout.split()


@pytest.mark.parametrize("image", ENTRIES)
def test_every_module_of_a_half_that_needs_no_other_half_is_in_its_image(image: str, tmp_path: Path) -> None:
    """A module that imports a part of ours which the image lacks would fail only when it is first used."""
    imports = re.compile(r"^\s*(?:from|import) modelyard\.(\w+)", re.MULTILINE)
    parts = set(IMAGES[image].parts)
    inside = [path for part in parts for path in (ROOT / "src/modelyard" / part).rglob("*.py")]
    lacking = {path.name: set(imports.findall(path.read_text())) - parts for path in inside}
    only_on_a_laptop = {"local.py"}
    assert {name: parts for name, parts in lacking.items() if parts and name not in only_on_a_laptop} == {}

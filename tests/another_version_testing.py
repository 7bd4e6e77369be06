"""Modelyard of this checkout as another version of it: its commands and its images bear another number."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from installation_testing import IMAGES, Installation

_ROOT = Path(__file__).parents[1]
_LINE = '__version__ = "{}"'


class AnotherVersion(Installation):
    """The commands of that version; `install` upgrades to it."""

    def __init__(self, installed: Installation, folder: Path, version: str) -> None:
        super().__init__(installed.cluster)
        self.version, self._folder = version, folder
        shutil.copytree(_ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("tools", "requirements"):
            shutil.copytree(_ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / ".tools").symlink_to(_ROOT / ".tools")
        shutil.copyfile(_ROOT / "LICENSE", folder / "LICENSE")
        init = folder / "src/modelyard/__init__.py"
        former = next(line for line in init.read_text().splitlines() if line.startswith("__version__"))
        init.write_text(init.read_text().replace(former, _LINE.format(version)))

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "PYTHONPATH": f"{self._folder / 'src'}:{self._folder}"}

    def load_images(self) -> dict[str, str]:
        """Into the node, with the version as their tag."""
        out = self._folder / "images"
        command = [sys.executable, "-m", "tools.images", "--compression", "0", "--out", str(out)]
        environment = {**os.environ, "PYTHONPATH": str(self._folder)}
        done = subprocess.run(
            command, cwd=self._folder, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr
        for name in IMAGES:
            self.cluster.node.load(out / f"{name}.tar")
        return dict.fromkeys(IMAGES, self.version)

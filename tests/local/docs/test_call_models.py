"""The page on calling models does what it says, over HTTP and gRPC."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from yard_testing import Yard, service, write_onnx

PAGE = (Path(__file__).parents[3] / "docs/how-to/call-models.md").read_text()


def test_a_model_is_called_over_http_and_grpc_as_written(tmp_path: Path) -> None:
    write_onnx(tmp_path / "plus.onnx", 1.0)
    (shell,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    with Yard(tmp_path) as yard:
        yard.apply(service("plus", model={"uri": "plus.onnx"}))
        environment = {**os.environ, "URL": yard.url}
        asked = subprocess.run(["bash", "-ec", shell], env=environment, capture_output=True, text=True, check=True)
        assert json.loads(asked.stdout)["outputs"][0]["data"] == [2.0, 3.0]
        command = [sys.executable, "-c", program]
        called = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (called.returncode, called.stdout) == (0, "[[2. 3.]]\n"), called.stderr

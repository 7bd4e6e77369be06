"""Runners leave out what costs more than it gives."""

import subprocess
import sys

PROGRAM = """
import sys
import pyarrow as pa
from modelyard.runtime.scoring.lean import without_pandas
without_pandas()
without_pandas()
assert pa.array([1.5, None]).to_pylist() == [1.5, None]
assert pa.table({"a": [{"b": 1}]}).to_pylist() == [{"a": {"b": 1}}]
assert "pandas" not in sys.modules
print(sum(type(each).__name__ == "_Absent" for each in sys.meta_path))
"""


def test_arrow_does_without_pandas_though_it_is_installed() -> None:
    assert subprocess.run([sys.executable, "-c", "import pandas"], check=False).returncode == 0
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr

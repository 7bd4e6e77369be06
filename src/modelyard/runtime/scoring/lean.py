"""What runners do without."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_UNWANTED = "pandas"


class _Absent(MetaPathFinder):
    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == _UNWANTED:
            raise ModuleNotFoundError(f"runners do without {name}", name=name)
        return None


def without_pandas() -> None:
    """Let pandas seem not to be installed: pyarrow would load it at its first list of values, which takes a second, and
    tens of megabytes, in the middle of the first batch. No model runs in this process that needs it: those that are
    Python are in workers.
    """
    if not any(isinstance(each, _Absent) for each in sys.meta_path):
        sys.meta_path.insert(0, _Absent())

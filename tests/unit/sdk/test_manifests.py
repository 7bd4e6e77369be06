from pathlib import Path

import pytest

from modelyard.api.load import Document
from modelyard.base.errors import UserError
from modelyard.control.kube.auth import ClientConfig
from modelyard.sdk import manifests
from modelyard.sdk.find import LocalServer, Target

MODEL = "apiVersion: modelyard.dev/v1alpha1\nkind: Model\nmetadata: {name: m}\nspec: {uri: %s}\n"


def target(root: Path | None) -> Target:
    local = LocalServer(data=root / ".modelyard", root=root, gateway="http://x", pid=1) if root else None
    return Target(config=ClientConfig(server="https://x"), description="x", kubeconfig=Path("k"), local=local)


def document(source: Path, uri: str) -> Document:
    body = {"apiVersion": "modelyard.dev/v1alpha1", "kind": "Model", "metadata": {"name": "m"}, "spec": {"uri": uri}}
    return Document(str(source), 1, body)


def test_a_folder_means_its_own_manifests_by_name(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "c.json", "notes.txt", "deeper/d.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(MODEL % name)
    found = manifests.read([str(tmp_path), str(tmp_path / "a.yml")])
    assert [each.body["spec"]["uri"] for each in found.documents] == ["a.yml", "b.yaml", "c.json"]


def test_the_faults_of_all_files_are_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError) as caught:
        manifests.read([str(tmp_path / name) for name in ("a.yaml", "b.yaml", "c.yaml")])
    assert len(caught.value.message.splitlines()) == 3


@pytest.mark.parametrize("text", ["", "---\n"])
def test_nothing_to_apply_is_a_fault(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match="there is no object"):
        manifests.read([str(tmp_path / "a.yaml")])


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("./x.onnx", "team/x.onnx"),
        ("../x.onnx", "x.onnx"),
        ("x/../y.onnx", "team/y.onnx"),
        ("/abs/x.onnx", "/abs/x.onnx"),
        ("file:///abs/x.onnx", "file:///abs/x.onnx"),
        ("s3://bucket/x", "s3://bucket/x"),
    ],
)
def test_paths_become_relative_to_the_project(tmp_path: Path, uri: str, expected: str) -> None:
    root = tmp_path.resolve()
    body = manifests.for_server(document(root / "team" / "m.yaml", uri), target(root))
    assert body["spec"]["uri"] == expected


def test_every_path_of_a_job_becomes_relative_to_the_project(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    score = {"model": {"uri": "m.onnx"}, "input": {"uri": "in/"}, "output": {"uri": "s3://lake/out", "keep": ["id"]}}
    run = {
        "command": ["python", "train.py"],
        "workingDir": ".",
        "environment": {"python": "../.venv/bin/python"},
        "output": {"uri": "out"},
        "checkpoint": {"uri": "file:///tmp/c"},
    }

    def applied(**spec: object) -> dict[str, object]:
        body = {"apiVersion": "modelyard.dev/v1alpha1", "kind": "ModelJob", "metadata": {"name": "j"}, "spec": spec}
        found = manifests.for_server(Document(str(root / "team" / "j.yaml"), 1, body), target(root))["spec"]
        assert isinstance(found, dict)
        return found

    assert applied(score=score, parallelism=2) == {
        "parallelism": 2,
        "score": {
            "model": {"uri": "team/m.onnx"},
            "input": {"uri": "team/in"},
            "output": {"uri": "s3://lake/out", "keep": ["id"]},
        },
    }
    assert applied(run=run)["run"] == {
        **run,
        "workingDir": "team",
        "environment": {"python": ".venv/bin/python"},
        "output": {"uri": "team/out"},
    }
    named = {"model": {"name": "forest"}}
    assert applied(score=named) == {"score": named}


@pytest.mark.parametrize(("uri", "expected"), [("out", "team/out"), ("nats://local", "nats://local")])
def test_files_of_a_stream_become_relative_to_the_project(tmp_path: Path, uri: str, expected: str) -> None:
    root = tmp_path.resolve()
    spec = {"model": {"uri": "m.onnx"}, "source": {"uri": "nats://local"}, "sink": {"uri": uri}}
    body = {"apiVersion": "modelyard.dev/v1alpha1", "kind": "ModelStream", "metadata": {"name": "s"}, "spec": spec}
    found = manifests.for_server(Document(str(root / "team" / "s.yaml"), 1, body), target(root))["spec"]
    assert found == {**spec, "model": {"uri": "team/m.onnx"}, "sink": {"uri": expected}}


def test_a_path_outside_the_project_becomes_absolute(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    body = manifests.for_server(document(root / "m.yaml", "../../x"), target(root / "project"))
    assert body["spec"]["uri"] == str(root.parent.parent / "x")


def test_a_server_elsewhere_gets_the_path_as_it_is_written(tmp_path: Path) -> None:
    assert manifests.for_server(document(tmp_path / "m.yaml", "x"), target(None))["spec"]["uri"] == "x"

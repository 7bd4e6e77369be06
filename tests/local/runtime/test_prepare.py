import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import models_testing as models
from misbehaving_testing import Misbehaving
from modelyard.base.conditions import Reason
from modelyard.runtime.prepare import inspect
from modelyard.runtime.worker import python_worker
from modelyard.storage.cache import Cache
from modelyard.storage.digest import digest
from modelyard.wire import report as reports
from modelyard.wire import work as works
from modelyard.wire.place import Place
from modelyard.wire.report import Failure, PrepareReport
from modelyard.wire.work import PrepareWork, TensorSpec, WorkSpec


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "project").mkdir()
    return Place(
        work=str(tmp_path / "work.json"),
        report=str(tmp_path / "report.json"),
        cache=str(tmp_path / "cache"),
        scratch=str(tmp_path / "scratch"),
        root=str(tmp_path / "project"),
    )


async def found(work: PrepareWork, place: Place) -> PrepareReport:
    report = await inspect.run(work, place)
    assert report.failure is None, report.failure
    assert report.prepare is not None
    return report.prepare


async def failed(work: PrepareWork, place: Place) -> Failure:
    report = await inspect.run(work, place)
    assert report.failure is not None, report
    assert "\n" not in report.failure.message.partition("; its last lines:")[0]
    return report.failure


def stored(place: Place) -> list[str]:
    return os.listdir(place.cache) if os.path.exists(place.cache) else []


X = TensorSpec(name="X", datatype="FP64", shape=(-1, 4))
LABEL = TensorSpec(name="label", datatype="INT64", shape=(-1,))
PROBABILITIES = TensorSpec(name="probabilities", datatype="FP64", shape=(-1, 2))


async def test_an_onnx_model_is_read_and_stored_under_its_digest(place: Place) -> None:
    path = models.write_onnx(Path(place.root) / "times.onnx")
    report = await found(PrepareWork(uri="./times.onnx"), place)
    assert report.digest == digest(path)
    assert (report.format, report.format_version, report.size_bytes) == ("onnx", "17", path.stat().st_size)
    assert report.inputs == (TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),)
    assert report.outputs == (TensorSpec(name="y", datatype="FP32", shape=(-1, 4)),)
    assert Cache(Path(place.cache)).path(report.digest).read_bytes() == path.read_bytes()


async def test_a_skops_pipeline_needs_no_trust(place: Place) -> None:
    models.write_skops(models.logistic_regression(), Path(place.root) / "lr.skops")
    report = await found(PrepareWork(uri="lr.skops", inputs=(X,), outputs=(PROBABILITIES, LABEL)), place)
    assert report.format == "skops"
    assert report.format_version.startswith("1.")
    assert (report.inputs, report.outputs) == ((X,), (LABEL, PROBABILITIES))


async def test_trees_in_a_skops_file_need_trust_and_the_message_says_why(place: Place) -> None:
    models.write_skops(models.forest(), Path(place.root) / "forest.skops")
    failure = await failed(PrepareWork(uri="forest.skops"), place)
    assert failure.reason == Reason.TRUST_REQUIRED
    assert "sklearn.tree._tree.Tree" in failure.message
    assert "`trust: pickle`" in failure.message
    report = await found(PrepareWork(uri="forest.skops", trust="pickle"), place)
    assert report.outputs == (LABEL, PROBABILITIES)


def test_trees_need_trust_whatever_the_installed_skops_thinks_of_them(tmp_path: Path) -> None:
    path = models.write_skops(models.forest(), tmp_path / "forest.skops")
    assert python_worker.unchecked(str(path)) == {"sklearn.tree._tree.Tree"}
    assert python_worker.unchecked(str(models.write_skops(models.logistic_regression(), path))) == set()


async def test_code_in_a_skops_file_never_runs_without_trust(place: Place, tmp_path: Path) -> None:
    model = models.calling(os.system, f"touch {tmp_path / 'ran'}")
    models.write_skops(model, Path(place.root) / "evil.skops")
    failure = await failed(PrepareWork(uri="evil.skops"), place)
    assert failure.reason == Reason.TRUST_REQUIRED
    assert "system" in failure.message
    assert "ran" not in os.listdir(tmp_path)


async def test_a_runtimes_own_format_is_as_declared_and_run_by_its_program(place: Place) -> None:
    (Path(place.root) / "model.spss").write_bytes(b"any bytes")
    work = PrepareWork(uri="model.spss", format="spss", command=(sys.executable, "-c", "import sys; sys.exit('no')"))
    failure = await failed(work, place)
    assert failure.reason == Reason.LOAD_FAILED
    assert failure.retry
    assert "ended with status 1; its last lines:\n  no" in failure.message


async def test_a_folder_is_served_by_its_only_model_file(place: Place) -> None:
    folder = Path(place.root) / "model"
    folder.mkdir()
    models.write_skops(models.logistic_regression(), folder / "lr.skops")
    (folder / "README.md").write_text("about it")
    report = await found(PrepareWork(uri="model"), place)
    assert report.format == "skops"
    assert Cache(Path(place.cache)).path(report.digest).name == "model"


@pytest.mark.parametrize("compress", [0, 3])
async def test_joblib_needs_trust(place: Place, compress: int) -> None:
    models.write_joblib(models.regression(), Path(place.root) / "m.joblib", compress)
    failure = await failed(PrepareWork(uri="m.joblib"), place)
    assert failure.reason == Reason.TRUST_REQUIRED
    assert "runs whatever code is in it" in failure.message
    report = await found(PrepareWork(uri="m.joblib", trust="pickle", format="joblib"), place)
    assert [spec.name for spec in report.outputs] == ["predictions"]


class Evil:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("name", ["evil.pkl", "evil.skops", "evil.onnx"])
async def test_a_malicious_pickle_never_runs_without_trust_whatever_its_name(
    place: Place, tmp_path: Path, name: str
) -> None:
    (Path(place.root) / name).write_bytes(pickle.dumps(Evil(str(tmp_path / "ran"))))
    for declared in ("", "pickle", "joblib", "skops", "onnx"):
        failure = await failed(PrepareWork(uri=name, format=declared), place)
        assert failure.reason in (Reason.TRUST_REQUIRED, Reason.FORMAT_MISMATCH)
    assert not (tmp_path / "ran").exists()
    await failed(PrepareWork(uri=name, trust="pickle"), place)
    assert (tmp_path / "ran").exists()  # it does what the test thinks it does


async def test_a_wrong_digest_names_both(place: Place) -> None:
    path = models.write_onnx(Path(place.root) / "times.onnx")
    pinned = "sha256:" + "0" * 64
    failure = await failed(PrepareWork(uri="times.onnx", digest=pinned), place)
    assert failure.reason == Reason.DIGEST_MISMATCH
    assert pinned in failure.message
    assert digest(path) in failure.message
    assert stored(place) == []


@pytest.mark.parametrize(
    ("name", "declared", "reason"),
    [
        ("missing.onnx", "", Reason.ARTIFACT_NOT_FOUND),
        ("empty", "", Reason.ARTIFACT_INVALID),
        ("text.onnx", "", Reason.FORMAT_UNKNOWN),
        ("text.onnx", "spss", Reason.FORMAT_UNKNOWN),
        ("times.onnx", "skops", Reason.FORMAT_MISMATCH),
        ("cut.onnx", "", Reason.ARTIFACT_INVALID),
        ("cut.skops", "", Reason.ARTIFACT_INVALID),
        ("cut.pkl", "", Reason.ARTIFACT_INVALID),
        ("cut.joblib", "", Reason.ARTIFACT_INVALID),
        ("damaged.onnx", "", Reason.ARTIFACT_INVALID),
        ("folder", "", Reason.ARTIFACT_UNREADABLE),
        ("hf://bucket/model.onnx", "", Reason.UNSUPPORTED),
    ],
)
async def test_what_cannot_be_read_says_why(place: Place, name: str, declared: str, reason: Reason) -> None:
    root = Path(place.root)
    times = models.write_onnx(root / "times.onnx").read_bytes()
    (root / "empty").mkdir()
    (root / "text.onnx").write_text("a,b\n1,2\n")
    (root / "cut.onnx").write_bytes(times[:-20])
    (root / "damaged.onnx").write_bytes(times.replace(b"Mul", b"Bul"))
    lr = models.write_skops(models.logistic_regression(), root / "lr.skops").read_bytes()
    (root / "cut.skops").write_bytes(lr[:-500])
    (root / "cut.pkl").write_bytes(pickle.dumps(models.regression())[:-30])
    compressed = models.write_joblib(models.forest(), root / "forest.joblib", 3).read_bytes()
    (root / "cut.joblib").write_bytes(compressed[: len(compressed) // 2])
    (root / "folder").mkdir()
    (root / "folder" / "notes.txt").write_text("none")
    failure = await failed(PrepareWork(uri=name, format=declared, trust="pickle"), place)
    assert failure.reason == reason, failure.message
    assert not failure.retry
    assert all(name.startswith("sha256-") for name in stored(place))


async def test_a_file_without_permission_is_unreadable(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    models.write_onnx(Path(place.root) / "times.onnx")
    original = os.open

    def refused(path: str, flags: int, mode: int = 0o777) -> int:
        if str(path).endswith("times.onnx"):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, flags, mode)

    monkeypatch.setattr(os, "open", refused)
    failure = await failed(PrepareWork(uri="times.onnx"), place)
    assert failure.reason == Reason.ARTIFACT_UNREADABLE
    assert "chmod" in failure.message


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (
            PrepareWork(uri="lr.skops", inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 4)),)),
            "SignatureMismatch",
        ),
        (PrepareWork(uri="lr.skops", outputs=(LABEL,)), "SignatureMismatch"),
        (PrepareWork(uri="lr.skops", format_version="0.9"), "FormatMismatch"),
    ],
)
async def test_a_declaration_that_contradicts_the_artifact_is_refused(
    place: Place, work: PrepareWork, reason: str
) -> None:
    models.write_skops(models.logistic_regression(), Path(place.root) / "lr.skops")
    assert (await failed(work, place)).reason == reason


@pytest.mark.parametrize(
    ("model", "reason", "told"),
    [
        ({"weights": np.arange(3.0)}, Reason.UNSUPPORTED, "has no method predict"),
        (models.unfitted(), Reason.ARTIFACT_INVALID, "must be fitted"),
        (Misbehaving("load"), Reason.LOAD_FAILED, "killed by SIGSEGV"),
        (Misbehaving("raise"), Reason.LOAD_FAILED, "RuntimeError: no luck today"),
        (Misbehaving("predict"), Reason.WARMUP_FAILED, "RuntimeError: no luck today"),
        (Misbehaving("import"), Reason.ENVIRONMENT_MISSING, "-m pip install no_such_package"),
    ],
)
async def test_a_model_that_cannot_be_run_says_why(
    place: Place, monkeypatch: pytest.MonkeyPatch, model: object, reason: Reason, told: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(models.__file__).parent))
    models.write_joblib(model, Path(place.root) / "m.joblib")
    failure = await failed(PrepareWork(uri="m.joblib", trust="pickle", format="joblib"), place)
    assert failure.reason == reason, failure.message
    assert told in failure.message
    assert "Traceback" not in failure.message


async def test_without_scikit_learn_the_command_to_install_it_is_told(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hidden" / "sklearn").mkdir(parents=True)
    (tmp_path / "hidden" / "sklearn" / "__init__.py").write_text("raise ModuleNotFoundError('gone', name='sklearn')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hidden"))
    models.write_skops(models.logistic_regression(), Path(place.root) / "lr.skops")
    failure = await failed(PrepareWork(uri="lr.skops"), place)
    assert failure.reason == Reason.ENVIRONMENT_MISSING
    assert "pip install scikit-learn skops" in failure.message


def _prepare(place: Place, work: bytes) -> subprocess.CompletedProcess[str]:
    Path(place.work).write_bytes(work)
    return subprocess.run(
        [sys.executable, "-m", "modelyard.runtime.prepare"],
        env={**os.environ, **place.environment()},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_program_leaves_a_report_whether_it_succeeds_or_fails(place: Place) -> None:
    models.write_onnx(Path(place.root) / "times.onnx")
    for uri, reason in (("times.onnx", None), ("other.onnx", Reason.ARTIFACT_NOT_FOUND)):
        ended = _prepare(place, works.encode(WorkSpec(prepare=PrepareWork(uri=uri))))
        assert ended.returncode == 0, ended.stderr
        report = reports.decode(Path(place.report).read_bytes())
        assert (report.failure.reason if report.failure else None) == reason
        assert "Traceback" not in ended.stderr


def test_the_program_without_work_says_so(place: Place) -> None:
    ended = _prepare(place, b"{}")
    assert ended.returncode == 2
    assert "WorkSpec" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not Path(place.report).exists()

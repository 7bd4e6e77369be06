import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

import modelyard.cli as cli
from modelyard.base.errors import RetryLater, UserError
from modelyard.cli import faults, logs, main, waiting, words
from modelyard.cli.logs import Wanted
from modelyard.control.kube.client import ApiError

COMMANDS = [
    "apply", "delete", "describe", "get", "install", "kubeconfig", "logs", "predict", "refresh", "restart", "resume",
    "suspend", "token", "uninstall", "validate", "version", "why",
]  # fmt: skip
FIRST_WORDS = {"kubeconfig": "kubectl", "token": "curl"}


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Makes `modelyard version` end with it."""

    @click.command()
    def command() -> None:
        raise error

    module = ModuleType("stand_in")
    module.command = command  # type: ignore[attr-defined]
    monkeypatch.setattr(cli, "import_module", lambda _name: module)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"Example: {FIRST_WORDS.get(name, 'modelyard')}" in capsys.readouterr().out
    assert isinstance(importlib.import_module(f"modelyard.cli.{name}").command, click.Command)


def test_help_imports_no_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "import_module", lambda name: pytest.fail(f"{name} was imported"))
    assert main(["--help"]) == 0
    assert "refresh" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (UserError("do this"), 1, "error: do this\n"),
        (RetryLater("not now"), 3, "error: not now\n"),
        (ApiError(403, "Forbidden", "no"), 1, "error: no\n"),
        (ApiError(503, "", "busy"), 3, "error: busy\n"),
        (ApiError(429, "", "slowly"), 3, "error: slowly\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_a_failure_is_a_sentence_and_a_status(
    error: BaseException,
    status: int,
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing(monkeypatch, error)
    assert main(["version"]) == status
    assert capsys.readouterr().err.lstrip("\n") == told


def test_a_defect_shows_its_traceback_only_when_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, ZeroDivisionError("oops"))
    assert main(["version"]) == 1
    found = capsys.readouterr().err
    assert "a defect of Modelyard: ZeroDivisionError: oops" in found
    assert "Traceback" not in found
    assert main(["--debug", "version"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_wrong_usage_has_a_status_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["nonsense"], ["get"], ["predict", "x"], ["delete"], ["apply"]):
        assert main(arguments) == 2
        error, usage = capsys.readouterr().err.splitlines()
        assert error.startswith("error: ")
        assert usage.startswith("usage: modelyard ")


def test_a_misspelled_command_or_kind_names_the_close_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["appl", "-f", "x.yaml"]) == 2
    assert "there is no command 'appl'; did you mean apply?" in capsys.readouterr().err
    with pytest.raises(UserError, match="there is no kind 'servics'; did you mean modelservices"):
        words.kind("servics")


def test_apply_without_its_option_shows_how_it_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["apply"], ["apply", "service.yaml"]):
        assert main(arguments) == 2
        assert "name the manifest with -f, as in 'modelyard apply -f service.yaml'" in capsys.readouterr().err


def test_one_cause_of_several_failures_is_read_once() -> None:
    model = "Model a is not Ready: DigestMismatch: a.onnx is sha256:1\n  'modelyard why a' says what to do"
    service = "ModelService b is not Ready: DigestMismatch: Model a: a.onnx is sha256:1\n  'modelyard why b'"
    other = "ModelService c is not Ready: Crashed: c-svc-00001: exited with status 1"
    assert waiting.each_once([model, service, other]) == [
        model,
        "ModelService b is not Ready for the same reason",
        other,
    ]


def test_listing_needs_no_types() -> None:
    code = "import sys, modelyard.cli.get, modelyard.cli.why; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_faults_are_told_with_file_and_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "bad.yaml"
    manifest.write_text(
        "apiVersion: modelyard.dev/v1alpha1\n"
        "kind: ModelService\n"
        "metadata: {name: a}\n"
        "spec:\n"
        "  model:\n"
        "    name: m\n"
        "  replica: 2\n"
        "---\n"
        "apiVersion: modelyard.dev/v1alpha1\n"
        "kind: Model\n"
        "metadata: {name: m}\n"
        "spec: {uri: 7}\n"
    )
    assert main(["validate", str(manifest)]) == 1
    told = capsys.readouterr().err
    assert f"{manifest}:7: ModelService a: spec.replica: unknown field" in told
    assert f"{manifest}:12: Model m: spec.uri: " in told


def test_what_no_schema_can_say_about_a_stream_is_told_before_it_is_applied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "stream.yaml"
    manifest.write_text(
        "apiVersion: modelyard.dev/v1alpha1\n"
        "kind: ModelStream\n"
        "metadata: {name: fraud}\n"
        "spec:\n"
        "  model: {name: fraud}\n"
        "  source:\n"
        "    uri: nats://local\n"
        "    stream: payments\n"
        "    subjects:\n"
        "    - payments.in.*.>\n"
        "    - payments.out.1\n"
        "  sink: {uri: 'nats://local', stream: scored, subject: payments.scored}\n"
        "  partitions: 2\n"
        "  key: {token: 3}\n"
    )
    assert main(["validate", str(manifest)]) == 1
    told = capsys.readouterr().err
    assert f"{manifest}:11: ModelStream fraud: spec.source.subjects[1]: token 3 of payments.out.1 must be *" in told


def test_one_object_declared_twice_is_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "apiVersion: modelyard.dev/v1alpha1\nkind: Model\nmetadata: {name: m}\nspec: {uri: x}\n"
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(text)
    assert main(["validate", str(tmp_path)]) == 1
    assert f"b.yaml:1: Model m is declared already at {tmp_path}/a.yaml:1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "line"),
    [("spec.env[1].name", 5), ("spec.env[7].name", 3), ("nowhere.at.all", 1), ("", 1), ("spec", 2), ("a.b[c].d", 1)],
)
def test_a_field_is_found_or_else_its_nearest_parent(path: str, line: int) -> None:
    assert faults.line_of("kind: X\nspec:\n  env:\n  - name: a\n  - name: b\n", 1, path) == line


def test_logs_are_those_of_the_newest_revision() -> None:
    names = [
        "digits-svc-00002.default-1.log",
        "digits-svc-00002.default-0.log",
        "digits-svc-00001.default-0.log",
        "digits-svc-00003.team-0.log",
        "other-svc-00009.default-0.log",
        "forest-prepare-0a1b2c3d-1.default.log",
        "digits-0a1b2c3d-model-prepare-0a1b2c3d-1.default.log",
        "envoy.log",
    ]
    files = dict.fromkeys(names, 0.0)
    newest = ["digits-svc-00002.default-0.log", "digits-svc-00002.default-1.log"]
    assert logs.select(files, Wanted("digits")) == newest
    assert logs.select(files, Wanted("digits", revision="digits-svc-00001")) == ["digits-svc-00001.default-0.log"]
    assert logs.select(files, Wanted("digits", "team")) == ["digits-svc-00003.team-0.log"]
    assert logs.select(files, Wanted("forest")) == ["forest-prepare-0a1b2c3d-1.default.log"]
    inline = "digits-0a1b2c3d-model-prepare-0a1b2c3d-1.default.log"
    assert logs.select(dict.fromkeys(names[6:], 0.0), Wanted("digits")) == [inline]
    assert logs.select(files, Wanted("dig")) == []


def test_logs_of_a_job_are_those_of_the_one_that_wrote_last() -> None:
    files = {
        "score-job-11111111.default-0.log": 1.0,
        "score-job-11111111.default-1.log": 5.0,
        "score-job-22222222.default-10.log": 9.0,
        "score-job-22222222.default-2.log": 2.0,
        "score-job-33333333.team-0.log": 99.0,
        "score-svc-00001.default-0.log": 0.0,
        "score-prepare-0a1b2c3d-1.default.log": 0.0,
        "other-score-job-44444444.default-0.log": 99.0,
    }
    newest = ["score-job-22222222.default-2.log", "score-job-22222222.default-10.log"]
    assert logs.select(files, Wanted("score", source="runners")) == newest
    assert logs.select(files, Wanted("score")) == ["score-svc-00001.default-0.log"]
    assert logs.select(files, Wanted("score", source="reading")) == ["score-prepare-0a1b2c3d-1.default.log"]
    del files["score-svc-00001.default-0.log"]
    assert logs.select(files, Wanted("score")) == newest


def test_logs_of_a_stream_are_those_of_its_newest_revision() -> None:
    names = [
        "fraud-stream-00001.default-0.log",
        "fraud-stream-00010.default-1.log",
        "fraud-stream-00010.default-0.log",
        "fraud-stream-00011.team-0.log",
        "fraud-clean-0a1b2c3d-1.default.log",
        "fraud-stream-0a1b2c3d-model-prepare-0a1b2c3d-1.default.log",
        "fraud-svc-00001.default-0.log",
    ]
    files = dict.fromkeys(names, 0.0)
    newest = ["fraud-stream-00010.default-0.log", "fraud-stream-00010.default-1.log"]
    assert logs.select(files, Wanted("fraud", source="streams")) == newest
    assert logs.select(files, Wanted("fraud")) == ["fraud-svc-00001.default-0.log"]
    del files["fraud-svc-00001.default-0.log"]
    assert logs.select(files, Wanted("fraud")) == newest
    assert logs.select(files, Wanted("fraud", revision="fraud-stream-00001")) == ["fraud-stream-00001.default-0.log"]
    inline = dict.fromkeys(names[4:6], 0.0)
    assert logs.select(inline, Wanted("fraud")) == [names[5]]
    assert logs.select(inline, Wanted("fraud", source="streams")) == [names[5]]
    assert logs.select(inline, Wanted("fraud", source="replicas")) == []


def test_logs_are_shown_with_the_name_of_their_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".modelyard" / "logs"
    folder.mkdir(parents=True)
    (folder.parent / "kubeconfig").touch()
    (folder / "a-svc-00001.default-0.log").write_text("one\ntwo\nthree\n")
    monkeypatch.chdir(tmp_path)
    assert main(["logs", "a", "--tail", "2"]) == 0
    assert capsys.readouterr().out == "two\nthree\n"
    (folder / "a-svc-00001.default-1.log").write_bytes(b"\xff\n")
    assert main(["logs", "a", "--tail", "1"]) == 0
    assert capsys.readouterr().out == "a-svc-00001.default-0  three\na-svc-00001.default-1  \ufffd\n"
    assert main(["logs", "b"]) == 1
    assert "modelyard why b" in capsys.readouterr().err


def test_followed_logs_go_on_when_the_file_is_rotated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.log"
    path.write_text("one\n")
    file = logs.File(path, "")
    file.start(None)
    assert not file.more()
    with path.open("a") as source:
        source.write("two\nthr")
        source.flush()
        assert file.more()
        source.write("ee\n")
        source.flush()
        assert file.more()
    path.rename(tmp_path / "x.log.1")
    path.write_text("four\n")
    while file.more():
        pass
    file.close()
    assert capsys.readouterr().out.split() == ["one", "two", "three", "four"]
    again = logs.File(path, "")
    again.start(2)
    again.close()
    assert capsys.readouterr().out.split() == ["three", "four"]


@pytest.mark.parametrize(("text", "seconds"), [("15", 15.0), ("0.5", 0.5), ("60s", 60.0), ("1m30s", 90.0)])
def test_timeouts_are_seconds_or_durations(text: str, seconds: float) -> None:
    assert waiting.seconds(None, None, text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 m", "nan", "-"])
def test_other_timeouts_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="neither a number of seconds nor a duration"):
        waiting.seconds(None, None, text)

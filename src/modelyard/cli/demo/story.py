"""The steps of the demonstration. Each runs the command that a person would type, and prints it."""

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pyarrow.dataset as ds

import modelyard
from modelyard.base.errors import UserError
from modelyard.cli.demo.load import Load, send_all
from modelyard.cli.demo.screen import Screen

_MODELYARD = (sys.executable, "-m", "modelyard")
_START_SECONDS = 60.0
_LEAST_ACCURACY = 0.9
_HELD_OUT = 450


def run(screen: Screen) -> None:
    """Raise UserError at the first step that does not do what it should."""
    example = _example("01-first-service")
    with tempfile.TemporaryDirectory(prefix="modelyard-demo-") as name:
        folder = Path(name)
        for each in ("models.yaml", "service.yaml"):
            shutil.copy(example / each, folder)
        screen.step("Train two classifiers of handwritten digits on 1,347 images; 450 are held out")
        _command(screen, [sys.executable, str(example / "train.py"), str(folder)], folder, shown="python train.py")
        with _server(screen, folder) as (server, url):
            _serve(screen, folder, url)
            _switch(screen, folder, url)
            _look(screen, folder)
            _jobs(screen, folder)
            _stream(screen, folder)
            _break(screen, folder)
            everyone = [server, *server.children(recursive=True)]
            _stop(screen, server, everyone)


def _example(name: str) -> Path:
    """In a checkout beside the source, in an installation inside the package."""
    package = Path(modelyard.__file__).parent
    for base in (package.parents[1], package):
        folder = base / "examples" / name
        if folder.is_dir():
            return folder
    raise UserError(f"the example {name} is not in this installation: install Modelyard again")


@contextmanager
def _server(screen: Screen, folder: Path) -> Iterator[tuple[psutil.Process, str]]:
    screen.step("Start Modelyard: an API server, the control loop and Envoy on this machine")
    command = [*_MODELYARD, "up", ".", "--listen", "127.0.0.1:0"]
    screen.command("modelyard up . &")
    log = folder / "up.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT)
    try:
        url = _wait_for_url(process, log)
        screen.say(f"the gateway listens at {url}")
        yield psutil.Process(process.pid), url
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for_url(process: "subprocess.Popen[bytes]", log: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            words = line.split()
            if words[:1] == ["gateway"]:
                return words[1]
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise UserError(f"'modelyard up' did not start:\n{log.read_text().strip()}")


def _serve(screen: Screen, folder: Path, url: str) -> None:
    screen.step("Declare both models and a service with two replicas; wait until it answers")
    _modelyard(screen, folder, "apply", "-f", "models.yaml", "-f", "service.yaml", "--wait")
    screen.step("Send every held-out image through the gateway, one request each")
    screen.say(_ask_all(folder, url))


def _ask_all(folder: Path, url: str) -> str:
    heldout = np.load(folder / "heldout.npz")
    result = send_all(url, "digits", heldout["images"])
    accuracy = float((result.labels == heldout["labels"]).mean())
    if accuracy < _LEAST_ACCURACY:
        raise UserError(f"an accuracy of {accuracy:.1%} is too low: the answers are wrong")
    return (
        f"{len(result.labels)} requests, accuracy {accuracy:.1%}, "
        f"p50 {result.percentile(50):.2f} ms, p99 {result.percentile(99):.2f} ms"
    )


def _switch(screen: Screen, folder: Path, url: str) -> None:
    screen.step("Switch the service from the forest (ONNX) to the regression (scikit-learn) under continuous load")
    service = folder / "service.yaml"
    service.write_text(service.read_text().replace("name: digits-forest", "name: digits-regression"))
    images = np.load(folder / "heldout.npz")["images"]
    with Load(url, "digits", images) as load:
        load.wait_for(200)
        screen.command("sed -i 's/name: digits-forest/name: digits-regression/' service.yaml")
        _modelyard(screen, folder, "apply", "-f", "service.yaml", "--wait")
        load.wait_for(load.sent + 200)
    screen.say(f"{load.sent} requests during the switch, {len(load.failures)} failed")
    if load.failures:
        raise UserError(f"requests failed during the switch: {load.failures[0]}")
    screen.say(f"the regression now: {_ask_all(folder, url)}")


def _look(screen: Screen, folder: Path) -> None:
    screen.step("Look at it with the tools of Kubernetes")
    if shutil.which("kubectl"):
        kubeconfig = str(folder / ".modelyard" / "kubeconfig")
        _command(
            screen,
            ["kubectl", "--kubeconfig", kubeconfig, "get", "modelyard"],
            folder,
            shown="kubectl --kubeconfig .modelyard/kubeconfig get modelyard",
        )
    else:
        screen.say("kubectl is not installed here; 'modelyard get' shows the same")
        _modelyard(screen, folder, "get", "modelyard")


def _jobs(screen: Screen, folder: Path) -> None:
    screen.step("Run jobs: prepare data, train a model in a program, score the held-out images with it")
    shutil.copytree(_example("02-jobs"), folder / "jobs", ignore=shutil.ignore_patterns("data", ".modelyard"))
    for name in ("etl", "train", "score"):
        _modelyard(screen, folder, "apply", "-f", f"jobs/{name}.yaml", "--watch")
    scored = ds.dataset(folder / "jobs/data/scored", format="parquet").to_table()
    labels, found = (scored[name].to_numpy() for name in ("label", "label_1"))
    accuracy = float((labels == found).mean())
    if len(labels) != _HELD_OUT or accuracy < _LEAST_ACCURACY:
        raise UserError(f"the job scored {len(labels)} images with an accuracy of {accuracy:.1%}: that is wrong")
    screen.say(f"{len(labels)} scored images lie in jobs/data/scored, accuracy {accuracy:.1%}; each is there once")


def _stream(screen: Screen, folder: Path) -> None:
    screen.step("Score a stream: patients that nobody trained on come in at a broker, and each is scored exactly once")
    streams = folder / "streams"
    ignored = shutil.ignore_patterns(".modelyard", "model.onnx", "patients.jsonl")
    shutil.copytree(_example("03-streams"), streams, ignore=ignored)
    _command(screen, [sys.executable, "train.py", "."], streams, shown="python train.py")
    _modelyard(screen, folder, "apply", "-f", "streams/stream.yaml", "--wait")
    _command(screen, [sys.executable, "replay.py", "4", "300"], streams, shown="python replay.py 4 300")
    _modelyard(screen, folder, "get", "modelstreams")


def _break(screen: Screen, folder: Path) -> None:
    screen.step("Break a model on purpose: half a file")
    whole = (folder / "models" / "forest.onnx").read_bytes()
    (folder / "models" / "broken.onnx").write_bytes(whole[: len(whole) // 2])
    (folder / "broken.yaml").write_text(
        "apiVersion: modelyard.dev/v1alpha1\nkind: ModelService\nmetadata: {name: broken}\n"
        "spec: {model: {uri: models/broken.onnx}}\n"
    )
    _modelyard(screen, folder, "apply", "-f", "broken.yaml")
    deadline = time.monotonic() + 30
    while "ArtifactInvalid" not in (told := _quietly(folder, "why", "broken")):
        if time.monotonic() > deadline:
            raise UserError(f"'modelyard why broken' does not say what is wrong:\n{told}")
        time.sleep(0.2)
    screen.command("modelyard why broken")
    screen.output(told)


def _stop(screen: Screen, server: psutil.Process, everyone: list[psutil.Process]) -> None:
    screen.step("Stop")
    screen.command("kill -INT %1  # Ctrl-C")
    server.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs(everyone, timeout=20)
    alive = [each for each in alive if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    if alive:
        names = ", ".join(f"{each.pid} {each.name()}" for each in alive)
        raise UserError(f"these processes were left running: {names}")
    screen.say(f"all {len(everyone)} processes that it had started are gone")


def _modelyard(screen: Screen, folder: Path, *arguments: str) -> None:
    _command(screen, [*_MODELYARD, *arguments], folder, shown=f"modelyard {' '.join(arguments)}")


def _command(screen: Screen, command: list[str], folder: Path, *, shown: str) -> None:
    screen.command(shown)
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    screen.output(done.stdout)
    if done.returncode:
        raise UserError(f"{shown!r} ended with status {done.returncode}")


def _quietly(folder: Path, *arguments: str) -> str:
    done = subprocess.run([*_MODELYARD, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr

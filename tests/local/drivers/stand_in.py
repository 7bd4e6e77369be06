"""Stands in for the runtime half: plain Python that does what the variable LEVER says.

Serves as `stand_in.py serve`, prepares as `stand_in.py prepare`. Levers may be combined with spaces.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

LEVERS = dict(word.partition("=")[::2] for word in os.environ.get("LEVER", "").split())
CHILD = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
over = threading.Event()


def report(**body: object) -> None:
    path = os.environ["MODELYARD_REPORT"]
    with open(path + ".new", "w") as file:
        json.dump({"version": 1, **body}, file)
    os.replace(path + ".new", path)


def fork(name: str, *, own_session: bool) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD], start_new_session=own_session)
    (Path(os.environ["NOTES"]) / name).write_text(str(child.pid))


def note() -> None:
    notes = os.environ.get("NOTES")
    if notes:
        (Path(notes) / "environment.json").write_text(json.dumps(dict(os.environ)))
        (Path(notes) / "work.json").write_text(Path(os.environ["MODELYARD_WORK"]).read_text())
    if "child" in LEVERS:
        fork("child", own_session=False)
    if "far-child" in LEVERS:
        fork("far-child", own_session=True)


def act() -> None:
    if "say" in LEVERS:
        print(f"about to {LEVERS['say']}", flush=True)
    if "flood" in LEVERS:
        for number in range(int(LEVERS["flood"])):
            print(f"{number:>99}")
        sys.stdout.flush()
    if "exit" in LEVERS:
        sys.exit(int(LEVERS["exit"]))
    if "failure" in LEVERS:
        report(failure={"reason": LEVERS["failure"], "message": "the file ends after 12 bytes", "retry": False})
        sys.exit(4)
    if "hungry" in LEVERS:
        eaten = [os.urandom(2**20) for _ in range(int(LEVERS["hungry"]))]
        time.sleep(600)
        print(len(eaten))
    if "garbage" in LEVERS:
        Path(os.environ["MODELYARD_REPORT"]).write_bytes(b"\xff not json")
    if "fifo" in LEVERS:
        os.mkfifo(os.environ["MODELYARD_REPORT"])
    if {"hang", "garbage", "fifo"} & LEVERS.keys():
        time.sleep(600)


def serve() -> None:
    signal.signal(signal.SIGTERM, lambda *_: None if "stubborn" in LEVERS else over.set())
    note()
    act()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.environ["MODELYARD_SOCKET"])
    listener.listen()
    report(serve={"ready": True, "models": ["iris.default"]})
    while not over.wait(0.02):
        pass
    time.sleep(float(LEVERS.get("drain", 0)))
    listener.close()


def prepare() -> None:
    note()
    act()
    if "silent" not in LEVERS:
        time.sleep(float(LEVERS.get("take", 0)))
        report(prepare={"digest": "sha256:" + "0" * 64, "format": "onnx", "sizeBytes": 12})


if __name__ == "__main__":
    {"serve": serve, "prepare": prepare}[sys.argv[1]]()

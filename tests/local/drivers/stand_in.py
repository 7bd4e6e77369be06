"""Stands in for the runtime half: plain Python that does what the variable LEVER says.

Serves as `stand_in.py serve`, prepares as `stand_in.py prepare`, is a member of a job as `stand_in.py job`, follows a
stream, or cleans up after one, as `stand_in.py stream`. Levers may be combined with spaces; `2:word` is said to member
2 alone.
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

INDEX = os.environ.get("MODELYARD_INDEX", "0")
SAID = [word.rpartition(":") for word in os.environ.get("LEVER", "").split()]
LEVERS = dict(word.partition("=")[::2] for to, _, word in SAID if to in ("", INDEX))
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
        (Path(notes) / f"environment-{INDEX}.json").write_text(json.dumps(dict(os.environ)))
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
    if "copies" in LEVERS and not over.wait(0.2):
        report(serve={"ready": True, "models": ["iris.default"], "shadow": {"compared": 7}})
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


def stumble() -> None:
    try:
        (Path(os.environ["MODELYARD_ROOT"]) / f"once-{LEVERS['once']}").touch(exist_ok=False)
    except FileExistsError:
        return
    sys.exit(3)


def job() -> None:
    signal.signal(signal.SIGTERM, lambda *_: None if "stubborn" in LEVERS else over.set())
    note()
    act()
    if "once" in LEVERS:
        stumble()
    if "fatal" in LEVERS:
        report(failure={"reason": LEVERS["fatal"], "message": "line 7 is damaged"})
        time.sleep(600 if "linger" in LEVERS else 0)
        sys.exit(42)
    if "retry" in LEVERS:
        report(failure={"reason": LEVERS["retry"], "message": "the store does not answer", "retry": True})
        sys.exit(4)
    if "silent" in LEVERS:
        return
    if "progress" in LEVERS:
        time.sleep(0.2)
        report(job={"run": 1, "shards": 4, "committed": 1})
    done_at = time.monotonic() + float(LEVERS["done"] or 0) if "done" in LEVERS else None
    said = 0
    while not over.wait(0.02):
        if "chatty" in LEVERS:
            said += 1
            report(job={"run": 1, "rows": said})
        if done_at is not None and time.monotonic() >= done_at:
            report(job={"run": 1, "done": True, "shards": 4, "committed": 4, "note": f"by member {INDEX}"})
            return
    time.sleep(float(LEVERS.get("drain", 0)))
    sys.exit(1)


def clean() -> None:
    time.sleep(float(LEVERS.get("take", 0)))
    report(clean={"done": True})


def stream() -> None:
    signal.signal(signal.SIGTERM, lambda *_: None if "stubborn" in LEVERS else over.set())
    note()
    act()
    if "clean" in json.loads(Path(os.environ["MODELYARD_WORK"]).read_text()):
        clean()
        return
    if "away" in LEVERS:
        report(stream={"problem": {"reason": "BrokerUnreachable", "message": "nobody listens there", "retry": True}})
    else:
        report(stream={"ready": "waits" not in LEVERS, "connected": True})
    began, said = time.monotonic(), 0
    while not over.wait(0.02):
        if "chatty" in LEVERS:
            said += 1
            report(stream={"ready": "waits" not in LEVERS, "records": said})
        if time.monotonic() - began < 0.2:
            continue
        if LEVERS.pop("progress", None) is not None:
            report(stream={"ready": True, "connected": True, "records": 7})
        if "later" in LEVERS:
            report(failure={"reason": LEVERS["later"], "message": "record 7 cannot be scored"})
            time.sleep(600 if "linger" in LEVERS else 0)
            sys.exit(4)
        if "spoil" in LEVERS:
            Path(os.environ["MODELYARD_REPORT"]).write_bytes(b"\xff not json")
    time.sleep(float(LEVERS.get("drain", 0)))


if __name__ == "__main__":
    {"serve": serve, "prepare": prepare, "job": job, "stream": stream}[sys.argv[1]]()

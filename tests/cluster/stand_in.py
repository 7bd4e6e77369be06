"""Stands in for the runtime half in pods: plain Python that does what the variable LEVER says.

It is `modelyard.runtime.<front|fetch|prepare|jobs|streams>` of an image of its own, and the last word of the module is
its part. Levers may be combined with spaces; `2:word` is said to member 2 alone.
"""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

INDEX = os.environ.get("MODELYARD_INDEX", "0")
SAID = [word.rpartition(":") for word in os.environ.get("LEVER", "").split()]
LEVERS = dict(word.partition("=")[::2] for to, _, word in SAID if to in ("", INDEX))
over = threading.Event()
told = {"report": b""}


def report(*, final: bool = False, **body: object) -> None:
    told["report"] = json.dumps({"version": 1, **body}).encode()
    if final:
        with open(os.environ["MODELYARD_TERMINATION"], "wb") as file:
            file.write(told["report"])


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/report":
            self._say(200 if told["report"] else 404, told["report"])
        elif self.path == "/work":
            with open(os.environ["MODELYARD_WORK"], "rb") as file:
                self._say(200, file.read())
        elif self.path == "/environment":
            self._say(200, json.dumps(dict(os.environ)).encode())
        else:
            self._say(503 if self.path == "/v2/health/ready" and "unready" in LEVERS else 200, b"{}")

    def _say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def listen(address: str) -> None:
    host, _, port = address.rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def act() -> None:
    if "say" in LEVERS:
        print(f"about to {LEVERS['say']}", flush=True)
    if "exit" in LEVERS:
        sys.exit(int(LEVERS["exit"]))
    if "failure" in LEVERS:
        report(failure={"reason": LEVERS["failure"], "message": "the file ends after 12 bytes"}, final=True)
        sys.exit(3)
    if "hungry" in LEVERS:
        eaten = [os.urandom(2**20) for _ in range(int(LEVERS["hungry"]))]
        print(len(eaten))
    if "hang" in LEVERS:
        over.wait()


def front() -> None:
    act()
    listen(os.environ["MODELYARD_LISTEN"])
    over.wait()
    time.sleep(float(LEVERS.get("drain", 0)))


def fetch() -> None:
    if "MODELYARD_PROGRAM" in os.environ:
        os.mkdir(os.environ["MODELYARD_PROGRAM"] + "/output")
    if "unfetched" in LEVERS:
        report(failure={"reason": LEVERS["unfetched"], "message": "the store has another artifact"}, final=True)
        sys.exit(1)


def prepare() -> None:
    act()
    time.sleep(float(LEVERS.get("take", 0)))
    report(prepare={"digest": "sha256:" + "0" * 64, "format": "onnx", "sizeBytes": 12}, final=True)


def jobs() -> None:
    if "MODELYARD_REPORT_LISTEN" in os.environ:
        listen(os.environ["MODELYARD_REPORT_LISTEN"])
    act()
    if int(os.environ.get("MODELYARD_ATTEMPT", "1")) < int(LEVERS.get("from", "1")):
        sys.exit(7)
    if "MODELYARD_PROGRAM" in os.environ:
        with open(os.environ["MODELYARD_PROGRAM"] + "/output/said") as file:
            report(job={"run": 1, "done": True, "note": file.read()}, final=True)
        return
    if "fatal" in LEVERS:
        report(failure={"reason": LEVERS["fatal"], "message": "line 7 is damaged"}, final=True)
        sys.exit(3)
    if "retry" in LEVERS:
        told = {"reason": LEVERS["retry"], "message": "the store does not answer", "retry": True}
        report(failure=told, final=True)
        sys.exit(4)
    if "progress" in LEVERS:
        report(job={"run": 1, "shards": 4, "committed": 1})
    done_at = time.monotonic() + float(LEVERS["done"] or 0) if "done" in LEVERS else None
    while not over.wait(0.05):
        if done_at is not None and time.monotonic() >= done_at:
            report(job={"run": 1, "done": True, "shards": 4, "committed": 4, "note": f"by {INDEX}"}, final=True)
            return
    time.sleep(float(LEVERS.get("drain", 0)))
    sys.exit(143)


def progress() -> None:
    listen(os.environ["MODELYARD_REPORT_LISTEN"])
    while not over.wait(0.05):
        try:
            with open(os.environ["MODELYARD_PROGRAM"] + "/progress.json") as file:
                report(job={"percent": json.load(file)["progressPercentage"], "note": "running"})
        except FileNotFoundError:
            pass


def streams() -> None:
    act()
    with open(os.environ["MODELYARD_WORK"], "rb") as file:
        cleans = "clean" in json.load(file)
    if cleans:
        report(clean={"done": True}, final=True)
        return
    listen(os.environ["MODELYARD_REPORT_LISTEN"])
    if "away" in LEVERS:
        report(stream={"problem": {"reason": "BrokerUnreachable", "message": "nobody listens there", "retry": True}})
    else:
        records = 0 if "progress" in LEVERS else 7
        report(stream={"ready": "waits" not in LEVERS, "connected": True, "records": records})
    if "progress" in LEVERS and not over.wait(float(LEVERS["progress"] or 3)):  # longer than somebody who asks waits
        report(stream={"ready": True, "connected": True, "records": 7})
    over.wait()
    time.sleep(float(LEVERS.get("drain", 0)))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: None if "stubborn" in LEVERS else over.set())
    status = 0
    try:
        globals()[os.path.basename(__file__).removesuffix(".py")]()
    except SystemExit as end:
        status = int(end.code or 0)
    sys.stdout.flush()
    os._exit(status)  # threads that still answer are not waited for: that may crash the interpreter

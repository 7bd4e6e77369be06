"""A server on loopback that answers like a gateway, or as it is told to."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Object = dict[str, Any]
DIGITS: Object = {
    "name": "digits",
    "inputs": [{"name": "X", "datatype": "FP64", "shape": [-1, 2]}],
    "outputs": [
        {"name": "label", "datatype": "INT64", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP64", "shape": [-1, 2]},
    ],
}
DOUBLE: Object = {
    "name": "double",
    "inputs": [{"name": "x", "datatype": "INT32", "shape": [-1]}],
    "outputs": [{"name": "y", "datatype": "INT32", "shape": [-1]}],
}


class Gateway:
    """models: metadata by name. script: (status, headers, body) for the next requests to infer, before it answers.

    token: what callers must bear. borne: the header Authorization of each request.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.models = {"digits": DIGITS, "double": DOUBLE}
        self.script: list[tuple[int, dict[str, str], bytes]] = []
        self.requests: list[tuple[str, str, bytes]] = []
        self.connections = 0
        self.hang_up = False
        self.token = ""
        self.borne: list[str | None] = []

    def answer(
        self, method: str, path: str, body: bytes, bearer: str | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        self.requests.append((method, path, body))
        self.borne.append(bearer)
        if self.token and bearer != f"Bearer {self.token}":
            return 401, {"WWW-Authenticate": "Bearer"}, b'{"error":"a token is needed"}'
        _, _, _, name, *rest = path.split("/")
        model = self.models.get(name)
        if model is None:
            return 404, {}, json.dumps({"error": f"there is no model {name}"}).encode()
        if rest == ["infer"]:
            if self.script:
                return self.script.pop(0)
            return 200, {}, json.dumps(infer(model, json.loads(body))).encode()
        if rest == ["ready"]:
            return (self.script.pop(0)) if self.script else (200, {}, b'{"ready":true}')
        return 200, {}, json.dumps(model).encode()


def infer(model: Object, request: Object) -> Object:
    given = request["inputs"][0]
    rows = given["shape"][0]
    if model["name"] == "double":
        data = [2 * value for value in given["data"]]
        return {"outputs": [{"name": "y", "datatype": "INT32", "shape": [rows], "data": data}]}
    labels = [int(value) for value in given["data"][::2]]
    return {
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [rows], "data": labels},
            {"name": "probabilities", "datatype": "FP64", "shape": [rows, 2], "data": [[0.25, 0.75]] * rows},
        ]
    }


@contextmanager
def gateway(tls: ssl.SSLContext | None = None) -> Iterator[Gateway]:
    """Until left. Its sockets are closed then."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10

        def setup(self) -> None:
            super().setup()
            found.connections += 1

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, answer = found.answer(self.command, self.path, body, self.headers["Authorization"])
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(answer))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)
            if found.hang_up:
                self.close_connection = True  # without a word, as a server that is restarted

        def log_message(self, *_arguments: object) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    found = Gateway(f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

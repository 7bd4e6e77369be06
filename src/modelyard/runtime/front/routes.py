"""Which path does what. Source: Open Inference Protocol V2, REST (and Prometheus' `/metrics`); gRPC is in `calls`."""

import logging
from collections.abc import Callable, Sequence

import msgspec

import modelyard
from modelyard.runtime.backends.port import Tensors
from modelyard.runtime.front import inference, metrics, tensors
from modelyard.runtime.front.calls import Calls
from modelyard.runtime.front.exchange import Exchange
from modelyard.runtime.front.http import LIVE, METRICS, READY
from modelyard.runtime.front.models import HostedModel
from modelyard.runtime.front.shadow import Comparisons, Off
from modelyard.wire import oip

_log = logging.getLogger(__name__)

_METRICS = b"text/plain; version=0.0.4; charset=utf-8"

Handle = Callable[[Exchange], None]


class Routes:
    """Every path of the server, built once, so that a request costs one look into a dict.

    ready: False while the process ends: health says not ready, and requests are answered all the same. comparisons: of
    copies of requests.
    """

    def __init__(
        self, models: Sequence[HostedModel], ready: Callable[[], bool], comparisons: Comparisons | None = None
    ) -> None:
        self._ready = ready
        self._comparisons = comparisons or Off()
        self._models = models
        self._ids: dict[str, str] = {}
        self._get: dict[bytes, Handle] = {}
        self._post: dict[bytes, Handle] = {}
        server = msgspec.json.encode(
            {"name": "modelyard", "version": modelyard.__version__, "extensions": []},
        )
        for path in (b"/v2", b"/v2/"):
            self._get[path] = lambda exchange: exchange.answer(200, server)
        self._get[LIVE] = lambda exchange: exchange.answer(200, b'{"live":true}')
        self._get[READY] = self._server_ready
        self._get[METRICS] = self._metrics
        names = {name: model for model in models for name in (model.work.name, *model.work.aliases)}
        for name, model in names.items():
            self._add(model, name)
        self._calls = Calls(names, ready)

    def _add(self, model: HostedModel, name: str) -> None:
        self._ids[name] = model.work.version
        version = model.work.version
        described = oip.encode_model_metadata(
            name, [version], model.work.format, model.signature.inputs, model.signature.outputs
        )
        for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{version}"):
            base = path.encode()
            self._get[base] = lambda exchange: exchange.answer(200, described)
            self._get[base + b"/ready"] = lambda exchange: self._model_ready(exchange, name)
            self._post[base + b"/infer"] = lambda exchange: self._infer(exchange, model, name)

    def respond(self, exchange: Exchange) -> None:
        """Answer now, or queue for a model; never raises."""
        try:
            self._route(exchange)
        except Exception:
            _log.exception("request %s failed in a way that it should not", exchange.name)
            if exchange.reply is None:
                exchange.refuse(500, "the server failed on this request; its log says why")

    def _route(self, exchange: Exchange) -> None:
        method = exchange.method
        handle = self._post.get(exchange.target) if method == b"POST" else None
        if handle is None and exchange.is_call:
            handle = self._calls.respond
        if handle is None:
            path = exchange.target.partition(b"?")[0]
            get, post = self._get.get(path), self._post.get(path)
            handle = {b"GET": get, b"HEAD": get, b"POST": post}.get(method)
            if handle is None:
                self._refuse(exchange, path, get is not None, post is not None)
                return
        handle(exchange)

    def _refuse(self, exchange: Exchange, path: bytes, get: bool, post: bool) -> None:
        text = path[:200].decode("utf-8", "replace")
        if get or post:
            allowed = "GET" if get else "POST"
            method = exchange.method.decode()
            exchange.refuse(405, f"{method} is not allowed for {text}; use {allowed}", allow=allowed.encode())
            return
        parts = text.split("/")
        if parts[:3] != ["", "v2", "models"] or len(parts) < 4:
            exchange.refuse(404, f"there is nothing at {text}; models are at /v2/models/NAME")
        elif parts[3] not in self._ids:
            exchange.refuse(404, f"model {parts[3]!r} is not served here")
        elif len(parts) > 5 and parts[4] == "versions" and parts[5] != self._ids[parts[3]]:
            exchange.refuse(404, f"model {parts[3]!r} has no version {parts[5]!r} here; it has {self._ids[parts[3]]!r}")
        else:
            exchange.refuse(404, f"there is nothing at {text}; a model has /infer, /ready and its metadata")

    def _server_ready(self, exchange: Exchange) -> None:
        if self._ready():
            exchange.answer(200, b'{"ready":true}')
        else:
            exchange.refuse(503, "the server is stopping", retry_after=inference.RETRY_SECONDS)

    def _model_ready(self, exchange: Exchange, name: str) -> None:
        if self._ready():
            exchange.answer(200, msgspec.json.encode({"name": name, "ready": True}))
        else:
            exchange.refuse(503, "the server is stopping", retry_after=inference.RETRY_SECONDS)

    def _metrics(self, exchange: Exchange) -> None:
        found = metrics.text((model.metrics for model in self._models), self._comparisons.totals)
        exchange.answer(200, found, kind=_METRICS)

    def _infer(self, exchange: Exchange, model: HostedModel, name: str) -> None:
        if exchange.compared_percent:
            self._comparisons.watch(exchange, model.work.name, name)
        infer(exchange, model, name)


def infer(exchange: Exchange, model: HostedModel, name: str) -> None:
    """Check the request against the signature and queue it; wrong ones are answered at once."""
    inference.begin(exchange, model, lambda: _read(exchange, model, name))


class _Inference(inference.Inference):
    """A request whose answer is JSON."""

    __slots__ = ("_id", "_name")

    def __init__(
        self,
        exchange: Exchange,
        model: HostedModel,
        inputs: Tensors,
        wanted: tuple[str, ...],
        name: str,
        request_id: str | None,
    ) -> None:
        super().__init__(exchange, model, inputs, wanted)
        self._name = name
        self._id = request_id

    def encode(self, outputs: Tensors) -> bytes:
        found = tensors.answer(outputs, self._wanted)
        return oip.encode_response(oip.InferResponse(self._name, self._model.work.version, found, self._id))


def _read(exchange: Exchange, model: HostedModel, name: str) -> _Inference:
    request = oip.decode_request(exchange.body)
    exchange.body = b""
    wanted = model.signature.select(request.outputs)
    return _Inference(exchange, model, model.signature.read(request), wanted, name, request.id)

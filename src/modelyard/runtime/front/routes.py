"""Which path does what. Source: Open Inference Protocol V2, REST (and Prometheus' `/metrics`)."""

import logging
from collections.abc import Callable, Sequence

import msgspec

import modelyard
from modelyard.base.errors import RetryLater, UserError
from modelyard.runtime.backends.port import Tensors
from modelyard.runtime.front import metrics, tensors
from modelyard.runtime.front.batcher import Call, Gone, QueueFull
from modelyard.runtime.front.exchange import Exchange
from modelyard.runtime.front.models import HostedModel
from modelyard.wire import oip

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 1
_GONE = 499  # as nginx and Envoy count a client that went away
_METRICS = b"text/plain; version=0.0.4; charset=utf-8"

Handle = Callable[[Exchange], None]


class Routes:
    """Every path of the server, built once, so that a request costs one look into a dict.

    ready: False while the process ends: health says not ready, and requests are answered all the same.
    """

    def __init__(self, models: Sequence[HostedModel], ready: Callable[[], bool]) -> None:
        self._ready = ready
        self._models = models
        self._ids: dict[str, str] = {}
        self._get: dict[bytes, Handle] = {}
        self._post: dict[bytes, Handle] = {}
        server = msgspec.json.encode(
            {"name": "modelyard", "version": modelyard.__version__, "extensions": []},
        )
        for path in (b"/v2", b"/v2/"):
            self._get[path] = lambda exchange: exchange.answer(200, server)
        self._get[b"/v2/health/live"] = lambda exchange: exchange.answer(200, b'{"live":true}')
        self._get[b"/v2/health/ready"] = self._server_ready
        self._get[b"/metrics"] = self._metrics
        for model in models:
            for name in (model.work.name, *model.work.aliases):
                self._add(model, name)

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
            self._post[base + b"/infer"] = lambda exchange: infer(exchange, model, name)

    def respond(self, exchange: Exchange) -> None:
        """Answer now, or queue for a model; never raises."""
        try:
            self._route(exchange)
        except Exception:
            _log.exception("a request failed in a way that it should not")
            if exchange.reply is None:
                exchange.refuse(500, "the server failed on this request; its log says why")

    def _route(self, exchange: Exchange) -> None:
        method = exchange.method
        handle = self._post.get(exchange.target) if method == b"POST" else None
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
            exchange.refuse(503, "the server is stopping", retry_after=_RETRY_SECONDS)

    def _model_ready(self, exchange: Exchange, name: str) -> None:
        if self._ready():
            exchange.answer(200, msgspec.json.encode({"name": name, "ready": True}))
        else:
            exchange.refuse(503, "the server is stopping", retry_after=_RETRY_SECONDS)

    def _metrics(self, exchange: Exchange) -> None:
        exchange.answer(200, metrics.text(model.metrics for model in self._models), kind=_METRICS)


def infer(exchange: Exchange, model: HostedModel, name: str) -> None:
    """Check the request against the signature and queue it; wrong ones are answered at once."""
    counted = model.metrics
    counted.in_flight += 1
    try:
        request = oip.decode_request(exchange.body)
        exchange.body = b""
        wanted = model.signature.select(request.outputs)
        model.batcher.submit(_Inference(exchange, model, name, request, wanted))
    except UserError as error:
        _finish(exchange, model, 400, oip.encode_error(error.message))
    except QueueFull as error:
        _finish(exchange, model, 429, oip.encode_error(error.message), _RETRY_SECONDS)


class _Inference(Call):
    """A request in the queue of a model."""

    __slots__ = ("_exchange", "_id", "_model", "_name", "_wanted")

    def __init__(
        self, exchange: Exchange, model: HostedModel, name: str, request: oip.InferRequest, wanted: tuple[str, ...]
    ) -> None:
        signature = model.signature
        inputs = signature.read(request)
        super().__init__(inputs, request.inputs[0].shape[0] if signature.batchable else 1, signature.group(inputs))
        self._exchange = exchange
        self._model = model
        self._name = name
        self._id = request.id
        self._wanted = wanted

    @property
    def gone(self) -> bool:
        return self._exchange.gone

    def deliver(self, answer: Tensors | Exception) -> None:
        exchange, model = self._exchange, self._model
        retry_after = 0
        try:
            if isinstance(answer, Exception):
                raise answer
            outputs = tensors.answer(answer, self._wanted)
            status = 200
            body = oip.encode_response(oip.InferResponse(self._name, model.work.version, outputs, self._id))
        except UserError as error:
            status, body = 400, oip.encode_error(error.message)
        except Gone:
            status, body = _GONE, b""
        except RetryLater as error:
            status, body = 503, oip.encode_error(error.message)
            retry_after = max(_RETRY_SECONDS, round(error.retry_after_seconds or 0))
        except Exception:
            _log.exception("an answer could not be made")
            status, body = 500, oip.encode_error("the model failed on this request; the log of its server says why")
        _finish(exchange, model, status, body, retry_after)


def _finish(exchange: Exchange, model: HostedModel, status: int, body: bytes, retry_after: int = 0) -> None:
    counted = model.metrics
    counted.in_flight -= 1
    if exchange.gone:
        status = _GONE
    counted.answered(status, exchange.age())
    if not exchange.gone:
        exchange.answer(status, body, retry_after=retry_after)

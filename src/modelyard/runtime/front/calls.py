"""gRPC's methods: `POST /inference.GRPCInferenceService/<Method>`, with the message as gRPC frames it.

The gateway puts the model that it chose behind the method, and behind that the version, if the message names one: then
its number, where the message may have a tag. The message must name the same model: who may reach a model may not reach
another one through it.
Source: Open Inference Protocol V2, gRPC; gRPC over HTTP2 ("Length-Prefixed-Message").
"""

from collections.abc import Callable, Mapping

import modelyard
from modelyard.base.errors import UserError
from modelyard.runtime.backends.port import Tensors
from modelyard.runtime.front import inference, packed
from modelyard.runtime.front.exchange import CALLS, Exchange
from modelyard.runtime.front.models import HostedModel
from modelyard.runtime.front.tensors import datatype_of
from modelyard.wire import oip_grpc

_PREFIX_BYTES = 5  # of a message: whether it is compressed, and its length


class _Refused(Exception):
    """A call that is answered at once. status: of HTTP, which gRPC's follows from."""

    def __init__(self, status: int, message: str, retry_after: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after


class Calls:
    """What gRPC may call. models: by every name. ready: as of `Routes`."""

    def __init__(self, models: Mapping[str, HostedModel], ready: Callable[[], bool]) -> None:
        self._models = models
        self._ready = ready
        server = oip_grpc.encode_server_metadata("modelyard", modelyard.__version__)
        self._methods: dict[str, Callable[[Exchange, memoryview, str], None]] = {
            "ModelInfer": self._infer,
            "ModelMetadata": self._metadata,
            "ModelReady": self._model_ready,
            "ServerLive": lambda exchange, *_: exchange.give(oip_grpc.encode_live(True)),
            "ServerMetadata": lambda exchange, *_: exchange.give(server),
            "ServerReady": lambda exchange, *_: exchange.give(oip_grpc.encode_live(self._ready())),
        }

    def respond(self, exchange: Exchange) -> None:
        """Answer now, or queue for a model."""
        method, _, routed = exchange.target[len(CALLS) :].decode("utf-8", "replace").partition("/")
        call = self._methods.get(method)
        try:
            if call is None:
                raise _Refused(501, f"there is no method {method[:64]!r}; there are {', '.join(self._methods)}")
            if exchange.method != b"POST":
                raise _Refused(405, f"{exchange.method.decode()} is not allowed for a call; use POST")
            call(exchange, _message(exchange), routed)
        except UserError as error:
            exchange.refuse(400, error.message)
        except _Refused as refused:
            exchange.refuse(refused.status, refused.message, retry_after=refused.retry_after)

    def _infer(self, exchange: Exchange, message: memoryview, routed: str) -> None:
        try:
            request = oip_grpc.decode_infer(message)
        except UserError as error:
            sent_to = self._models.get(routed.partition("/")[0])
            if sent_to is None:
                raise
            inference.refuse(exchange, sent_to, error.message)
            return
        model = self._model("model_name", request.model_name, request.model_version, routed)
        exchange.body = b""
        inference.begin(exchange, model, lambda: _read(exchange, model, request))

    def _model_ready(self, exchange: Exchange, message: memoryview, routed: str) -> None:
        self._model("name", *oip_grpc.decode_named(message), routed)
        exchange.give(oip_grpc.encode_live(self._ready()))

    def _metadata(self, exchange: Exchange, message: memoryview, routed: str) -> None:
        name, version = oip_grpc.decode_named(message)
        model = self._model("name", name, version, routed)
        work, signature = model.work, model.signature
        exchange.give(
            oip_grpc.encode_model_metadata(name, [work.version], work.format, signature.inputs, signature.outputs)
        )

    def _model(self, field: str, name: str, version: str, routed: str) -> HostedModel:
        if not name:
            raise UserError(f"{field}: is missing; expected the name of a model")
        chosen, _, number = routed.partition("/")
        if chosen and chosen != name:
            raise UserError(f"{field}: is {name[:64]!r}, but the call was sent to {chosen[:64]!r}")
        model = self._models.get(name)
        if model is None:
            raise _Refused(404, f"model {name[:64]!r} is not served here")
        if model.work.version not in (version or model.work.version, number):
            raise _Refused(404, f"model {name!r} has no version {version[:64]!r} here; it has {model.work.version!r}")
        return model


class _Inference(inference.Inference):
    __slots__ = ("_request",)

    def __init__(
        self,
        exchange: Exchange,
        model: HostedModel,
        inputs: Tensors,
        wanted: tuple[str, ...],
        request: oip_grpc.InferRequest,
    ) -> None:
        super().__init__(exchange, model, inputs, wanted)
        request.inputs = []  # its bytes are in the arrays by now
        self._request = request

    def encode(self, outputs: Tensors) -> bytes:
        found = [(name, datatype_of(name, outputs[name]), outputs[name]) for name in self._wanted or outputs]
        # As Triton does; and FP16 has no contents.
        raw = self._request.raw or any(datatype not in oip_grpc.CONTENTS for _, datatype, _ in found)
        data = packed.raw_bytes if raw else packed.contents
        sent = [oip_grpc.ResponseOutput(name, datatype, array.shape, data(array)) for name, datatype, array in found]
        return oip_grpc.encode_response(self._request, self._model.work.version, sent, raw=raw)


def _read(exchange: Exchange, model: HostedModel, request: oip_grpc.InferRequest) -> _Inference:
    signature = model.signature
    wanted = signature.select(request.outputs)
    elements = packed.raw_elements if request.raw else packed.contents_elements
    return _Inference(exchange, model, signature.take(request.inputs, elements), wanted, request)


def _message(exchange: Exchange) -> memoryview:
    """The one message of a call."""
    body = exchange.body
    if len(body) < _PREFIX_BYTES:
        raise UserError("the call has no message")
    if body[0]:
        raise _Refused(501, "compressed messages are not accepted; send them as they are")
    size = int.from_bytes(body[1:_PREFIX_BYTES], "big")
    if len(body) < _PREFIX_BYTES + size:
        raise UserError(f"the message is cut off: it has {len(body) - _PREFIX_BYTES} bytes of {size}")
    if len(body) > _PREFIX_BYTES + size:
        raise UserError("the call has more than one message; expected one")
    return memoryview(body)[_PREFIX_BYTES:]

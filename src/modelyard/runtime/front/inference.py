"""One inference, whatever form its request has: counted, queued, answered."""

import logging
from collections.abc import Callable

from modelyard.base.errors import RetryLater, UserError
from modelyard.runtime.backends.port import Tensors
from modelyard.runtime.front.batcher import Call, Gone, QueueFull
from modelyard.runtime.front.exchange import Exchange
from modelyard.runtime.front.models import HostedModel

_log = logging.getLogger(__name__)

RETRY_SECONDS = 1
_GONE = 499  # as nginx and Envoy count a client that went away


class Inference(Call):
    """A request in the queue of a model; its subclass knows the form of the answer."""

    __slots__ = ("_exchange", "_model", "_wanted")

    def __init__(self, exchange: Exchange, model: HostedModel, inputs: Tensors, wanted: tuple[str, ...]) -> None:
        signature = model.signature
        rows = len(next(iter(inputs.values()))) if signature.batchable else 1
        super().__init__(inputs, rows, signature.group(inputs))
        self._exchange = exchange
        self._model = model
        self._wanted = wanted

    def encode(self, outputs: Tensors) -> bytes:
        """The body of the answer. Raises UserError where the form cannot carry an output."""
        raise NotImplementedError

    @property
    def gone(self) -> bool:
        return self._exchange.gone

    def deliver(self, answer: Tensors | Exception) -> None:
        exchange, model = self._exchange, self._model
        try:
            if isinstance(answer, Exception):
                raise answer
            body = self.encode(answer)
        except UserError as error:
            _refuse(exchange, model, 400, error.message)
        except Gone:
            _refuse(exchange, model, _GONE, "")
        except RetryLater as error:
            _refuse(exchange, model, 503, error.message, max(RETRY_SECONDS, round(error.retry_after_seconds or 0)))
        except Exception:
            _log.exception("the answer of request %s could not be made", exchange.name)
            _refuse(exchange, model, 500, "the model failed on this request; the log of its server says why")
        else:
            _count(exchange, model, 200)
            if not exchange.gone:
                exchange.give(body)


def begin(exchange: Exchange, model: HostedModel, read: Callable[[], Inference]) -> None:
    """Queue what `read` makes of the request; a wrong one, which it raises UserError for, is answered at once."""
    model.metrics.in_flight += 1
    try:
        model.batcher.submit(read())
    except UserError as error:
        _refuse(exchange, model, 400, error.message)
    except QueueFull as error:
        _refuse(exchange, model, 429, error.message, RETRY_SECONDS)


def refuse(exchange: Exchange, model: HostedModel, message: str) -> None:
    """Answer a request that cannot be read; it counts as one of the model that it was sent to."""
    model.metrics.in_flight += 1
    _refuse(exchange, model, 400, message)


def _refuse(exchange: Exchange, model: HostedModel, status: int, message: str, retry_after: int = 0) -> None:
    _count(exchange, model, status)
    if not exchange.gone:
        exchange.refuse(status, message, retry_after=retry_after)


def _count(exchange: Exchange, model: HostedModel, status: int) -> None:
    counted = model.metrics
    counted.in_flight -= 1
    counted.answered(_GONE if exchange.gone else status, exchange.age())

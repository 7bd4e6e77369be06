"""Ask a model: numpy in, numpy out, over kept connections."""

import http.client
import json
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self, cast, overload
from urllib.parse import quote, urlsplit

from numpy.typing import ArrayLike

from modelyard.base.errors import RetryLater, UserError
from modelyard.sdk import find, tensors
from modelyard.sdk.tensors import Array, Metadata

_AGAIN = frozenset({429, 503})
_MAX_ANSWER_BYTES = 512 * 2**20
_MAX_IDLE = 16
_SHORTEST_PAUSE_SECONDS = 0.05
_JSON = {"Content-Type": "application/json", "Accept": "application/json"}


class Client:
    """Models behind one gateway. Threads may share it. Close it, or use it in a `with` statement.

    url: `http://host:port`; by default the running server of the project around the current folder. timeout: seconds
    for one call, everything included. retry: ask again when the model is overloaded or starting and the server says
    when to (Retry-After), for as long as the time-out allows.

    Every method raises UserError where trying again changes nothing, and RetryLater where it may; both carry the
    server's sentence.
    """

    def __init__(self, url: str | None = None, timeout: float = 60.0, *, retry: bool = True) -> None:
        self.url = (url or find.gateway()).rstrip("/")
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"url {self.url!r}: expected http://HOST:PORT")
        self._parts = parts
        self._timeout = timeout
        self._retry = retry
        self._idle: list[http.client.HTTPConnection] = []  # append and pop are atomic
        self._metadata: dict[str, Metadata] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections; the client may be used again."""
        while self._idle:
            self._idle.pop().close()

    @overload
    def predict(self, name: str, inputs: Mapping[str, ArrayLike]) -> dict[str, Array]: ...
    @overload
    def predict(self, name: str, inputs: ArrayLike) -> Array | dict[str, Array]: ...
    def predict(self, name: str, inputs: Mapping[str, ArrayLike] | ArrayLike) -> Array | dict[str, Array]:
        """Outputs by name for inputs by name, rows first.

        For a model with one input an array may be given alone; the answer is then an array if the model has one output,
        too. name: `<service>`, or `<service>.<namespace>`.
        """
        deadline = time.monotonic() + self._timeout
        known = self._metadata.get(name)
        metadata = known or self.metadata(name)
        try:
            answer = self._infer(metadata, inputs, deadline)
        except UserError:
            # The model may have been replaced by one with other inputs since the metadata was read.
            if known is None or (metadata := self.metadata(name)) == known:
                raise
            answer = self._infer(metadata, inputs, deadline)
        outputs = tensors.decode(name, answer)
        return next(iter(outputs.values())) if not isinstance(inputs, Mapping) and len(outputs) == 1 else outputs

    def metadata(self, name: str) -> Metadata:
        """What the model takes and gives now."""
        body = self._ask("GET", _path(name), None, time.monotonic() + self._timeout)
        found = self._metadata[name] = tensors.metadata(name, body)
        return found

    def ready(self, name: str) -> bool:
        """Whether the model can answer now."""
        status, body, _ = self._send("GET", f"{_path(name)}/ready", None, time.monotonic() + self._timeout)
        if status in (400, 503):
            return False
        if status >= 400:
            raise _error(status, body, None, f"{self.url}{_path(name)}/ready")
        return True

    def request(self, name: str, inputs: Mapping[str, ArrayLike] | ArrayLike) -> tuple[str, bytes]:
        """(URL, body) of the POST that `predict` would send."""
        body = tensors.encode(metadata := self.metadata(name), _named(metadata, inputs))
        return f"{self.url}{_path(name)}/infer", body

    def _infer(self, metadata: Metadata, inputs: Mapping[str, ArrayLike] | ArrayLike, deadline: float) -> bytes:
        body = tensors.encode(metadata, _named(metadata, inputs))
        return self._ask("POST", f"{_path(metadata.name)}/infer", body, deadline)

    def _ask(self, method: str, path: str, body: bytes | None, deadline: float) -> bytes:
        """A successful answer's body; asks again where that helps. When the time is over, what the server said last."""
        said: UserError | RetryLater | None = None
        while True:
            try:
                status, answer, after = self._send(method, path, body, deadline)
            except RetryLater as lost:
                if said is not None and time.monotonic() >= deadline:
                    raise said from lost
                raise
            if status < 400:
                return answer
            said = _error(status, answer, after, f"{self.url}{path}")
            wait = None if after is None else max(after, _SHORTEST_PAUSE_SECONDS)
            again = self._retry and status in _AGAIN
            if not again or wait is None or time.monotonic() + wait >= deadline:
                raise said
            time.sleep(wait)

    def _send(self, method: str, path: str, body: bytes | None, deadline: float) -> tuple[int, bytes, float | None]:
        """One exchange: (status, body, Retry-After in seconds)."""
        while True:
            connection, used = self._connection(deadline)
            try:
                connection.request(method, self._parts.path + path, body, _JSON if body is not None else {})
                response = connection.getresponse()
                answer = response.read(_MAX_ANSWER_BYTES + 1)
            except (http.client.HTTPException, OSError) as error:
                connection.close()
                # The server may have closed a kept connection just when it was taken: not a failure of the request.
                if used and self._retry and not isinstance(error, TimeoutError):
                    continue
                raise self._lost(error) from error
            except BaseException:
                connection.close()  # interrupted: half an answer must not meet the next request
                raise
            if len(answer) > _MAX_ANSWER_BYTES:
                connection.close()
                raise UserError(f"{self.url}{path} answered with more than {_MAX_ANSWER_BYTES} bytes; send fewer rows")
            if connection.sock is not None and len(self._idle) < _MAX_IDLE:
                self._idle.append(connection)
            else:
                connection.close()
            after = response.getheader("Retry-After") or ""
            return response.status, answer, float(after) if after.isdecimal() else None

    def _connection(self, deadline: float) -> tuple[http.client.HTTPConnection, bool]:
        """-> (a connection, whether it has been used before)."""
        rest = deadline - time.monotonic()
        if rest <= 0:
            raise RetryLater(f"{self.url} did not answer within {self._timeout:g} s")
        try:
            connection = self._idle.pop()
        except IndexError:
            host = cast(str, self._parts.hostname)
            if self._parts.scheme == "https":
                return http.client.HTTPSConnection(host, self._parts.port, timeout=rest), False
            return http.client.HTTPConnection(host, self._parts.port, timeout=rest), False
        if connection.sock is not None:
            connection.sock.settimeout(rest)
        return connection, True

    def _lost(self, error: Exception) -> RetryLater:
        if isinstance(error, TimeoutError):
            return RetryLater(f"{self.url} did not answer within {self._timeout:g} s")
        if isinstance(error, ConnectionRefusedError):
            return RetryLater(f"nothing listens at {self.url}; is 'modelyard up' running there?")
        return RetryLater(f"the connection to {self.url} was lost: {str(error) or type(error).__name__}")


def _path(name: str) -> str:
    return f"/v2/models/{quote(name, safe='')}"


def _named(metadata: Metadata, inputs: Mapping[str, ArrayLike] | ArrayLike) -> Mapping[str, ArrayLike]:
    if isinstance(inputs, Mapping):
        return inputs
    if len(metadata.inputs) != 1:
        names = ", ".join(each.name for each in metadata.inputs)
        raise UserError(f"model {metadata.name} has {len(metadata.inputs)} inputs: give a dict with {names}")
    return {metadata.inputs[0].name: inputs}


def _error(status: int, body: bytes, after: float | None, url: str) -> UserError | RetryLater:
    try:
        sentence = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        sentence = f"{url} answered with status {status}"
    if status >= 500 or status == 429:
        return RetryLater(sentence, after)
    return UserError(sentence)

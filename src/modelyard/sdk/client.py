"""Ask a model: numpy in, numpy out, over kept connections."""

import http.client
import json
import re
import ssl
import time
from collections.abc import Mapping
from os import PathLike
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
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_SHORTEST_PAUSE_SECONDS = 0.05
_TOKEN = re.compile(r"[!-~]{1,16384}")
_JSON = {"Content-Type": "application/json", "Accept": "application/json"}


class NotAuthenticated(UserError):
    """The gateway wants a token, or does not accept the one that was sent."""


class Client:
    """Models behind one gateway. Threads may share it. Close it, or use it in a `with` statement.

    url: `http://host:port` or https; by default the running server of the project around the current folder. timeout:
    seconds for one call, everything included. token: who calls, where the gateway wants to know. ca: a PEM file of the
    authority that signed the gateway's certificate, where that is none of this machine's. certificate: a PEM file with
    one's own certificate and its key, where the gateway wants to see one. retry: ask again when the model is overloaded
    or starting, or a limit was reached, and the server says when to (Retry-After), for as long as the time-out allows.

    Every method raises UserError where trying again changes nothing, and RetryLater where it may; both carry the
    server's sentence.
    """

    def __init__(
        self,
        url: str | None = None,
        timeout: float = 60.0,
        *,
        token: str | None = None,
        ca: str | PathLike[str] | None = None,
        certificate: str | PathLike[str] | None = None,
        retry: bool = True,
    ) -> None:
        self.url = (url or find.gateway()).rstrip("/")
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"url {self.url!r}: expected http://HOST:PORT")
        if parts.scheme == "http" and (ca or certificate):
            raise UserError(f"ca and certificate are for https, and {self.url} is not")
        self._parts = parts
        self._tls = _context(ca, certificate) if parts.scheme == "https" else None
        self._headers = _bearing(token)
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
                connection.request(method, self._parts.path + path, body, self._headers | (_JSON if body else {}))
                response = connection.getresponse()
                answer = response.read(_MAX_ANSWER_BYTES + 1)
            except (http.client.HTTPException, OSError) as error:
                connection.close()
                # The server may have closed a kept connection just when it was taken: not a failure of the request.
                if used and self._retry and not isinstance(error, TimeoutError):
                    continue
                raise self._lost(error, used=used) from error
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
            if self._tls is not None:
                return http.client.HTTPSConnection(host, self._parts.port, timeout=rest, context=self._tls), False
            return http.client.HTTPConnection(host, self._parts.port, timeout=rest), False
        if connection.sock is not None:
            connection.sock.settimeout(rest)
        return connection, True

    def _lost(self, error: Exception, *, used: bool) -> RetryLater | UserError:
        if isinstance(error, ssl.SSLError) and (why := self._distrust(error)):
            return UserError(why)
        if isinstance(error, TimeoutError):
            return RetryLater(f"{self.url} did not answer within {self._timeout:g} s")
        if isinstance(error, ConnectionRefusedError):
            hint = "; is 'modelyard up' running there?" if self._parts.hostname in _LOOPBACK else ""
            return RetryLater(f"nothing listens at {self.url}{hint}")
        if not used and isinstance(error, ConnectionResetError | http.client.RemoteDisconnected | ssl.SSLEOFError):
            perhaps = "speak https" if self._tls is None else "want to see a certificate of the caller"
            return RetryLater(f"{self.url} closed the connection without an answer; does it {perhaps}?")
        return RetryLater(f"the connection to {self.url} was lost: {str(error) or type(error).__name__}")

    def _distrust(self, error: ssl.SSLError) -> str:
        """What to do about a handshake that failed for good, or ""."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return (
                f"the certificate of {self.url} is not trusted ({error.verify_message}): give the authority that "
                "signed it as ca (of a command: --ca FILE), or ask by a name that it is for"
            )
        if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
            return f"{self.url} does not speak TLS: ask with http://"
        if "CERTIFICATE" in (error.reason or "") or "UNKNOWN_CA" in (error.reason or ""):
            return (
                f"{self.url} wants a certificate of the caller that it trusts: give a file with it and its key as "
                "certificate (of a command: --cert FILE)"
            )
        return ""


def _context(ca: str | PathLike[str] | None, certificate: str | PathLike[str] | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise UserError(f"ca {ca}: cannot be used ({_reason(error)}); expected a PEM file of certificates") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None:
        try:
            # Without this it would ask for a password on the terminal.
            context.load_cert_chain(certificate, password="")
        except (OSError, ValueError) as error:
            raise UserError(
                f"certificate {certificate}: cannot be used ({_reason(error)}); expected a PEM file with a certificate "
                "and its key, without a password"
            ) from error
    return context


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "it is no PEM"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _bearing(token: str | None) -> dict[str, str]:
    """The header that tells who calls. The token is never repeated in a message."""
    if token is None:
        return {}
    if not _TOKEN.fullmatch(token):
        raise UserError("token: expected one word of printable ASCII, as 'modelyard token create' prints it")
    return {"Authorization": f"Bearer {token}"}


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
    return NotAuthenticated(sentence) if status == 401 else UserError(sentence)

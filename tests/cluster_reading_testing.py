"""Objects of a cluster without kubectl, of which one run costs as much as a hundred of these: tests ask very often."""

import http.client
import json
from functools import cached_property
from typing import Any
from urllib.parse import urlencode, urlsplit

from kubectl_testing import Kubectl
from modelyard.control.kube.auth import ClientConfig
from modelyard.control.kube.resources import ALL, PODS_AND_MORE

Object = dict[str, Any]
_KINDS = {word: each for each in (*ALL, *PODS_AND_MORE) for word in (each.plural, each.kind.lower())}
_OPTIONS = {"-l": "labelSelector", "--field-selector": "fieldSelector"}


class Reading:
    """As `kubectl get` does; by kubectl where credentials come from a program, and for kinds that nobody else reads."""

    def __init__(self, config: ClientConfig, kubectl: Kubectl) -> None:
        self._config, self._kubectl = config, kubectl

    def one(self, namespace: str, kind: str, name: str) -> Object:
        """An object. Raises AssertionError when it cannot be had."""
        if self._must_use_kubectl(kind):
            return self._by_kubectl(namespace, kind, name)
        return self._get(_KINDS[kind].path(namespace, name))

    def all(self, namespace: str, kind: str, *arguments: str) -> list[Object]:
        """The objects of a kind. arguments: `-l SELECTOR`, `--field-selector=SELECTOR`. Raises AssertionError."""
        if self._must_use_kubectl(kind):
            found: list[Object] = self._by_kubectl(namespace, kind, *arguments)["items"]
            return found
        query = {}
        words = iter(arguments)
        for word in words:
            option, _, value = word.partition("=")
            query[_OPTIONS[option]] = value or next(words)
        return list(self._get(f"{_KINDS[kind].path(namespace)}?{urlencode(query)}").get("items") or ())

    def _must_use_kubectl(self, kind: str) -> bool:
        return kind not in _KINDS or self._config.plugin is not None or urlsplit(self._config.server).scheme != "https"

    def _by_kubectl(self, namespace: str, *arguments: str) -> Object:
        found: Object = json.loads(self._kubectl("-n", namespace, "get", *arguments, "-o", "json"))
        return found

    def _get(self, path: str) -> Object:
        connection = self._connection()
        bearer = self._config.bearer()
        headers = {"Accept": "application/json", **({"Authorization": f"Bearer {bearer}"} if bearer else {})}
        try:
            connection.request("GET", path, headers={**headers, **dict(self._config.impersonation)})
            answer = connection.getresponse()
            found: Object = json.loads(answer.read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise AssertionError(f"GET {path}: {error}") from error
        finally:
            connection.close()
        assert answer.status == 200, f"GET {path}: {answer.status} {found.get('message', '')}"
        return found

    def _connection(self) -> http.client.HTTPSConnection:
        place = urlsplit(self._config.server)
        return http.client.HTTPSConnection(place.hostname or "", place.port or 443, timeout=60, context=self._context)

    @cached_property
    def _context(self) -> Any:
        """None: the machine's own trust."""
        found = self._config.tls()
        return None if found is True else found

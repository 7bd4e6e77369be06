"""The last settings that were in order, kept in a Secret: taking the ConfigMap away opens nothing, not even at a start.

Nothing of it is secret, but whoever could change it could open the gateway; and the operator may write nothing but
Secrets of its own namespace.
"""

import base64
import binascii
from typing import Any

from modelyard.api import settings
from modelyard.base.errors import UserError
from modelyard.control.kube.client import ApiError, Client
from modelyard.control.kube.reflector import Reflector
from modelyard.control.kube.resources import SECRETS

Object = dict[str, Any]
NAME = "modelyard-settings"
SUBJECT = f"Secret {settings.NAMESPACE}/{NAME}"
PLACE = (settings.NAMESPACE, NAME)


class KeptSettings:
    """secrets: a reflector of the system namespace at least."""

    def __init__(self, client: Client, secrets: Reflector) -> None:
        self._client = client
        self._secrets = secrets
        self._written: Object | None = None

    @property
    def stored(self) -> Object | None:
        """The Secret, if there is one."""
        return self._secrets.cache.get(PLACE) or self._written

    def saw(self) -> None:
        """The Secret changed: the reflector knows better from here on."""
        self._written = None

    def text(self) -> str:
        """What is kept. Raises UserError where that cannot be read."""
        encoded = ((self.stored or {}).get("data") or {}).get(settings.KEY)
        try:
            return base64.b64decode(encoded or "", validate=True).decode() if encoded is not None else _missing()
        except (binascii.Error, TypeError, ValueError):
            return _missing()

    async def keep(self, text: str | None) -> None:
        """None: of settings that never were in order; who starts with these is shut, and who starts after them too."""
        data = {} if text is None else {settings.KEY: base64.b64encode(text.encode()).decode()}
        stored = self.stored
        if stored is not None and (stored.get("data") or {}) == data:
            return
        metadata = {"name": NAME, "namespace": settings.NAMESPACE}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}
        try:
            if stored is None:
                self._written = await self._client.create(SECRETS, body)
            else:
                self._written = await self._client.request("PUT", SECRETS.path(*PLACE), body={**stored, "data": data})
        except ApiError as error:
            # Somebody else has changed it: the reflector is about to say so, and then it is looked at again.
            if not error.conflict and error.reason != "AlreadyExists":
                raise


def _missing() -> str:
    raise UserError(f"{SUBJECT} has no {settings.KEY} that can be read")

"""The writes of the driver, and what a refusal of each means."""

from typing import Any

from modelyard.base.errors import RetryLater, UserError
from modelyard.control.drivers.kube.index import Index
from modelyard.control.ir.names import FIELD_MANAGER
from modelyard.control.ir.task import Task
from modelyard.control.ir.unit import Unit
from modelyard.control.kube.client import JSON_PATCH, ApiError, Client
from modelyard.control.kube.resources import PODS_AND_MORE, Resource

Object = dict[str, Any]
_RESOURCES: dict[str, Resource] = {each.kind: each for each in PODS_AND_MORE}
_MANAGER = {"fieldManager": FIELD_MANAGER}


class Writes:
    """What is written is known to the index at once."""

    def __init__(self, client: Client, index: Index) -> None:
        self._client = client
        self._index = index

    async def create(self, what: Unit | Task, body: Object) -> None:
        """Make what runs a unit or task. One of the same owner that is there already is it.

        Not by apply, which would take over what somebody else has made under that name.
        """
        resource = _RESOURCES[body["kind"]]
        metadata = body["metadata"]
        try:
            path = resource.path(metadata["namespace"])
            stored = await self._client.request("POST", path, body=body, parameters=_MANAGER)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
            stored = await self._client.get(resource, metadata["namespace"], metadata["name"])
            if _owners(stored) != _owners(body):
                where = f"{resource.kind} {metadata['namespace']}/{metadata['name']}"
                message = f"{what.name}: {where} exists and is not of {what.owner}: delete it, or rename one of them"
                if stored["metadata"].get("deletionTimestamp"):
                    raise RetryLater(f"{what.name}: an earlier {where} is still ending") from error
                raise UserError(message) from error
        self._index.learn(resource.kind, stored)

    async def apply(self, body: Object) -> Object:
        """Make it so; again changes nothing. -> what is stored then."""
        return await self._client.apply(_RESOURCES[body["kind"]], body, FIELD_MANAGER, force=True)

    async def patch(self, kind: str, held: Object, steps: list[Object]) -> None:
        """A JSON patch whose tests name what it was decided on; where that is no more, RetryLater."""
        metadata = held["metadata"]
        path = _RESOURCES[kind].path(metadata["namespace"], metadata["name"])
        try:
            stored = await self._client.request("PATCH", path, body=steps, parameters=_MANAGER, content_type=JSON_PATCH)
        except ApiError as error:
            if error.conflict or error.status in (404, 422):
                raise RetryLater(f"{kind} {metadata['name']} changed in the meantime: {error.message}") from error
            raise
        self._index.learn(kind, stored)

    async def note(self, kind: str, held: Object, body: Object) -> None:
        """A merge patch that names the version that it was decided on; another one by now is RetryLater."""
        metadata = held["metadata"]
        try:
            await self._client.patch(_RESOURCES[kind], metadata["namespace"], metadata["name"], body)
        except ApiError as error:
            if error.conflict or error.status == 404:
                raise RetryLater(f"{kind} {metadata['name']} changed in the meantime") from error
            raise

    async def read(self, kind: str, namespace: str, name: str) -> Object:
        """What is stored now."""
        return await self._client.get(_RESOURCES[kind], namespace, name)

    async def delete(self, kind: str, held: Object) -> None:
        """It stays until its pods have ended within their grace."""
        metadata = held["metadata"]
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Foreground",
            "preconditions": {"uid": metadata["uid"]},
        }
        path = _RESOURCES[kind].path(metadata["namespace"], metadata["name"])
        try:
            stored = await self._client.request("DELETE", path, body=options)
        except ApiError as error:
            if error.status != 404 and not error.conflict:
                raise
            return
        if stored.get("kind") == kind and stored["metadata"].get("deletionTimestamp"):
            self._index.learn(kind, stored)


def _owners(body: Object) -> set[str]:
    return {each["uid"] for each in body["metadata"].get("ownerReferences") or ()}

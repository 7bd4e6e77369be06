"""Our own pods: which operator leads, as a label that the Service of the gateways' connections selects; and which
gateways serve or are about to end.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from modelyard.base.clock import Clock
from modelyard.base.errors import ModelyardError
from modelyard.control.kube.client import ApiError, Client
from modelyard.control.kube.reflector import Reflector
from modelyard.control.kube.resources import PODS

log = logging.getLogger(__name__)
Object = dict[str, Any]
SELECTOR = "app.kubernetes.io/name=modelyard"
COMPONENT = "app.kubernetes.io/component"
LEADER = "modelyard.dev/leader"
_AGAIN_SECONDS = 1.0


class Label(NamedTuple):
    """Set the label of a pod, or take it off."""

    pod: str
    leads: bool


def labels(pods: Iterable[Object], leader: str) -> tuple[Label, ...]:
    """What is to be done so that this pod has the label alone. Others first: connections go to whoever has it.

    leader: "" where it runs in no pod.
    """
    operators = [pod for pod in pods if _label(pod, COMPONENT) == "operator"]
    wrong = [_name(pod) for pod in operators if _label(pod, LEADER) and _name(pod) != leader]
    missing = [_name(pod) for pod in operators if _label(pod, LEADER) != "true" and _name(pod) == leader]
    return (*(Label(each, leads=False) for each in sorted(wrong)), *(Label(each, leads=True) for each in missing))


class Gateways(NamedTuple):
    """Names of pods. ready: they serve callers. leaving: they were told to end."""

    ready: frozenset[str] = frozenset()
    leaving: frozenset[str] = frozenset()


def gateways(pods: Iterable[Object]) -> Gateways:
    """As the kubelet tells it."""
    mine = [pod for pod in pods if _label(pod, COMPONENT) == "gateway"]
    leaving = frozenset(_name(pod) for pod in mine if pod["metadata"].get("deletionTimestamp") is not None)
    return Gateways(frozenset(_name(pod) for pod in mine if _ready(pod)) - leaving, leaving)


class SystemPods:
    """Of the one who leads. pod: its own, "" for none. told: called with what is known of gateways, at each change.

    Somebody runs `reflector`. `begin` first, then `run`.
    """

    def __init__(
        self, client: Client, namespace: str, pod: str, told: Callable[[Gateways], None], clock: Clock
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._pod = pod
        self._told = told
        self._clock = clock
        self._changed = asyncio.Event()
        self._begun = False
        self._gateways = Gateways()
        self.reflector = Reflector(client, PODS, clock=clock, namespace=namespace, label_selector=SELECTOR)
        self.reflector.add_handler(self._saw)

    async def begin(self) -> None:
        """Tell for the first time."""
        await self.reflector.confirm()
        self._begun = True
        self._look()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._changed.clear()
            try:
                for label in labels(self.reflector.cache.values(), self._pod):
                    await self._set(label)
            except ModelyardError as error:
                log.warning("the label of the operator that leads: %s; tried again", error)
                await self._clock.sleep(_AGAIN_SECONDS)
                continue
            await self._changed.wait()

    async def step_down(self) -> None:
        """Take the label off our own pod; failing that, the next leader does."""
        if self._pod:
            with contextlib.suppress(ModelyardError):
                await self._set(Label(self._pod, leads=False))

    async def _set(self, label: Label) -> None:
        body = {"metadata": {"labels": {LEADER: "true" if label.leads else None}}}
        try:
            await self._client.patch(PODS, self._namespace, label.pod, body)
        except ApiError as error:
            if error.status != 404:
                raise

    def _saw(self, _place: tuple[str, str], _old: Object | None, _new: Object | None) -> None:
        self._changed.set()
        if self._begun:
            self._look()

    def _look(self) -> None:
        found = gateways(self.reflector.cache.values())
        if found != self._gateways:
            self._gateways = found
            self._told(found)


def _ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def _label(pod: Object, name: str) -> str:
    return str((pod["metadata"].get("labels") or {}).get(name, ""))


def _name(pod: Object) -> str:
    return str(pod["metadata"]["name"])

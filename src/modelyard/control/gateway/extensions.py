"""The filters that depend on the platform, as Envoy is told them: what it refuses becomes a closed door. No IO."""

import logging

from modelyard.base.errors import UserError
from modelyard.control.gateway.units import Discovery
from modelyard.control.ir.platform import Platform
from modelyard.control.render import xds, xds_access

_log = logging.getLogger(__name__)


class Extensions:
    """Level-triggered: `aim` tells what the platform asks for, `settle` looks at what Envoy said about it.

    A refused filter would stay what it was before, which may believe or admit more than the platform wants now.
    """

    def __init__(self, discovery: Discovery) -> None:
        self._discovery = discovery
        self._shut: set[str] = set()
        self.platform: Platform | None = None

    def aim(self, platform: Platform) -> None:
        """Make this what holds."""
        if platform == self.platform:
            return
        self.platform = platform
        self._shut.clear()
        for name, config in xds_access.extensions(platform).items():
            try:
                self._discovery.put(xds.EXTENSION, name, config)
            except UserError as error:
                self._shut_down(name, error.message)

    def settle(self) -> None:
        """Envoy may have answered."""
        for name in xds_access.EXTENSIONS:
            why = self._discovery.refusal(xds.EXTENSION, name)
            if why and name not in self._shut:
                self._shut_down(name, why)

    def in_force(self) -> bool:
        """Whether Envoy acknowledged all of them."""
        return all(self._discovery.holds(xds.EXTENSION, name) for name in xds_access.EXTENSIONS)

    def _shut_down(self, name: str, why: str) -> None:
        _log.error(
            "the gateway's filter %s was refused, and shuts out all whom it should tell apart until the platform's "
            "settings change: %s",
            name,
            why,
        )
        self._shut.add(name)
        self._discovery.put(xds.EXTENSION, name, xds_access.closed(name))

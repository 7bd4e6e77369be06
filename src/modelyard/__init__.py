"""Modelyard runs machine-learning models as services, in any language, from one manifest."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelyard.sdk.client import Client

__all__ = ["Client", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Importing the package stays cheap: numpy and the rest come with the first use."""
    if name == "Client":
        return import_module("modelyard.sdk.client").Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Modelyard runs machine-learning models as services, in any language, from one manifest."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelyard.sdk.client import Client

    __version__: str

__all__ = ["Client", "__version__"]


def __getattr__(name: str) -> Any:
    """Importing the package stays cheap: numpy and the rest come with the first use."""
    if name == "Client":
        from modelyard.sdk.client import Client  # noqa: PLC0415

        return Client
    if name == "__version__":
        from importlib import metadata  # noqa: PLC0415

        try:
            return metadata.version("modelyard")
        except metadata.PackageNotFoundError:  # run from a checkout
            return "0+checkout"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

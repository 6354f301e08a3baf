"""Offline bulk scoring of Zarr datasets with torch models on unreliable Dask clusters."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from approxifer.version import __version__

if TYPE_CHECKING:
    from approxifer.pipeline.api import score, submit

__all__ = ["__version__", "score", "submit"]


def __getattr__(name: str) -> Any:
    # Lazy: workers import approxifer.coding or approxifer.models without Dask's and torch's weight.
    if name in ("score", "submit"):
        return getattr(import_module("approxifer.pipeline.api"), name)
    raise AttributeError(f"module 'approxifer' has no attribute {name!r}")

"""The input as another process opens it: by a path that holds there, or as a small lazy object."""

from __future__ import annotations

import os
from typing import Any

import xarray as xr

from approxifer.datasets.input.lazy import unsendable
from approxifer.datasets.input.remote import is_url
from approxifer.datasets.localdisk import plain_path


def opened_elsewhere(data: Any, **arguments: Any) -> dict[str, Any] | str:
    """Arguments with which `source.open_source` opens the same in another process, picklable; or
    the reason for which none do."""
    if isinstance(data, xr.DataArray | xr.Dataset):
        several = data.data_vars.values() if isinstance(data, xr.Dataset) else [data]
        if why := next(filter(None, map(unsendable, several)), ""):
            return why
        alone: Any = data.drop_vars(list(data.coords))
        return arguments | {"data": alone.drop_attrs()}
    place = plain_path(os.fspath(data))
    return arguments | {"data": place if is_url(place) else os.path.abspath(place)}

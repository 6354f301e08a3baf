"""The client of a run: the given one, or the one that holds the blocks of a persisted DataArray."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import xarray as xr

from approxifer.datasets.input.lazy import clients_of
from approxifer.errors import ConfigError
from approxifer.pipeline.cluster.connect import check_client, scheduler_of
from approxifer.pipeline.planning.options import Options


def with_client(options: Options) -> Options:
    """Return the options with the client of the data's blocks, where these lie on a cluster.

    Raises
    ------
    ConfigError
        A client that cannot be used; another cluster than that of the blocks.
    """
    if options.client is not None:
        check_client(options.client)
    homes = _homes(options.data)
    if not homes:
        return options
    for home in homes:
        try:
            check_client(home)
        except ConfigError as error:
            raise ConfigError(f"the DataArray was persisted; of its {error}") from error
    schedulers = {scheduler_of(home) for home in homes}
    if options.client is not None:
        schedulers.add(scheduler_of(options.client))
    if options.cluster is not None or len(schedulers) > 1:
        raise ConfigError(
            "the DataArray was persisted, and is scored on the cluster that holds its blocks: "
            "leave cluster= and client= out, or compute() it"
        )
    return options if options.client is not None else replace(options, client=homes[0])


def _homes(data: Any) -> list[Any]:
    """The clients that hold blocks of the data."""
    several = data.data_vars.values() if isinstance(data, xr.Dataset) else [data]
    on_dask = [one for one in several if isinstance(one, xr.DataArray) and one.chunks is not None]
    return [home for one in on_dask for home in clients_of(one.data)]

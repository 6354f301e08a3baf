"""The part of a run inside Dask's scheduler. No torch, zarr, rich or matplotlib."""

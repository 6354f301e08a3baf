"""An output store as it is read: predictions, and how each row of them was obtained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from approxifer.checks import instance, one_of, span
from approxifer.datasets.arrays import Arrays
from approxifer.datasets.compare import check_same
from approxifer.datasets.form import Forms
from approxifer.datasets.growth import Growth, planned
from approxifer.datasets.layout import (
    FLAG_MEANINGS,
    UUID,
    VARIABLES,
    found_coordinates,
    our_group,
)
from approxifer.datasets.source import Source
from approxifer.errors import StoreError


class StoredRows:
    """An output store as it is read.

    Attributes
    ----------
    path : Path
    grid : Grid
        Which row lies where.
    rows, chunk : int
        Their number, and rows per chunk.
    packing : Packing
        Of the predictions, each by its name.
    row_dims : tuple of str
        The grid's dimensions.
    uuid : str or None
        A mark that no other store has; None for one begun before there were uuids.
    """

    def __init__(self, path: Path, group: zarr.Group) -> None:
        self.path = path
        self._arrays = Arrays(path, group)
        self._attrs = dict(group.attrs)
        self.grid = self._arrays.grid
        self.rows, self.chunk = self.grid.rows, math.prod(self.grid.chunk)
        self.packing = self._arrays.packing
        self.row_dims = self._arrays.row_dims
        named = self._attrs.get(UUID)
        self.uuid = named if isinstance(named, str) else None

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes: those given to `create`, and after `close` the counts and workers;
        ``rows`` is their number."""
        return {**self._attrs, "rows": self.rows}

    @property
    def coordinate_notes(self) -> list[str]:
        """A sentence on each coordinate of the input that is left out, or changed."""
        notes = self._attrs.get("coordinate_notes")
        return [str(note) for note in notes] if isinstance(notes, list) else []

    def check(self, attrs_expected: Mapping[str, Any]) -> None:
        """Check that the store was begun with this input, model, code and layout.

        Parameters
        ----------
        attrs_expected
            Attributes as for `create`. All of them are compared, field by field, except
            ``version``: a newer approxifer may go on with an older one's store.

        Raises
        ------
        FingerprintError
            Names each field that differs, with both values.
        """
        check_same(self.path, given=attrs_expected, stored=self.attrs)

    def status(self) -> np.ndarray:
        """The way each row was obtained: uint8 (rows,), an index into ``FLAG_MEANINGS``.

        Raises
        ------
        StoreError
            A chunk is damaged.
        """
        flags = self._arrays.read("status", 0, self.rows)
        if flags.size and flags.max() >= len(FLAG_MEANINGS):
            raise StoreError(
                f"The output store {self.path} is damaged: a row has status {flags.max()}; there "
                f"are 0 to {len(FLAG_MEANINGS) - 1}. Restore it from a copy, or score again."
            )
        return flags

    def read_prediction(self, start: int, stop: int) -> np.ndarray:
        """The predictions of these rows, several outputs packed; NaN or 0 where pending.

        Raises
        ------
        StoreError
            A chunk is damaged.
        ConfigError
            Rows that are not there.
        """
        return self._arrays.read("prediction", *span(start, stop, self.rows))

    def read_window(
        self, start: int, stop: int, names: Sequence[str] = VARIABLES
    ) -> dict[str, np.ndarray]:
        """All that is known of these rows, by name: what `write_window` takes.

        Parameters
        ----------
        start, stop
        names
            Only these variables.

        Raises
        ------
        StoreError
            A chunk is damaged.
        ConfigError
            Rows or variables that are not there.
        """
        start, stop = span(start, stop, self.rows)
        instance("names", names, (tuple, list), f"some of {', '.join(VARIABLES)}")
        wanted = [one_of("names", name, VARIABLES) for name in names]
        return {name: self._arrays.read(name, start, stop) for name in wanted}

    def growth(self, source: Source, forms: Forms) -> Growth:
        """The growth that the rows which the input has in addition ask for.

        Parameters
        ----------
        source
            The input, which has grown along its first sample dimension.
        forms
            Of the predictions.

        Raises
        ------
        FingerprintError
            A coordinate of the rows that are there already has changed, or is not as it is stored.
        ConfigError
            These are no input and no form.
        """
        instance("source", source, Source, "what open_source returns")
        instance("forms", forms, Forms, "the forms of the predictions")
        coords, _ = found_coordinates(source, forms)
        plain = Growth(self.grid.shape[0], source.grid.shape[0], self.row_dims[0], {})
        own = {*self._arrays.names, *forms.coords}
        return planned(self.path, our_group(self.path), coords, growth=plain, own=own)

    def dataset(self) -> xr.Dataset:
        """The store as an xarray dataset, lazy, without Dask."""
        dataset: xr.Dataset = xr.open_zarr(str(self.path), chunks=None)
        return dataset

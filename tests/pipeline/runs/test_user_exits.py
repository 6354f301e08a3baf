"""Code of the user's that would end the process it runs in."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import toy_models
import xarray as xr
from distributed import Client

from approxifer import score, submit
from approxifer.errors import ModelError


def test_a_row_on_which_the_model_ends_its_worker_fails_alone(
    client: Client, tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    rows[[42, 171], 0] = 1500, 5000
    before = client.run(lambda dask_worker: dask_worker.id)
    report = score(
        xr.DataArray(rows, dims=("n", "f"), name="x"), model=toy_models.exits_on_large,
        out=tmp_path / "out.zarr", client=client, k=4, block=5, window=100, progress=False,
    )  # fmt: skip
    assert dict(sorted(report.failures)).keys() == {42, 171}
    said = dict(report.failures)
    assert "raised KeyboardInterrupt" in said[42]
    assert "called sys.exit(0)" in said[171]
    assert client.run(lambda dask_worker: dask_worker.id) == before, "no worker has died of it"
    whole = np.delete(np.arange(200), [42, 171])
    np.testing.assert_array_equal(
        report.predictions.prediction[whole], toy_models.linear(rows)[whole]
    )


@pytest.mark.parametrize("name", ["preprocess", "features"])
def test_functions_of_rows_that_end_the_client(
    client: Client, store: Path, tmp_path: Path, name: str
) -> None:
    def leave(rows: np.ndarray) -> np.ndarray:
        sys.exit(0)

    where = toy_models if name == "preprocess" else sys.modules[__name__]
    leave.__module__, leave.__qualname__ = where.__name__, "leave"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, "leave", leave, raising=False)
        job = submit(
            store, model=toy_models.linear, out=tmp_path / "out.zarr", client=client,
            order="similar", k=2, **{name: leave},
        )  # fmt: skip
        with pytest.raises(ModelError, match=rf"{name} called sys.exit\(0\)"):
            job.result(30)

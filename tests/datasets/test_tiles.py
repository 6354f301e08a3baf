"""Fields cut into tiles, and put together again."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from approxifer.datasets import OutputStore, Source, open_source
from approxifer.datasets.form import Form, Forms, default_form
from approxifer.datasets.grid import Grid
from approxifer.datasets.input.chunks import KeptChunks
from approxifer.datasets.tiles.tiling import Tiling
from approxifer.errors import ConfigError, FingerprintError, StoreError
from approxifer.packing import Part
from approxifer.pipeline.planning.output import form_for
from approxifer.pipeline.planning.resume import follow

DIMS = ("time", "y", "x")


def fields(sizes: tuple[int, ...] = (3, 21, 17), dims: tuple[str, ...] = DIMS) -> xr.DataArray:
    lengths = dict(zip(dims, sizes, strict=True))
    return xr.DataArray(
        np.random.default_rng(3).normal(size=sizes).astype("f4"), dims=dims, name="t",
        coords={"y": -0.5 * np.arange(lengths["y"]), "x": np.arange(lengths["x"]) * 2.0,
                "area": (("y", "x"), np.ones((lengths["y"], lengths["x"])), {"units": "m2"})},
    )  # fmt: skip


def stored(data: xr.DataArray, path: Any, *chunks: int) -> str:
    encoding = {str(data.name): {"chunks": chunks}} if chunks else {}
    data.to_dataset().to_zarr(path, consolidated=False, encoding=encoding)
    return str(path)


def joined(source: Source, function: Callable[[np.ndarray], np.ndarray], asked: Any = None) -> Form:
    """The form of what a model returns for tiles."""
    assert source.tiling is not None
    shape = function(source.read(0, 1)).shape[1:]
    axes, inner = source.tiling.joined(shape, source.feature_dims, len(source.sample_dims))
    shape = tuple(stop - start for start, stop in inner)
    return form_for(asked, source, Part("prediction", shape, np.dtype("f4")), axes)


def scored(
    path: Path, source: Source, function: Callable[[np.ndarray], np.ndarray], **asked: Any
) -> xr.Dataset:
    """The store that a run writes, window by window, without a cluster."""
    assert source.tiling is not None
    form = joined(source, function, asked or None)
    whole = function(source.read(0, 1)).shape[1:]
    _, inner = source.tiling.joined(whole, source.feature_dims, len(source.sample_dims))
    with OutputStore.create(
        path, source=source, output_shape=form.shape, output_dtype="f4", chunk=2, attrs={},
        forms=Forms((form,)),
    ) as store:  # fmt: skip
        for start, stop in store.grid.windows(7):
            found = function(source.read(start, stop))
            found = found[(slice(None), *(slice(*part) for part in inner))]
            store.write_window(start, stop, prediction=found, status=1)
            # Also what lies beyond the field's edge.
            np.testing.assert_array_equal(store.read_prediction(start, stop), found)
    with OutputStore.open(path, write=False) as again:
        assert again.status().all()
        np.testing.assert_array_equal(again.read_prediction(start, stop), found)
    with xr.open_zarr(path, chunks=None) as opened:
        return opened.load()


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 12))
def test_a_border_is_reflected_as_numpy_does(size: int, tile: int, halo: int) -> None:
    tiling = Tiling(("x",), (size,), (tile,), (halo,))
    (count,) = tiling.counts
    padded = np.pad(np.arange(size), (halo, count * tile - size + halo), mode="reflect")
    for number in range(count):
        expected = padded[number * tile : number * tile + tile + 2 * halo]
        np.testing.assert_array_equal(tiling.points(0, number), expected)


ANY_FIELD = {
    "dims": st.permutations(DIMS),
    "sizes": st.lists(st.integers(1, 9), min_size=3, max_size=3),
    "lengths": st.lists(st.integers(1, 5), min_size=5, max_size=5),
    "halo": st.integers(0, 4),
}


@settings(max_examples=30)
@given(**ANY_FIELD)
def test_tiles_are_cut_out_of_any_field(
    dims: list[str], sizes: list[int], lengths: list[int], halo: int
) -> None:
    data = fields(tuple(sizes), tuple(dims))
    options: dict[str, Any] = {"tile": {"y": lengths[0], "x": lengths[1]}, "halo": halo}
    chunked = data.chunk(dict(zip(DIMS, lengths[2:], strict=True)))
    source = open_source(chunked if lengths[0] > 1 else data, None, "time", **options)
    cut = [dim for dim in dims if dim != "time"]
    found = source.read(0, source.rows)
    over = {dim: -data.sizes[dim] % options["tile"][dim] for dim in cut}
    pad = {dim: (halo, over[dim] + halo) for dim in cut}
    padded = data.variable.transpose("time", *cut).pad(pad, mode="reflect").values
    for row in range(source.rows):
        ((slab, *_),) = source.grid.pieces(row, row + 1)
        within = np.unravel_index(
            row - source.grid.span(int(source.grid.tile_of(row)))[0],
            [part.stop - part.start for part in slab],
        )
        time, *tiles = (part.start + int(i) for part, i in zip(slab, within, strict=True))
        at = [slice(i * options["tile"][d], (i + 1) * options["tile"][d] + 2 * halo)
              for i, d in zip(tiles, cut, strict=True)]  # fmt: skip
        np.testing.assert_array_equal(found[row], padded[time, at[0], at[1]])


@settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow])
@given(origin=st.sampled_from(["zarr", "memory", "dask"]), both=st.booleans(), **ANY_FIELD)
def test_tiles_of_any_field(
    origin: str, both: bool, dims: list[str], sizes: list[int], lengths: list[int], halo: int
) -> None:
    data = fields(tuple(sizes), tuple(dims))
    tile = {"y": lengths[0] + 1, "x": lengths[1] + 1} if both else {"x": lengths[1] + 1}
    options: dict[str, Any] = {"sample_dim": "time", "tile": tile, "halo": {"x": halo}}
    with tempfile.TemporaryDirectory() as folder:
        source = open_source(data.chunk(dict(zip(DIMS, lengths[2:], strict=True))), **options)
        if origin == "memory":
            source = open_source(data, **options)
        elif origin == "zarr":
            source = open_source(stored(data, f"{folder}/in", *lengths[2:]), "t", **options)
        found = scored(Path(folder) / "out", source, np.negative)
        every = source.read(0, source.rows)
        for row in range(0, source.rows, 1 + source.rows // 8):  # by itself, as on a worker
            np.testing.assert_array_equal(source.read(row, row + 1)[0], every[row])
    row = [dim for dim in dims if dim != "time"]
    expected = -data.transpose("time", *row, transpose_coords=False)
    xr.testing.assert_equal(found.prediction, expected)
    assert found.status.dims == ("time", *(f"tile_{dim}" for dim in dims if dim in tile))


def test_an_image_is_cut_by_itself_and_its_status_is_by_tiles(tmp_path: Path) -> None:
    image = fields()[0].drop_attrs()
    source = open_source(image, tile={"y": 8, "x": 5}, halo=2)
    assert (source.rows, source.feature_shape) == (12, (12, 9))
    assert source.row_dims == ("tile_y", "tile_x")
    found = scored(tmp_path / "out", source, np.negative)
    xr.testing.assert_identical(found.prediction.drop_attrs(), (-image).rename("prediction"))
    assert found.status.shape == (3, 4)
    assert zarr.open_array(str(tmp_path / "out/prediction"), mode="r").chunks == (8, 5)
    band = open_source(fields(), tile={"y": 8, "x": 5}, sample_dim=())
    assert (band.rows, band.feature_shape) == (12, (3, 8, 5))
    np.testing.assert_array_equal(band.read(5, 6)[0], fields().values[:, 8:16, 5:10])


def pooled(rows: np.ndarray) -> np.ndarray:
    """Means of four by four points, as two channels."""
    n, height, width = rows.shape
    means = rows.reshape(n, height // 4, 4, width // 4, 4).mean(axis=(2, 4))
    return np.stack([means, -means], axis=1)


def test_a_coarser_output_lies_on_a_coarser_grid(tmp_path: Path) -> None:
    data = fields((2, 32, 24))
    source = open_source(data, tile={"y": 16, "x": 8}, halo=4)
    found = scored(tmp_path / "out", source, pooled, dims=["sign", "y", "x"])
    coarse = data.coarsen(y=4, x=4).mean()
    np.testing.assert_allclose(found.prediction[:, 0], coarse, atol=1e-6)
    assert found.prediction.dims == ("time", "sign", "y", "x")
    for name in ("y", "x", "area"):
        xr.testing.assert_identical(found[name].variable, coarse[name].variable)


def test_what_the_factor_does_not_divide_is_filled_up(tmp_path: Path) -> None:
    found = scored(
        tmp_path / "out",
        open_source(fields()[0], tile={"y": 8, "x": 8}),
        lambda rows: pooled(rows)[:, 0],
    )
    assert found.prediction.shape == (6, 5)
    edge = fields().y.coarsen(y=4, boundary="pad").mean()
    np.testing.assert_array_equal(found.y, edge)


@pytest.mark.parametrize(
    ("model", "halo"),
    [
        (lambda rows: rows[:, 2:-2, 2:-2], 2),  # no padding
        (lambda rows: rows.mean(axis=(1, 2)), 2),
        (lambda rows: np.repeat(rows, 2, axis=1), 2),
        (lambda rows: rows[:, ::4, ::4], 2),  # 4 does not divide the border
        (lambda rows: rows[:, ::2, ::3], 0),
    ],
)
def test_what_cannot_be_put_together_is_refused(model: Any, halo: int) -> None:
    source = open_source(fields()[0], tile={"y": 12, "x": 12}, halo=halo)
    shape = re_shape(model(source.read(0, 1)).shape[1:])
    with pytest.raises(ConfigError, match=rf"{shape}, which cannot be put together"):
        joined(source, model)


def re_shape(shape: tuple[int, ...]) -> str:
    return str(shape).replace("(", r"\(").replace(")", r"\)")


@pytest.mark.parametrize(
    ("row", "shape", "axes"),
    [
        (("y", "x"), (5, 12, 12), (1, 2)),  # channels first
        (("y", "x"), (12, 12, 5), (0, 1)),  # and last
        (("variable", "y", "x"), (12, 12), (0, 1)),
        (("variable", "y", "x"), (12, 12, 3), (0, 1)),
        (("y", "x"), (12, 12, 12), (1, 2)),
        (("y", "band", "x"), (12, 2, 12), (0, 2)),
    ],
)
def test_the_tiled_axes_are_where_they_were(row: Any, shape: Any, axes: Any) -> None:
    found, _ = Tiling(("y", "x"), (30, 30), (10, 10), (1, 1)).joined(shape, row, 1)
    assert tuple(one.axis for one in found) == axes


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tile": {"z": 3}}, r"tile= names the dimension 'z'.*'time', 'y', 'x'"),
        ({"tile": {"y": 3}, "halo": {"x": 1}}, "halo= has a border along 'x'"),
        ({"tile": {"y": 0}}, "lengths of at least 1"),
        ({"tile": {"y": 3}, "halo": -1}, "a border of at least 0"),
        ({"halo": 3}, "without tile="),
        ({"tile": {"y": 3}, "sample_dim": "y"}, "'y' is a sample dimension"),
    ],
)
def test_tiles_that_make_no_sense(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        open_source(fields(), **given)


def test_chunks_of_the_output_divide_a_tile() -> None:
    source = open_source(fields()[0], tile={"y": 8, "x": 8})
    assert joined(source, np.negative, {"chunks": {"y": 4}}).chunks == (4, 8)
    with pytest.raises(ConfigError, match="divides 8"):
        joined(source, np.negative, {"chunks": {"y": 3}})


def test_fields_are_appended_tile_by_tile(tmp_path: Path) -> None:
    data, out = fields((5, 11, 7)), tmp_path / "out"
    options: dict[str, Any] = {"tile": {"y": 4, "x": 4}, "halo": 1}
    path = stored(data[:2], tmp_path / "in", 2, 4, 4)
    scored(out, open_source(path, "t", **options), np.negative)
    data[2:].drop_vars(["y", "x", "area"]).to_dataset().to_zarr(
        path, append_dim="time", consolidated=False
    )
    source = open_source(path, "t", **options)
    with OutputStore.open(out) as store:
        source.follow(store.grid, appended=True)
        store.grow(store.growth(source, Forms((joined(source, np.negative),))), {})
        for start, stop in store.grid.windows(7):
            if not store.status()[start]:
                inner = -source.read(start, stop)[:, 1:-1, 1:-1]
                store.write_window(start, stop, prediction=inner, status=1)
    with xr.open_zarr(out, chunks=None) as found:
        xr.testing.assert_equal(found.prediction, -data)


@pytest.mark.parametrize(
    "joins",
    [
        [{"axis": 0, "along": 5, "tile": 8, "factor": 1}],
        [{"axis": 9, "along": 0, "tile": 8, "factor": 1}] * 2,
        [
            {"axis": 0, "along": 0, "tile": 8000, "factor": 1},
            {"axis": 1, "along": 1, "tile": 5, "factor": 1},
        ],
        "no list",
    ],
)
def test_a_store_that_joins_what_it_has_not(tmp_path: Path, joins: Any) -> None:
    scored(tmp_path / "out", open_source(fields()[0], tile={"y": 8, "x": 5}), np.negative)
    group = zarr.open_group(str(tmp_path / "out"), mode="r+", use_consolidated=False)
    group.attrs["output"] = dict(group.attrs["output"]) | {"joined": joins}
    with pytest.raises(StoreError, match="not as approxifer writes it"):
        OutputStore.open(tmp_path / "out")


def test_kept_chunks_are_read_once_and_forgotten_when_there_are_too_many() -> None:
    values, read = np.arange(400).reshape(20, 20), 0

    def counted(at: Any) -> np.ndarray:
        nonlocal read
        found = values[tuple(at)]
        read += found.size
        return found

    for most in (2**20, 1):
        read = 0
        kept = KeptChunks(counted, (20, 20), (5, 20), values.dtype, most=most)
        for start in (*range(16), *range(16)):
            at = [slice(start, start + 5), slice(3, 9)]
            np.testing.assert_array_equal(kept.read(at), values[tuple(at)])
        assert read == 400 if most > 1 else read > 400


def test_the_default_form_of_a_whole_field_is_unchanged() -> None:
    assert "joined" not in default_form(open_source(fields()), (21, 17), "f4").described()


def test_tiles_of_an_image_that_has_grown_are_others(tmp_path: Path) -> None:
    options: dict[str, Any] = {"tile": {"y": 8, "x": 5}}
    before = open_source(fields((1, 21, 17))[0], **options)
    OutputStore.create(
        tmp_path / "out", source=before, output_shape=(8, 5), output_dtype="f4", chunk=2,
        attrs=before.described(), forms=Forms((joined(before, np.negative),)),
    ).release()  # fmt: skip
    grown = open_source(fields((1, 33, 17))[0], **options)
    with OutputStore.open(tmp_path / "out", write=False) as store:
        with pytest.raises(FingerprintError, match=r"had 3 along 'tile_y' .*, and has 5: only"):
            follow(grown, store, append=True)
        with pytest.raises(FingerprintError, match=r"begun with tiles .*'tile': 8.*given none"):
            follow(open_source(fields()[0]), store, append=False)


def test_another_process_reads_the_same_rows(tmp_path: Path) -> None:
    path = stored(fields(), tmp_path / "in", 2, 9, 17)
    given: dict[str, Any] = {"data": path, "variable": "t", "tile": {"y": 8, "x": 5}, "halo": 2}
    source = open_source(**given)
    source.follow(Grid((3, 3, 4), (2, 3, 4), begins=(1,)))
    again = open_source(**pickle.loads(pickle.dumps(given)))
    again.follow(pickle.loads(pickle.dumps(source.grid)))
    for rows in ((0, 36), (11, 14), (35, 36)):
        np.testing.assert_array_equal(again.read(*rows), source.read(*rows))

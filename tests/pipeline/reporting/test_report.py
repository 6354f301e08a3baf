import math
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from approxifer.datasets import OutputStore, open_source
from approxifer.pipeline.records import WorkerRecord
from approxifer.pipeline.reporting.report import Report, percent


def make(**changes) -> Report:
    workers = [
        WorkerRecord("worker-10", run=30, dropped=3, latency=0.1234, evaluations=2000),
        WorkerRecord("worker-9", run=31, erased=2, restarts=1, state="gone", unstarted=4),
    ]
    plain = {
        "out": Path("out.zarr"), "rows": 10_000, "counts": {"exact": 9_999, "failed": 1},
        "workers": {worker.name: worker for worker in workers}, "evaluations": 12_500,
        "wall_seconds": 10.0, "setup_seconds": 3.21, "scheme": "systematic K=8 S=1, 9 shares",
    }  # fmt: skip
    return Report(**(plain | changes))


def test_numbers():
    report = make()
    assert (report.scored, report.evaluations_per_query) == (10_000, 1.25)
    assert make(resumed=5_000).evaluations_per_query == 2.5
    assert math.isnan(make(resumed=10_000, evaluations=0).evaluations_per_query)


def test_text():
    lines = str(make(notes=["mind this"], resumed=5_000)).splitlines()
    text = [" ".join(line.split()) for line in lines]
    assert text[0].endswith(": 10,000 rows in out.zarr")
    assert "systematic K=8 S=1, 9 shares" in text
    assert "exact 9,999 99.99" in text
    assert "failed 1 0.01" in text
    assert not any("decoded" in line for line in text)
    first, second = (
        text.index("worker-9 31 0 4 2 0 1 gone"),
        text.index("worker-10 30 3 0 0 2,000 123.4 0 ready"),
    )
    assert first < second
    assert "evaluations per query: 2.500 (12,500 forward passes for 5,000 rows)" in text
    assert "scored in 10 s, 500 rows/s; cluster and models took 3.2 s" in text
    assert "resumed: 5,000 rows were there from earlier sessions" in text
    assert text[-1] == "note: mind this"
    assert "\x1b" not in str(make())
    assert all(line == line.rstrip() for line in lines)


def test_text_of_a_run_with_nothing_to_do():
    text = str(make(resumed=10_000, evaluations=0, workers={}, wall_seconds=0.0, scheme=""))
    assert "evaluations" not in text
    assert "nan" not in text


def test_long_names_are_kept():
    out = Path("/a" * 90) / "out.zarr"
    name = "w" * 60
    text = str(make(out=out, workers={name: WorkerRecord(name)}))
    assert str(out) in text
    assert name in text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 10, "0"), (10, 10, "100"), (1, 3, "33.33"), (99_999, 100_000, "99.99"), (1, 10**6, "0.01"),
     (0, 0, "0")],
)  # fmt: skip
def test_percent(part, whole, text):
    assert percent(part, whole) == text


def test_predictions(tmp_path):
    data = xr.DataArray(np.zeros((20, 3), np.float32), dims=("time", "x"))
    source = open_source(data)
    with OutputStore.create(
        tmp_path / "out.zarr", source=source, output_shape=(2,), output_dtype="f4", chunk=20,
        attrs={},
    ) as store:  # fmt: skip
        store.write_window(0, 20, prediction=np.ones((20, 2), np.float32), status=1)
        store.close(counts={"exact": 20}, workers=[])
    predictions = make(out=tmp_path / "out.zarr").predictions
    assert predictions.sizes["time"] == 20
    assert (predictions.prediction == 1).all()

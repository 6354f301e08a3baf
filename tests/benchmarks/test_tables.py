"""The tables from figures as they come, the synthetic input, and the accounts of memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from approxifer.benchmarks import memory, overhead
from approxifer.benchmarks.memory_run import Watch, peak
from approxifer.benchmarks.toy_model import project


def measured(seconds: float, predictions: np.ndarray, **fields: Any) -> overhead.Measured:
    made = {"setup_seconds": 3.0, "workers": 2, "micro_batch": 64, "block": 64} | fields
    return overhead.Measured(
        seconds=seconds, evaluations_per_query=1.0, predictions=predictions, **made
    )


def test_overhead_compares_with_plain() -> None:
    logits = np.array([[1.0, -4.0]], np.float32)
    plain = {"setup_seconds": None, "micro_batch": None, "block": None}
    results = {
        "rows": 1,
        "model": "m.pt2",
        "ways": {
            "plain": overhead.summary([measured(4.0, logits, **plain), measured(6.0, logits)]),
            "uncoded": overhead.summary([measured(2.5, logits)]),
            "systematic": overhead.summary([measured(10.0, logits)]),
        },
        "agreement": overhead.agreement(
            {"plain": logits + np.float32(0.5), "uncoded": logits, "systematic": logits}
        ),
    }
    text = overhead.describe(results)
    assert [line.split()[6] for line in text.splitlines()[4:7]] == ["1.00", "0.50", "2.00"]
    assert "the same bits; largest difference from plain: 5.0e-01" in text


def test_overhead_notices_other_bits() -> None:
    logits = np.ones((2, 3), np.float32)
    other = np.nextafter(logits, np.float32(2))
    found = overhead.agreement({"plain": logits, "uncoded": logits, "systematic": other})
    assert found["uncoded_systematic_bitwise"] is False
    assert 0 < found["plain_systematic"] < 1e-6


def test_rows_are_of_the_size_asked_for_and_differ(tmp_path: Path) -> None:
    rows = memory.make_rows(tmp_path / "rows.zarr", 0.016)
    made = zarr.open_array(str(tmp_path / "rows.zarr"), mode="r")
    assert made.shape == (rows, memory.FEATURES)
    assert made.nbytes == pytest.approx(0.016e9, rel=0.05)
    first, second = np.asarray(made[:2]), np.asarray(made[memory.CHUNK : memory.CHUNK + 2])
    assert (first != second).any()


def test_the_toy_tells_rows_apart() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    scores = project(rows)
    assert scores.shape == (5, 10)
    assert scores.dtype == np.float32
    assert len(np.unique(scores, axis=0)) == 5


def test_a_large_array_is_seen() -> None:
    with Watch() as watch:
        grown = np.ones(100_000_000, np.uint8)
        while len(watch.samples) < 3:
            pass
    assert max(watch.samples) - min(watch.samples) > 0 or min(watch.samples) > grown.nbytes
    assert peak() >= max(watch.samples) - 1e6

"""Workers that cannot get the model ready: soon reported, with the reason and what to do."""

import time
from pathlib import Path
from typing import Any

import pytest

import approxifer
from approxifer.errors import ClusterError


def score(store: Path, tmp_path: Path, model: str, cluster: dict[str, Any], **options: Any) -> None:
    approxifer.score(
        store,
        model=f"heavy_models:{model}",
        out=tmp_path / "out.zarr",
        scheme="uncoded",
        k=1,
        stragglers=0,
        cluster={"kind": "local", "workers": 2, **cluster},
        progress=False,
        **options,
    )


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("hungry", r"was killed by its memory limit of 900 MB while loading.*more memory"),
        ("ending", r"its process ended 2 times while loading.*look at"),
    ],
)
def test_a_worker_that_dies_of_the_model(
    store: Path, tmp_path: Path, model: str, reason: str
) -> None:
    with pytest.raises(ClusterError, match=reason) as caught:
        score(store, tmp_path, model, {"memory": "900MB"})
    assert "installed" not in str(caught.value)


@pytest.mark.slow
def test_a_memory_limit_too_small_for_any_worker(store: Path, tmp_path: Path) -> None:
    preload = tmp_path / "preload.py"
    preload.write_text("import time\nheld = b'1' * 300_000_000\ntime.sleep(2)\n")
    # Dask may kill it only after it has registered, and then no reason is left to read.
    known = r"killed by its memory limit of 200 MB before.*memory:"
    with pytest.raises(ClusterError, match=rf"{known}|0 are there, and no other came"):
        score(store, tmp_path, "slow", {"memory": "200MB", "preload": str(preload)})


@pytest.mark.slow
def test_a_slow_load_is_waited_for_as_long_as_the_user_says(store: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(ClusterError, match=r"no other got it ready for 1.*raise stall_after="):
        score(store, tmp_path, "slow", {}, stall_after=1.0)
    assert time.monotonic() - began < 60
    score(store, tmp_path, "slow", {}, stall_after=60.0)

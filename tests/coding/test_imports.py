"""The codes are light: workers and schedulers import them without torch's or Dask's weight."""

import subprocess
import sys


def test_only_numpy_is_imported():
    heavy = {"dask", "distributed", "scipy", "sklearn", "torch", "xarray", "zarr"}
    program = f"import sys, approxifer.coding; print(sorted({heavy!r} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"

"""docs/slurm.md, step by step on a real Slurm: what it shows is what happens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from runs import assert_no_jobs
from slurm import Slurm

PAGE = Path(__file__).parents[2] / "docs" / "slurm.md"
#: What the page says of a block, the language, the block.
BLOCK = re.compile(r"<!-- (run|file: \S+) -->\n```\w+\n(.*?)^```", re.M | re.S)


@pytest.mark.timeout(600)
def test_the_page(quiet: Slurm, tmp_path: Path) -> None:
    bin_folder = str(Path(sys.executable).parent)
    env = quiet.env | {"PATH": f"{bin_folder}{os.pathsep}{quiet.env['PATH']}"}
    said = []
    for what, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if what != "run":
            (tmp_path / what.removeprefix("file: ")).write_text(text)
            continue
        done = subprocess.run(
            ["bash", "-e", "-c", text], cwd=tmp_path, env=env, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        log = tmp_path / "whole.log"
        assert done.returncode == 0, done.stderr + (log.read_text() if log.exists() else "")
        said.append(done.stdout)
    assert len(said) == 6
    assert "#SBATCH" in said[1]
    assert not (tmp_path / "plan.zarr").exists()
    assert "1,797 rows" in said[2]
    found = [xr.open_zarr(tmp_path / f"{name}.zarr") for name in ("scores", "night", "whole")]
    for one in found:
        assert set(np.unique(one.status)) <= {1, 3}
        np.testing.assert_array_equal(one.prediction, found[0].prediction)
    assert_no_jobs(quiet)

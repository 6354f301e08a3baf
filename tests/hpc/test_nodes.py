"""A real Slurm of twelve nodes: one bad node must not hold two shares of a codeword."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from runs import Run, assert_no_jobs
from slurm import Slurm


@pytest.fixture(scope="module")
def shape() -> tuple[int, int]:
    return 12, 2


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("workers", "directives", "nodes", "per_node"),
    [(12, ["--exclusive"], 12, 1), (20, [], 10, 2)],
    ids=["a worker on each of 12", "two on each of 10"],
)
def test_conflicting_shares_lie_on_distinct_nodes(
    quiet: Slurm,
    digits: tuple[Path, np.ndarray],
    start: Callable[..., Run],
    workers: int,
    directives: list[str],
    nodes: int,
    per_node: int,
) -> None:
    cluster = {"workers": workers, "job-extra-directives": directives, "memory": "200MB"}
    run = start(digits[0], cluster, "-k", "8", "-s", "1", "--block", "40")
    run.wait(240)
    node = {event["worker"]: event["node"] for event in run.events("name")}
    assert len(node) == workers
    assert sorted(Counter(node.values()).values()) == [per_node] * nodes
    assert set(node.values()) <= set(quiet.nodes)
    groups = run.events("group")
    together = [
        sum(count - 1 for count in Counter(map(node.__getitem__, shares.values())).values())
        for shares in (event["shares"] for event in groups)
    ]
    assert len(groups) > 100
    assert max(len(event["shares"]) for event in groups) >= 8
    assert not any(together), Counter(together)
    assert_no_jobs(quiet)

"""A recording against what the engine would do, with a model of a few NumPy lines."""

import numpy as np
import pytest

from approxifer.benchmarks.recording import record
from approxifer.benchmarks.toy_model import project
from approxifer.coding import CodeSpec, block_rows, gather, groups, order_rows

SPECS = [
    CodeSpec("systematic", k=4, stragglers=0, byzantine=1),
    CodeSpec("berrut", k=3, stragglers=1, byzantine=1),
    CodeSpec("replication", k=4, stragglers=1),
    CodeSpec("uncoded", k=4),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.scheme)
@pytest.mark.parametrize("order", ["none", "random", "similar"])
def test_it_holds_what_the_model_returns_for_every_share(spec: CodeSpec, order: str) -> None:
    rows = np.random.default_rng(0).normal(size=(101, 6)).astype(np.float32)  # uneven
    made = record("toy", rows, project, spec, block=5, order=order, seed=3)
    perm = order_rows(rows, spec.k, how=order, block=5, seed=3)
    cut = groups(len(rows), spec.k, 5)
    assert len(made.outputs) == len(made.members) == len(cut)
    for number, group in enumerate(cut):
        members = perm[group.start : group.stop]
        np.testing.assert_array_equal(made.members[number], members)
        shares = made.code.encode(gather(rows, members, spec.k))
        np.testing.assert_array_equal(made.inputs(number), shares)
        outputs = np.stack([project(share) for share in shares])
        assert made.outputs[number].dtype == outputs.dtype
        np.testing.assert_allclose(made.outputs[number], outputs, atol=1e-6)
    np.testing.assert_allclose(made.plain, project(rows), atol=1e-6)


def test_data_shares_are_the_uncoded_outputs_bit_by_bit() -> None:
    rows = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    made = record("toy", rows, project, SPECS[0], block=4, order="similar")
    for members, outputs in zip(made.members, made.outputs, strict=True):
        for block, of in enumerate(block_rows(members, 4)):
            np.testing.assert_array_equal(outputs[block], made.plain[of])


def test_only_mixtures_are_run_where_the_outputs_are_known() -> None:
    rows = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    first = record("toy", rows, project, SPECS[0], block=4, order="random")
    run: list[int] = []

    def counting(some: np.ndarray) -> np.ndarray:
        run.append(len(some))
        return project(some)

    again = record("toy", rows, counting, SPECS[0], block=4, order="random", plain=first.plain)
    assert sum(run) == 64 // 4 * 2  # two parity shares for every four rows
    for one, other in zip(first.outputs, again.outputs, strict=True):
        np.testing.assert_array_equal(one, other)

"""The paper's locator: its votes, and the shares that `suspects` leaves out, on real images."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.datasets import load_digits

from approxifer.coding import Code, CodeSpec, gather, groups, order_rows
from approxifer.coding.published import (
    MARGIN,
    VOTERS,
    margin,
    published_votes,
    suspects,
)
from approxifer.errors import ConfigError, DecodeError

Forward = Callable[[np.ndarray], np.ndarray]
Corruption = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def noise(size: float) -> Corruption:
    """So many standard deviations of the outputs."""
    return lambda rng, output: (
        output + size * output.std() * rng.normal(size=output.shape)
    ).astype(output.dtype)


#: Each wrong in every row; and in how many groups of 8 like rows one is found at least.
CORRUPTIONS: dict[str, tuple[Corruption, float]] = {
    "noise of 10 sd": (noise(10), 0.97),
    "noise of 2 sd": (noise(2), 0.9),
    "sign flip": (lambda _, output: -output, 0.9),
    "rolled": (lambda _, output: np.roll(output, 1, axis=1), 0.85),
    "zeros": (lambda _, output: np.zeros_like(output), 0.6),
    "rows shuffled": (lambda _, output: np.roll(output, 1, axis=0), 0.6),
}
SPECS = [CodeSpec("berrut", 8, s, e) for e, s in ((1, 0), (1, 1), (2, 0), (2, 1))]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return (load_digits().images / 16).astype(np.float32)


@pytest.fixture(scope="module")
def model(images: np.ndarray) -> Forward:
    """One layer of random features, and a second fitted by least squares: 95 % accurate."""
    labels = np.eye(10)[load_digits().target]
    rng = np.random.default_rng(0)
    first, bias = rng.normal(size=(64, 300)) / 4, rng.normal(size=300)

    def features(rows: np.ndarray) -> np.ndarray:
        return np.maximum(rows.reshape(*rows.shape[:-2], 64) @ first + bias, 0)

    hidden = features(images[:1000])
    last = np.linalg.solve(hidden.T @ hidden + np.eye(300), hidden.T @ labels[:1000])
    return lambda rows: (features(rows) @ last).astype(np.float32)


@lru_cache
def ordered(how: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Some images, and their order for K = 8."""
    images = (load_digits().images / 16).astype(np.float32)
    some = np.random.default_rng(number).permutation(len(images))[:1536]
    return some, order_rows(images[some], 8, how, seed=number)


def correct(
    code: Code, images: np.ndarray, model: Forward, *, block: int, order: str, rounds: int = 1
) -> Iterator[np.ndarray]:
    """Outputs (N, B, 10) of whole groups."""
    for number in range(rounds):
        some, perm = ordered(order, number)
        for one in groups(len(some), code.k, block):
            rows = gather(images[some], perm[one.start : one.stop], code.k)
            yield model(code.encode(rows))


def kept(outputs: np.ndarray, lost: np.ndarray | list[int] = ()) -> dict[int, np.ndarray]:
    return {i: output for i, output in enumerate(outputs) if i not in lost}


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("order", ["random", "similar"])
@pytest.mark.parametrize("block", [1, 8])
def test_few_clean_groups_have_a_suspect(spec, order, block, images, model):
    code, rng, found = spec.build(), np.random.default_rng(0), []
    for outputs in islice(correct(code, images, model, block=block, order=order, rounds=4), 90):
        lost = rng.permutation(code.n)[: rng.integers(spec.stragglers + 1)]
        found.append(bool(code.suspects(kept(outputs, lost))))
    assert len(found) == 90
    assert sum(found) <= binom.ppf(0.99, len(found), 0.01)


@pytest.mark.parametrize("spec", SPECS[:2], ids=str)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_wrong_share_is_found_also_where_shares_are_missing(spec, name, images, model):
    """And correct shares are not blamed for it."""
    code, rng = spec.build(), np.random.default_rng(0)
    corrupt, least = CORRUPTIONS[name]
    found, blamed = [], []
    for outputs in correct(code, images, model, block=8, order="similar", rounds=2):
        *lost, faulty = rng.permutation(code.n)[: spec.stragglers + 1].tolist()
        outputs[faulty] = corrupt(rng, outputs[faulty])
        named = code.suspects(kept(outputs, lost))
        found.append(faulty in named)
        blamed.append(bool(named - {faulty}))
    assert np.mean(found) >= least
    assert np.mean(blamed) <= 0.1


@pytest.mark.parametrize("spec", SPECS[2:], ids=str)
@pytest.mark.parametrize(
    ("name", "least"), [("noise of 10 sd", 0.95), ("noise of 2 sd", 0.9), ("rolled", 0.55)]
)
def test_two_wrong_shares_are_found_together(spec, name, least, images, model):
    code, rng = spec.build(), np.random.default_rng(0)
    corrupt, _ = CORRUPTIONS[name]
    found = []
    for outputs in correct(code, images, model, block=8, order="similar", rounds=2):
        *lost, one, other = rng.permutation(code.n)[: spec.stragglers + 2].tolist()
        outputs[one], outputs[other] = corrupt(rng, outputs[one]), corrupt(rng, outputs[other])
        found.append(code.suspects(kept(outputs, lost)) == {one, other})
    assert np.mean(found) >= least


def test_one_wrong_share_of_two_allowed_is_mostly_named_alone(images, model):
    code, rng = SPECS[2].build(), np.random.default_rng(0)
    corrupt, _ = CORRUPTIONS["noise of 10 sd"]
    alone = []
    for outputs in correct(code, images, model, block=8, order="similar"):
        faulty = int(rng.integers(code.n))
        outputs[faulty] = corrupt(rng, outputs[faulty])
        alone.append(code.suspects(kept(outputs)) == {faulty})
    assert np.mean(alone) >= 0.9


@pytest.mark.parametrize(("name", "least"), [("noise of 10 sd", 1.0), ("zeros", 0.9)])
def test_the_share_at_node_zero_without_votes_is_found_too(name, least, images, model):
    """Zeros are found there in 4 groups of 100 by the votes alone."""
    code, rng = SPECS[0].build(), np.random.default_rng(0)
    (zero,) = np.flatnonzero(np.abs(code.nodes) < 1e-9).tolist()
    corrupt, _ = CORRUPTIONS[name]
    found = []
    for outputs in correct(code, images, model, block=8, order="similar"):
        outputs[zero] = corrupt(rng, outputs[zero])
        found.append(code.suspects(kept(outputs)) == {zero})
    assert np.mean(found) >= least


@pytest.mark.parametrize("order", ["random", "similar"])
def test_leaving_the_suspects_out_keeps_the_decoded_classes(order, images, model):
    """Decoded classes against the model's own: nearly as good as without a wrong share."""
    code, rng = SPECS[1].build(), np.random.default_rng(0)
    corrupt, _ = CORRUPTIONS["noise of 10 sd"]
    right: dict[str, list[float]] = {"clean": [], "spoilt": [], "left out": []}
    perm = order_rows(images[:1536], code.k, order)
    for one in groups(1536, code.k, 8):
        blocks = gather(images[:1536], perm[one.start : one.stop], code.k)
        classes = model(blocks).argmax(axis=2)
        outputs = model(code.encode(blocks))
        lost, faulty = rng.permutation(code.n)[:2].tolist()
        clean = kept(outputs, [lost])
        wrong = clean | {faulty: corrupt(rng, outputs[faulty])}
        named = code.suspects(wrong)
        cleared = {i: output for i, output in wrong.items() if i not in named}
        for name, some in (("clean", clean), ("spoilt", wrong), ("left out", cleared)):
            right[name].append(float((code.decode(some).blocks.argmax(axis=2) == classes).mean()))
    clean, spoilt, left_out = (np.mean(right[name]) for name in ("clean", "spoilt", "left out"))
    assert spoilt < clean - 0.04
    assert left_out > clean - 0.02


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_shares_that_are_not_finite_are_the_first_suspects(value, images, model):
    one, two = SPECS[0].build(), SPECS[2].build()
    outputs = next(correct(one, images, model, block=8, order="similar"))
    outputs[3, 5, 2] = value
    outputs[4] *= -3
    assert one.suspects(kept(outputs)) == {3}
    outputs = next(correct(two, images, model, block=8, order="similar"))
    outputs[3, 5, 2] = value
    assert two.suspects(kept(outputs)) == {3}
    outputs[4] *= -3
    assert two.suspects(kept(outputs)) == {3, 4}
    outputs[5, 0, 0] = outputs[6, 0, 0] = value
    assert two.suspects(kept(outputs)) == {3, 5}  # E of them: it is told no more


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_huge_numbers_are_looked_at_without_a_warning(dtype, images, model):
    code = SPECS[0].build()
    outputs = next(correct(code, images, model, block=1, order="similar")).astype(dtype)
    outputs[12] = np.finfo(dtype).max
    assert code.suspects(kept(outputs)) == {12}


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-30, -3e4])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_outputs_that_are_all_alike_are_no_reason_for_suspicion(value, dtype):
    code = SPECS[2].build()
    outputs = np.full((code.n, 3, 4), value).astype(dtype)
    assert code.suspects(kept(outputs)) == frozenset()


@pytest.mark.parametrize("k", [1, 2, 3])
def test_single_numbers_of_small_codewords(k):
    """Eight rows of scalar outputs; one share is far off."""
    code, rng = CodeSpec("berrut", k, 1, 1).build(), np.random.default_rng(0)
    blamed, found = 0, 0
    for number in range(60):
        outputs = np.sin(code.encode(rng.uniform(-2, 2, size=(k, 8))))
        blamed += bool(code.suspects(kept(outputs)))
        outputs[number % code.n] += 10 * rng.normal(size=8)
        found += code.suspects(kept(outputs)) == {number % code.n}
    assert blamed <= 6
    assert found >= 45


def test_many_outputs_are_represented_by_some_voters():
    code, rng = CodeSpec("berrut", 4, 0, 1).build(), np.random.default_rng(0)
    phases = rng.uniform(0, 6, size=4 * VOTERS)
    outputs = np.sin(np.array(code.nodes)[:, None, None] + phases.reshape(1, 4, -1))
    for faulty in range(code.n):
        wrong = outputs.copy()
        wrong[faulty] += rng.normal(size=wrong[faulty].shape)
        assert code.suspects(kept(wrong)) == {faulty}


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.sampled_from([*SPECS, CodeSpec("berrut", 1, 0, 2)]), st.integers(0, 99), st.data())
def test_never_more_than_e_and_the_same_in_any_order(spec, seed, data):
    code, rng = spec.build(), np.random.default_rng(seed)
    outputs = rng.normal(size=(code.n, 3, 2)) * np.exp(rng.normal(size=(code.n, 1, 1)) * 3)
    for share in data.draw(st.sets(st.integers(0, code.n - 1), max_size=code.n)):
        outputs[share, 0, 0] = data.draw(st.sampled_from([np.nan, np.inf, -1e300, 1e99, 0.0]))
    outputs.setflags(write=False)
    present = data.draw(st.permutations(range(code.n)))[: data.draw(st.integers(1, code.n))]
    named = code.suspects({i: outputs[i] for i in present})
    assert len(named) <= spec.byzantine
    assert named <= set(present)
    assert named == code.suspects({i: outputs[i] for i in sorted(present)})


@pytest.mark.parametrize(
    "output", [np.arange(3), np.array(["a"]), np.ones((0, 4)), np.ones((2, 0))]
)
def test_only_floating_point_is_compared(output):
    code = SPECS[0].build()
    assert code.suspects(dict.fromkeys(range(code.n), output)) == frozenset()


@pytest.mark.parametrize(
    "spec",
    [
        CodeSpec("uncoded", 4, 0, 1),
        CodeSpec("systematic", 4, 1, 1),
        CodeSpec("parm", 4, 1),
        CodeSpec("berrut", 4, 2),
        CodeSpec("replication", 4, 2),
    ],
    ids=str,
)
def test_codes_without_a_locator_name_no_share(spec):
    code = spec.build()
    outputs = np.random.default_rng(0).normal(size=(code.n, 3, 2))
    outputs[0] = np.nan
    outputs[1] += 1000
    assert code.suspects(kept(outputs)) == frozenset()


@pytest.mark.parametrize("scheme", ["uncoded", "systematic", "berrut", "replication"])
def test_outputs_of_different_shapes_are_refused(scheme):
    code = CodeSpec(scheme, 3, 0, 1).build()
    outputs = dict.fromkeys(range(code.n), np.ones((2, 4)))
    with pytest.raises(DecodeError, match="share 2 returned"):
        code.suspects(outputs | {2: np.ones((2, 5))})
    with pytest.raises(DecodeError, match="no share came back"):
        code.suspects({})


def test_too_few_shares_cannot_be_told_apart():
    nodes = CodeSpec("berrut", 2, 0, 1).build().nodes
    outputs = {0: np.zeros(4), 2: np.ones(4)}
    assert suspects(outputs, nodes, 2, 1) == frozenset()
    assert suspects(outputs | {3: np.full(4, np.nan)}, nodes, 2, 1) == {3}


def test_a_single_row_has_to_be_odder_than_many():
    assert margin(1) > margin(8) > margin(64) > MARGIN
    assert margin(0) == margin(1)


VOTING_SPECS = [
    CodeSpec("berrut", k, s, e) for k, s, e in [(4, 0, 1), (4, 1, 2), (5, 1, 1), (4, 0, 3)]
]


def low_degree(rng, nodes, k, rows=4, coordinates=6):
    """Outputs (n, rows, coordinates) that are polynomials of degree below K in the node."""
    coefficients = rng.normal(size=(k, rows, coordinates))
    return np.einsum("nd,drc->nrc", np.vander(nodes, k), coefficients)


def rational(rng, nodes, k, rows=4, coordinates=6):
    """Outputs 1 / (z - pole) with poles off the line: P / Q with Q of degree 1."""
    poles = rng.uniform(1.5, 3, (rows, coordinates)) * rng.choice([-1, 1], (rows, coordinates))
    return 1 / (np.array(nodes)[:, None, None] - poles)


def one_by_one(outputs, nodes, k, e):
    """The votes of the authors' scripts: a loop over the coordinates, decreasing powers."""
    votes = np.zeros((outputs.shape[1], len(nodes)), int)
    for row in range(outputs.shape[1]):
        for y in outputs[:, row].reshape(len(nodes), -1).T:
            powers = np.vander(nodes, k + e)
            system = np.hstack([powers, -powers[:, :-1] * y[:, None]])
            solution = np.linalg.lstsq(system, y, rcond=1e-15)[0]
            q = np.polyval([*solution[k + e :], 1], nodes)
            votes[row, np.argsort(np.abs(q))[:e]] += 1
    return votes


@pytest.mark.parametrize("shape", [(3, 5), (3,), (2, 2, 3)])
def test_all_coordinates_at_once_vote_as_one_by_one(shape):
    code = CodeSpec("berrut", 3, 1, 2).build()
    outputs = np.random.default_rng(0).normal(size=(code.n, *shape))
    votes = published_votes(outputs, code.nodes, 3, 2)
    np.testing.assert_array_equal(votes, one_by_one(outputs, np.array(code.nodes), 3, 2))
    assert (votes.sum(axis=1) == 2 * np.prod(shape[1:])).all()


def test_nonsense_is_refused():
    nodes = CodeSpec("berrut", 2, 0, 1).build().nodes
    with pytest.raises(ConfigError, match="6 shares' outputs need as many nodes, not 5"):
        published_votes(np.ones((6, 2)), nodes[:5], 2, 1)
    with pytest.raises(ConfigError, match="not finite; leave those shares out"):
        published_votes(np.full((6, 2), np.nan), nodes, 2, 1)

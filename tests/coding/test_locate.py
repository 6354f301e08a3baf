"""Who is suspected: by what the other shares foretell, in one group alone or with history."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from approxifer.coding import Baseline, CodeSpec, Location
from approxifer.coding.foretelling import covariance, expected_precision
from approxifer.errors import ConfigError, DecodeError

fixed = settings(derandomize=True, deadline=None, max_examples=60)
SPECS = [
    CodeSpec("systematic", 8, 0, 1),
    CodeSpec("systematic", 6, 1, 2),
    CodeSpec("berrut", 5, 1, 1),
]


def network(rng, kind, outputs=10):
    """A random function of 5 features. Of none of these kinds the threshold was set on."""
    first = rng.normal(size=(5, 24)) * rng.uniform(0.2, 1.1)
    bias = rng.normal(size=24)
    last = rng.normal(size=(24, outputs)) / 5
    if kind == "sine":
        return lambda x: np.sin(x @ first + bias) @ last
    return lambda x: np.logaddexp(0, x @ first + bias) @ last


def codewords(rng, kind, k, rows):
    """Queries (k, rows, 5) along smooth curves, with a jump, or in like pairs."""
    t = np.linspace(0, 1, k)[:, None, None]
    start, step = rng.normal(size=(2, 1, rows, 5))
    match kind:
        case "curve":
            return np.sin(start + step * t)
        case "jump":
            return start + 0.3 * t * step + (t > rng.uniform()) * rng.normal(size=(1, rows, 5))
        case _:
            like = np.repeat(rng.normal(size=(-(-k // 2), rows, 5)), 2, axis=0)[:k]
            return like + 0.2 * rng.normal(size=(k, rows, 5))


def group(code, rng, model, kind="jump", rows=8):
    """Honest outputs (n, rows, 10) of a group."""
    return model(code.encode(codewords(rng, kind, code.k, rows))).astype(np.float32)


def lied(rng, outputs, liars, size=2.0):
    """Noise of so many standard deviations of the outputs added to some shares."""
    outputs = outputs.copy()
    outputs[liars] += size * outputs.std() * rng.normal(size=outputs[liars].shape)
    return outputs


def history(code, rng, model, kind, count=150):
    """Deviations (count, n) of clean groups."""
    groups = (dict(enumerate(group(code, rng, model, kind))) for _ in range(count))
    return np.array([list(code.deviations(outputs).values()) for outputs in groups])


def baseline(deviations, rate=0.005):
    center = np.median(deviations, axis=0)
    spread = 1.4826 * np.median(np.abs(deviations - center), axis=0)
    highest = ((deviations - center) / spread).max(axis=1)
    return Baseline(center, spread, float(np.quantile(highest, 1 - rate)))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("kind", ["curve", "jump", "pairs"])
@pytest.mark.parametrize("made_of", ["sine", "softplus"])
def test_at_most_one_in_a_hundred_clean_groups_has_a_suspect(spec, kind, made_of):
    code = spec.build()
    rng = np.random.default_rng(spec.n)
    suspected = 0
    for index in range(300):
        if index % 10 == 0:
            model = network(rng, made_of)
        outputs = group(code, rng, model, kind)
        lost = rng.permutation(code.n)[: rng.integers(spec.stragglers + 1)]
        found = code.locate({i: outputs[i] for i in range(code.n) if i not in lost})
        suspected += bool(found.suspects)
    assert suspected <= binom.ppf(0.99, 300, 0.01)


@pytest.mark.parametrize("spec", SPECS)
def test_a_liar_is_named_whichever_share_it_has(spec):
    code = spec.build()
    rng = np.random.default_rng(0)
    model = network(rng, "sine")
    for liar in range(code.n):
        outputs = group(code, rng, model, "curve", rows=64)
        assert not code.locate(dict(enumerate(outputs))).suspects
        found = code.locate(dict(enumerate(lied(rng, outputs, [liar]))))
        assert found.suspects == {liar}
        assert max(found.scores, key=found.scores.get) == liar


def test_two_liars_do_not_hide_each_other():
    code = CodeSpec("systematic", 8, 0, 2).build()
    rng = np.random.default_rng(0)
    model = network(rng, "softplus")
    pairs = list(combinations(range(code.n), 2))
    right = 0
    for pair in pairs:
        outputs = lied(rng, group(code, rng, model, "curve"), list(pair))
        right += code.locate(dict(enumerate(outputs))).suspects == set(pair)
    assert right > 0.9 * len(pairs)


@pytest.mark.parametrize("kind", ["curve", "jump", "pairs"])
def test_with_history_one_liar_of_two_allowed_is_named_alone(kind):
    """Though it makes its honest neighbours look bad."""
    code = CodeSpec("systematic", 8, 0, 2).build()
    rng = np.random.default_rng(0)
    model = network(rng, "softplus")
    usual = baseline(history(code, rng, model, kind))
    alone = blamed = 0
    for index in range(120):
        liar = index % code.n
        outputs = lied(rng, group(code, rng, model, kind), [liar])
        found = code.locate(dict(enumerate(outputs)), usual)
        alone += found.suspects == {liar}
        blamed += any(score > usual.threshold for i, score in found.scores.items() if i != liar)
    assert alone > 0.9 * 120
    assert blamed > 0.5 * 120


@pytest.mark.parametrize("kind", ["curve", "jump", "pairs"])
def test_history_sees_small_lies_and_seldom_what_is_none(kind):
    """Its threshold is set on other groups than those that are judged."""
    code = CodeSpec("systematic", 8, 0, 1).build()
    rng = np.random.default_rng(0)
    model = network(rng, "softplus")
    usual = baseline(history(code, rng, model, kind, 300), rate=0.005)
    named = named_without = suspected = 0
    for index in range(200):
        liar = index % code.n
        outputs = group(code, rng, model, kind)
        suspected += bool(code.locate(dict(enumerate(outputs)), usual).suspects)
        outputs = dict(enumerate(lied(rng, outputs, [liar], size=0.5)))
        named += code.locate(outputs, usual).suspects == {liar}
        named_without += code.locate(outputs).suspects == {liar}
    assert suspected <= binom.ppf(0.99, 200, 0.01)
    assert named > 0.4 * 200
    assert named_without < 0.1 * 200


def test_scores_by_a_baseline_are_in_spreads_above_the_centre():
    code = CodeSpec("systematic", 4, 1, 1).build()
    rng = np.random.default_rng(0)
    outputs = dict(enumerate(group(code, rng, network(rng, "sine"))))
    del outputs[2]
    center, spread = rng.normal(size=code.n), rng.uniform(1, 2, code.n)
    deviations = code.deviations(outputs)
    found = code.locate(outputs, Baseline(center, spread, threshold=1e9))
    assert found.suspects == frozenset()
    assert found.scores == {i: (deviations[i] - center[i]) / spread[i] for i in outputs}
    assert len(code.locate(outputs, Baseline(center, spread, threshold=-1e9)).suspects) == 1


@fixed
@given(st.sampled_from(SPECS), st.booleans(), st.integers(0, 99), st.data())
def test_never_more_suspects_than_e_and_the_order_of_outputs_does_not_matter(
    spec, usual, seed, data
):
    code = spec.build()
    rng = np.random.default_rng(seed)
    outputs = rng.normal(size=(code.n, 3, 2)) * np.exp(rng.normal(size=(code.n, 1, 1)) * 3)
    for share in data.draw(st.sets(st.integers(0, code.n - 1), max_size=code.n)):
        outputs[share, 0, 0] = data.draw(st.sampled_from([np.nan, np.inf, -1e300, 0.0]))
    outputs.setflags(write=False)
    present = data.draw(st.permutations(range(code.n)))[: data.draw(st.integers(1, code.n))]
    known = Baseline(np.zeros(code.n), np.ones(code.n), 0.5) if usual else None
    found = code.locate({i: outputs[i] for i in present}, known)
    assert len(found.suspects) <= spec.byzantine
    assert found.suspects <= set(present)
    assert set(found.scores) <= set(present)
    assert found == code.locate({i: outputs[i] for i in sorted(present)}, known)


@pytest.mark.parametrize("scheme", ["uncoded", "replication", "berrut", "systematic"])
def test_nobody_is_suspected_where_nobody_may_lie(scheme):
    code = CodeSpec(scheme, 4, 2).build()
    outputs = np.random.default_rng(0).normal(size=(code.n, 3, 2))
    outputs[0] += 1000
    assert code.locate(dict(enumerate(outputs))).suspects == frozenset()


def test_uncoded_shares_have_nothing_to_be_held_against():
    code = CodeSpec("uncoded", 3, byzantine=1).build()
    outputs = dict(enumerate(np.ones((3, 2))))
    assert code.deviations(outputs) == {}
    assert code.locate(outputs) == Location(frozenset(), {})


@pytest.mark.parametrize("lost", [[], [1, 6]])
def test_a_deviation_is_that_from_the_best_linear_prediction(lost, nodes):
    """Kriging with an unknown mean, as textbooks solve it: by a Lagrange multiplier."""
    spec = CodeSpec("systematic", 6, 1, 1)
    code = spec.build()
    expected = covariance(*(tuple(some) for some in nodes(spec)))
    outputs = np.random.default_rng(0).normal(size=(code.n, 4, 3))
    present = [i for i in range(code.n) if i not in lost]
    found = code.deviations({i: outputs[i] for i in present})
    assert list(found) == present
    for i in present:
        others = [m for m in present if m != i]
        system = np.ones((len(others) + 1,) * 2)
        system[-1, -1] = 0
        system[:-1, :-1] = expected[np.ix_(others, others)]
        weights = np.linalg.solve(system, [*expected[others, i], 1])
        variance = expected[i, i] - weights @ [*expected[others, i], 1]
        residual = outputs[i] - np.tensordot(weights[:-1], outputs[others], 1)
        assert found[i] == pytest.approx(0.5 * np.log(np.square(residual).mean() / variance))


def test_deviations_know_no_offset_and_scale_with_the_outputs():
    code = CodeSpec("berrut", 4, 0, 1).build()
    outputs = np.random.default_rng(0).normal(size=(code.n, 4, 3))
    plain = np.array(list(code.deviations(dict(enumerate(outputs))).values()))
    scaled = np.array(list(code.deviations(dict(enumerate(5 * outputs + 300))).values()))
    np.testing.assert_allclose(scaled, plain + np.log(5), atol=1e-9)


def test_long_outputs_are_looked_at_to_their_end():
    code = CodeSpec("systematic", 2, 0, 1).build()
    outputs = np.zeros((code.n, 2, 200_000), np.float32)
    outputs[1, -1, -1] = 1
    found = code.deviations(dict(enumerate(outputs)))
    assert max(found, key=found.get) == 1
    assert found[1] > np.log(1e-4)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-30, -3e4])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_outputs_that_are_all_alike_are_no_reason_for_suspicion(value, dtype):
    code = CodeSpec("systematic", 8, 0, 2).build()
    outputs = np.full((code.n, 3, 4), value).astype(dtype)
    deviations = code.deviations(dict(enumerate(outputs)))
    assert np.isfinite(list(deviations.values())).all()
    assert code.locate(dict(enumerate(outputs))).suspects == frozenset()


def test_a_share_that_differs_from_equal_ones_is_named():
    code = CodeSpec("systematic", 1, 0, 1).build()
    outputs = np.ones((3, 4, 2))
    outputs[2, 1, 1] = 1.001
    assert code.locate(dict(enumerate(outputs))).suspects == {2}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_shares_that_are_not_finite_are_left_out_of_what_is_foretold(value):
    code = CodeSpec("systematic", 6, 0, 1).build()
    outputs = dict(enumerate(np.random.default_rng(0).normal(size=(code.n, 3, 2))))
    without = {i: output for i, output in outputs.items() if i != 3}
    outputs[3] = np.where(np.eye(3, 2, dtype=bool), value, outputs[3])
    assert code.deviations(outputs) == code.deviations(without) | {3: np.inf}
    found = code.locate(outputs)
    assert found.suspects == {3}
    assert found.scores[3] == np.inf


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_flipped_exponent_bit_blames_nobody_else(dtype):
    code = CodeSpec("systematic", 6, 0, 2).build()
    rng = np.random.default_rng(0)
    outputs = group(code, rng, network(rng, "sine")).astype(dtype)
    for liar in range(code.n):
        wrong = outputs.copy()
        wrong[liar, 0, 0] = np.finfo(dtype).max / 2
        assert code.locate(dict(enumerate(wrong))).suspects == {liar}


def test_fewer_than_three_shares_cannot_be_told_apart():
    code = CodeSpec("systematic", 3, 0, 1).build()
    outputs = {0: np.zeros(4), 2: np.ones(4), 3: np.full(4, np.nan)}
    assert code.deviations(outputs) == {3: np.inf}
    assert code.locate(outputs) == Location(frozenset({3}), {3: np.inf})
    usual = Baseline(np.zeros(5), np.ones(5), -np.inf)
    assert code.locate({0: np.zeros(4), 2: np.ones(4)}, usual) == Location(frozenset(), {})


@pytest.mark.parametrize(
    "output", [np.arange(3), np.array(["a"]), np.ones((0, 4)), np.ones((2, 0))]
)
def test_only_floating_point_is_compared(output):
    code = CodeSpec("systematic", 3, 0, 1).build()
    outputs = dict.fromkeys(range(code.n), output)
    assert code.deviations(outputs) == {}
    assert code.locate(outputs) == Location(frozenset(), {})


def test_outputs_of_different_shapes_are_refused():
    code = CodeSpec("systematic", 3, 0, 1).build()
    outputs = dict.fromkeys(range(4), np.ones((2, 4))) | {4: np.ones((2, 5))}
    for question in (code.deviations, code.locate):
        with pytest.raises(DecodeError, match="share 4 returned"):
            question(outputs)


@pytest.mark.parametrize(
    ("center", "spread", "message"),
    [
        (np.zeros(4), np.ones(5), r"shape \(4,\), spread \(5,\)"),
        (np.zeros((2, 2)), np.ones((2, 2)), "one number of each for each share"),
        (np.zeros(5), np.zeros(5), "spread positive"),
        (np.full(5, np.nan), np.ones(5), "center must be finite"),
    ],
)
def test_a_baseline_that_is_none_is_refused(center, spread, message):
    with pytest.raises(ConfigError, match=message):
        Baseline(center, spread, 5.0)


def test_a_baseline_of_another_code_is_refused():
    code = CodeSpec("systematic", 3, 0, 1).build()
    with pytest.raises(ConfigError, match="the baseline is of 4 shares, this code has 5"):
        code.locate(dict(enumerate(np.ones((5, 2)))), Baseline(np.zeros(4), np.ones(4), 5.0))


def test_expected_precisions_are_made_once_and_cannot_be_spoilt():
    arguments = ((0.6, -0.5), (0.9, 0.6, -0.5, -0.9), (0, 1, 3))
    weights = expected_precision(*arguments)
    assert expected_precision(*arguments) is weights
    np.testing.assert_allclose(weights.sum(axis=1), 0, atol=1e-12)
    with pytest.raises(ValueError, match="read-only"):
        weights[0, 0] = 7

"""The promises of every code, whatever goes in."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from approxifer.coding import CodeSpec
from approxifer.coding.interpolation import interpolation
from approxifer.errors import ConfigError, DecodeError

SCHEMES = ["uncoded", "replication", "berrut", "systematic"]
fixed = settings(derandomize=True, deadline=None, max_examples=60)


@st.composite
def specs(draw, schemes=SCHEMES):
    scheme = draw(st.sampled_from(schemes))
    sizes = (draw(st.integers(*bounds)) for bounds in ((1, 12), (0, 4), (0, 2)))
    return CodeSpec(scheme, *sizes)


@st.composite
def enough(draw, code):
    """Shares of which at most S are lost, and E left out."""
    most = code.spec.stragglers + code.spec.byzantine
    lost = draw(st.sets(st.integers(0, code.n - 1), max_size=most))
    kept = [i for i in range(code.n) if i not in lost]
    return list(range(code.n)) if code.spec.scheme == "uncoded" else kept


def blocks_for(spec, seed, dtype=np.float64, shape=(3, 2, 2)):
    return np.random.default_rng(seed).normal(size=(spec.k, *shape)).astype(dtype)


@fixed
@given(specs(), st.integers(0, 9), st.floats(-3, 3), st.data())
def test_linear_in_the_queries_and_in_the_outputs(spec, seed, factor, data):
    code = spec.build()
    x, y = blocks_for(spec, seed), blocks_for(spec, seed + 1)
    ex, ey, both = code.encode(x), code.encode(y), code.encode(x + factor * y)
    np.testing.assert_allclose(both, ex + factor * ey, atol=1e-11)
    present = data.draw(enough(code))
    dx, dy = (code.decode({i: e[i] for i in present}).blocks for e in (ex, ey))
    both = code.decode({i: ex[i] + factor * ey[i] for i in present}).blocks
    np.testing.assert_allclose(both, dx + factor * dy, atol=1e-11)


@fixed
@given(specs(), st.floats(-1e6, 1e6), st.data())
def test_constants_are_reproduced(spec, value, data):
    code = spec.build()
    blocks = np.full((spec.k, 2, 3), value)
    shares = code.encode(blocks)
    np.testing.assert_allclose(shares, value, rtol=1e-13)
    present = data.draw(enough(code))
    outputs = {i: shares[i] for i in present}
    np.testing.assert_allclose(code.decode(outputs).blocks, value, rtol=1e-12)


@fixed
@given(specs(), st.sampled_from([np.float32, np.float64]), st.data())
def test_exact_means_bitwise(spec, dtype, data):
    code = spec.build()
    blocks = blocks_for(spec, 0, dtype)
    shares = code.encode(blocks)
    assert shares.dtype == dtype
    for share, block in enumerate(code.carries):
        if block is not None:
            assert shares[share].tobytes() == blocks[block].tobytes()
    present = data.draw(enough(code))
    decoded = code.decode({i: np.tanh(shares[i]) for i in present})
    assert decoded.blocks.dtype == dtype
    assert decoded.exact.dtype == bool
    np.testing.assert_array_equal(decoded.exact, code.exact(present))
    for j in np.flatnonzero(decoded.exact):
        assert decoded.blocks[j].tobytes() == np.tanh(blocks[j]).tobytes()


@fixed
@given(specs(["uncoded", "replication", "systematic"]), st.integers(0, 9))
def test_nothing_lost_nothing_changed(spec, seed):
    code = spec.build()
    blocks = blocks_for(spec, seed)
    decoded = code.decode(dict(enumerate(code.encode(blocks))))
    assert decoded.exact.all()
    assert decoded.blocks.tobytes() == blocks.tobytes()


@pytest.mark.parametrize("scheme", ["uncoded", "replication"])
@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "U3", "float32", "complex64"])
def test_copies_of_any_dtype(scheme, dtype):
    code = CodeSpec(scheme, 3).build()
    blocks = np.random.default_rng(0).integers(0, 99, (3, 4, 2)).astype(dtype)
    shares = code.encode(blocks)
    decoded = code.decode(dict(enumerate(shares))).blocks
    assert shares.dtype == decoded.dtype == dtype
    np.testing.assert_array_equal(decoded, blocks)


@pytest.mark.parametrize("dtype", ["float16", ">f4", "longdouble"])
def test_other_floating_point_dtypes_are_kept(dtype):
    code = CodeSpec("systematic", 4, 2).build()
    blocks = blocks_for(code.spec, 0, dtype)
    shares = code.encode(blocks)
    decoded = code.decode({i: shares[i] for i in (0, 2, 4, 5)}).blocks
    reference = code.decode({i: shares[i].astype(float) for i in (0, 2, 4, 5)}).blocks
    assert shares.dtype == decoded.dtype == np.dtype(dtype)
    np.testing.assert_allclose(decoded.astype(float), reference, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", [(4,), (1,), (0,), (2, 0), (2, 3, 4)])
def test_blocks_of_any_shape(scheme, shape):
    code = CodeSpec(scheme, 3, 2).build()
    blocks = np.ones((3, *shape), np.float32)
    shares = code.encode(blocks)
    assert shares.shape == (code.n, *shape)
    decoded = code.decode({i: shares[i] for i in range(code.n)[-9:]})
    assert decoded.blocks.shape == blocks.shape
    np.testing.assert_allclose(decoded.blocks, 1, rtol=1e-6)
    assert code.residual(dict(enumerate(shares))).shape == shape[:1]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_nothing_passed_in_is_modified_or_handed_back(scheme):
    code = CodeSpec(scheme, 3, 1).build()
    blocks = blocks_for(code.spec, 0)
    blocks.setflags(write=False)
    shares = code.encode(blocks)
    assert not np.shares_memory(shares, blocks)
    outputs = dict(enumerate(shares.copy()))
    for output in outputs.values():
        output.setflags(write=False)
    decoded = code.decode(outputs)
    code.residual(outputs)
    assert list(outputs) == list(range(code.n))
    assert not any(np.shares_memory(decoded.blocks, output) for output in outputs.values())
    decoded.blocks[:] = 0  # writable


def test_a_view_that_is_not_contiguous_is_encoded_alike():
    code = CodeSpec("berrut", 3, 1).build()
    rows = np.random.default_rng(0).normal(size=(5, 3, 4))
    view = rows.transpose(1, 0, 2)
    np.testing.assert_array_equal(code.encode(view), code.encode(view.copy()))


def test_outputs_may_come_in_any_order():
    code = CodeSpec("systematic", 4, 2).build()
    shares = code.encode(blocks_for(code.spec, 0))
    there = code.decode({i: shares[i] for i in (1, 3, 4, 5)}).blocks
    back = code.decode({i: shares[i] for i in (5, 4, 3, 1)}).blocks
    np.testing.assert_array_equal(there, back)


def test_any_numbers_are_decoded_without_a_warning():
    """And those of one codeword stay in that codeword."""
    code = CodeSpec("systematic", 4, 2).build()
    strange = np.array([np.nan, np.inf, 3e38, -np.inf, 1])[:, None]
    shares = code.encode(np.ones((4, 5, 2), np.float32))
    shares[4:] = strange
    decoded = code.decode({i: shares[i] for i in (0, 1, 4, 5)}).blocks
    np.testing.assert_array_equal(decoded[:2], 1)
    assert not np.isfinite(decoded[2:, [0, 1, 3]]).any()
    np.testing.assert_allclose(decoded[2:, 4], 1, rtol=1e-6)
    for lost in ([], [0]):
        residual = code.residual({i: shares[i] for i in range(6) if i not in lost})
        assert np.isnan(residual[0])
        assert not (residual[1:4] < 1e30).any()
        assert residual[4] < 1e-6
    mixed = code.encode(np.broadcast_to(strange, (4, 5, 2)).astype(np.float32))[4:]
    assert not np.isfinite(mixed[:, [0, 1, 3]]).any()
    np.testing.assert_allclose(mixed[:, 4], 1, rtol=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_pickling(scheme):
    code = CodeSpec(scheme, 5, 2).build()
    blocks = blocks_for(code.spec, 0)
    shares = code.encode(blocks)
    present = [i for i in range(code.n) if i != 7]
    expected = code.decode({i: shares[i] for i in present if i < code.n})
    twin = pickle.loads(pickle.dumps(code))
    assert (twin.spec, twin.carries, twin.conflicts) == (code.spec, code.carries, code.conflicts)
    np.testing.assert_array_equal(twin.encode(blocks), shares)
    decoded = twin.decode({i: shares[i] for i in present})
    np.testing.assert_array_equal(decoded.blocks, expected.blocks)
    assert len(pickle.dumps(code)) < 5000


def test_decoding_matrices_are_made_once_per_straggler_set():
    code = CodeSpec("berrut", 8, 2).build()
    shares = code.encode(blocks_for(code.spec, 0))
    interpolation.cache_clear()
    for _ in range(3):
        for lost in combinations(range(10), 2):
            code.decode({i: shares[i] for i in range(10) if i not in lost})
    info = interpolation.cache_info()
    assert (info.misses, info.hits) == (45, 90)
    assert info.maxsize is not None


def test_cached_matrices_cannot_be_spoilt():
    weights = interpolation((0.1, 0.2), (1.0, 0.0, -1.0), frozenset({0, 2}))
    with pytest.raises(ValueError, match="read-only"):
        weights[0, 0] = 7


def test_one_code_in_many_threads():
    code = CodeSpec("systematic", 6, 2).build()
    shares = code.encode(blocks_for(code.spec, 0))
    sets = [set(range(8)) - set(lost) for lost in combinations(range(8), 2)] * 4

    def decode(present):
        return code.decode({i: shares[i] for i in present}).blocks

    expected = [decode(present) for present in sets]
    interpolation.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        for found, wanted in zip(pool.map(decode, sets), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("scheme", "present", "message"),
    [
        ("uncoded", [0, 2], r"only shares \[0, 2\] came back.*each of the 3 blocks"),
        ("replication", [0, 3, 1], r"only shares \[0, 1, 3\].*\[\(0, 3\), \(1, 4\), \(2, 5\)\]"),
        ("berrut", [0, 3], r"only shares \[0, 3\].*byzantine=0 needs any 3 of its 4 shares"),
        ("systematic", [0, 3], r"'systematic' with k=3.*needs any 3 of its 4 shares"),
        ("systematic", [], r"no share came back.*needs any 3"),
    ],
)
def test_too_few_shares(scheme, present, message):
    code = CodeSpec(scheme, 3).build()
    assert not code.decodable(present)
    with pytest.raises(DecodeError, match=message):
        code.decode({i: np.ones((2, 4)) for i in present})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.ones((2, 5)), r"share 1 returned float64 \(2, 5\), share 0 float64 \(2, 4\)"),
        (np.ones((2, 4), np.float32), r"share 1 returned float32 \(2, 4\), share 0 float64"),
        (np.float64(1), r"share 1 returned float64 \(\)"),
    ],
)
def test_outputs_that_do_not_match(wrong, message):
    code = CodeSpec("systematic", 3).build()
    outputs = {0: np.ones((2, 4)), 1: wrong, 2: np.ones((2, 4))}
    for question in (code.decode, code.residual):
        with pytest.raises(DecodeError, match=message):
            question(outputs)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", [(2, 4, 5), (3,), ()])
def test_blocks_of_the_wrong_shape(scheme, shape):
    code = CodeSpec(scheme, 3).build()
    with pytest.raises(ConfigError, match=r"give \(3, B, \*feature\)"):
        code.encode(np.zeros(shape))


@pytest.mark.parametrize("scheme", ["berrut", "systematic"])
def test_integers_are_not_mixed(scheme):
    code = CodeSpec(scheme, 3).build()
    with pytest.raises(ConfigError, match=r"blocks are uint8.*astype\(np.float32\)"):
        code.encode(np.zeros((3, 2, 4), np.uint8))
    labels = {i: np.arange(2) for i in range(1, 4)}
    with pytest.raises(ConfigError, match=r"outputs are int64.*real or complex numbers"):
        code.decode(labels)


def test_integer_outputs_pass_while_nothing_is_lost():
    code = CodeSpec("systematic", 3).build()
    decoded = code.decode({i: np.arange(2) + i for i in range(3)})
    assert decoded.blocks.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert decoded.blocks.dtype == np.int64


@pytest.mark.parametrize("byzantine", [0, 2])
def test_uncoded_needs_every_share(byzantine):
    code = CodeSpec("uncoded", 4, stragglers=2, byzantine=byzantine).build()
    assert code.carries == (0, 1, 2, 3)
    assert code.conflicts == ()
    assert code.decodable(range(4))
    assert not any(code.decodable({0, 1, 2, 3} - {share}) for share in range(4))
    with pytest.raises(DecodeError, match="one of its shares"):
        code.decode({0: np.ones(2), 1: np.ones(2)})


@pytest.mark.parametrize("scheme", ["replication", "berrut", "systematic"])
@pytest.mark.parametrize("stragglers", [0, 1, 2, 4])
def test_one_query_per_codeword_is_repetition(scheme, stragglers):
    code = CodeSpec(scheme, 1, stragglers).build()
    assert code.carries == (0,) * (stragglers + 1)
    block = np.random.default_rng(0).normal(size=(1, 3, 2))
    shares = code.encode(block)
    assert not code.decodable([])
    for i in range(code.n):
        decoded = code.decode({i: shares[i]})
        assert decoded.exact.all()
        np.testing.assert_array_equal(decoded.blocks, block)


def test_any_collection_of_shares_will_do():
    code = CodeSpec("systematic", 3).build()
    for present in ([0, 1, 3], (3, 0, 1), {0, 1, 3}, {0: "a", 1: "b", 3: "c"}, np.array([0, 1, 3])):
        assert code.decodable(present)
        assert code.exact(present).tolist() == [True, True, False]


def test_a_share_counts_once():
    assert not CodeSpec("berrut", 3).build().decodable([1, 1, 1])


@pytest.mark.parametrize("share", [-1, 4])
def test_shares_that_do_not_exist(share):
    code = CodeSpec("systematic", 3).build()
    for question in (code.decodable, code.exact, lambda s: code.decode(dict.fromkeys(s))):
        with pytest.raises(ConfigError, match=rf"\[{share}\] do not exist.* 0 to 3"):
            question([0, share])


def smooth(spec, rows=6, seed=0):
    """Codewords whose queries vary smoothly: (k, rows, 3)."""
    phase = np.random.default_rng(seed).uniform(0, 6, size=(rows, 3))
    return np.sin(np.linspace(0, 1, spec.k)[:, None, None] + phase)


@pytest.mark.parametrize(
    ("scheme", "present"),
    [
        ("uncoded", range(4)),
        ("replication", [0, 1, 6, 7]),
        ("berrut", [0, 1, 2, 4]),
        ("systematic", [0, 1, 2, 3]),
        ("systematic", [0, 1, 2, 4]),
        ("systematic", [2]),
    ],
)
def test_nan_where_no_share_is_surplus(scheme, present):
    code = CodeSpec(scheme, 4, 1).build()
    found = code.residual({i: np.ones((3, 2)) for i in present})
    assert found.dtype == np.float32
    assert found.shape == (3,)
    assert np.isnan(found).all()


@pytest.mark.parametrize("scheme", ["replication", "berrut", "systematic"])
@pytest.mark.parametrize("lost", [[], [0]])
def test_a_wrong_row_shows_in_its_codeword_and_nowhere_else(scheme, lost):
    spec = CodeSpec(scheme, 8, 2)
    code = spec.build()
    shares = code.encode(smooth(spec))
    right = code.residual({i: shares[i] for i in range(code.n) if i not in lost})
    for faulty in range(code.n):
        if faulty in lost or (scheme == "replication" and faulty % 8 in lost and len(lost) > 1):
            continue
        wrong = shares.copy()
        wrong[faulty, 2] += 3
        found = code.residual({i: wrong[i] for i in range(code.n) if i not in lost})
        np.testing.assert_array_equal(np.delete(found, 2), np.delete(right, 2))
        assert found[2] > 3 * right[2] + 0.1

"""The table of schemes: a new one is a code and a record of it."""

import numpy as np
import pytest

from approxifer.coding import Code, CodeSpec, Scheme, build_code, register
from approxifer.coding.spec import SCHEMES
from approxifer.errors import ConfigError


class SumCode(Code):
    """K blocks and their sum: under a linear model, what is lost follows by subtraction."""

    def __init__(self, spec):
        conflicts = (frozenset(range(spec.n)),)
        super().__init__(spec, (*range(spec.k), None), conflicts, wanted=spec.k)

    def encode(self, blocks):
        blocks = self._mixable(blocks)
        return np.concatenate([blocks, blocks.sum(axis=0, keepdims=True)])

    def weights(self, present):
        missing = np.flatnonzero(~self.exact(present))
        signs = [1.0 if share == self.k else -1.0 for share in sorted(present)]
        return missing, np.tile(signs, (len(missing), 1))

    def residual(self, outputs):
        return np.full(len(next(iter(outputs.values()))), np.nan, np.float32)

    def _supply(self, present):
        return len(present)


def one_straggler(spec):
    if spec.stragglers != 1 or spec.byzantine:
        raise ConfigError("scheme 'sum' takes stragglers=1 and byzantine=0")


@pytest.fixture
def scheme():
    made = Scheme("sum", shares=lambda spec: spec.k + 1, build=SumCode, check=one_straggler)
    register(made)
    yield made
    del SCHEMES["sum"]


def test_a_registered_scheme_is_built_encodes_and_decodes(scheme):
    spec = CodeSpec("sum", 3)
    assert spec.n == 4
    code = build_code(spec)
    assert isinstance(code, SumCode)
    blocks = np.random.default_rng(0).normal(size=(3, 5, 2))
    outputs = dict(enumerate(2 * code.encode(blocks)))
    del outputs[1]
    decoded = code.decode(outputs)
    assert decoded.exact.tolist() == [True, False, True]
    np.testing.assert_allclose(decoded.blocks, 2 * blocks)
    assert not code.decodable([0, 3])


def test_its_limits_are_checked_and_its_name_is_taken(scheme):
    with pytest.raises(ConfigError, match="takes stragglers=1"):
        CodeSpec("sum", 3, stragglers=2)
    with pytest.raises(ConfigError, match="'sum' is registered already"):
        register(scheme)


def test_without_registration_it_is_unknown():
    with pytest.raises(ConfigError, match="scheme='sum' is unknown"):
        CodeSpec("sum", 3)


@pytest.mark.parametrize(
    ("scheme", "shares", "with_byzantine"),
    [
        ("uncoded", 8, 8),
        ("replication", 24, 56),
        ("parm", 10, None),
        ("berrut", 10, 22),
        ("systematic", 10, 14),
    ],
)
def test_the_number_of_shares_is_that_of_the_design(scheme, shares, with_byzantine):
    for byzantine, expected in ((0, shares), (2, with_byzantine)):
        if expected is not None:
            spec = CodeSpec(scheme, k=8, stragglers=2, byzantine=byzantine)
            code = spec.build()
            assert spec.n == code.n == len(code.carries) == expected
            assert code.k == 8
            assert code.spec is spec

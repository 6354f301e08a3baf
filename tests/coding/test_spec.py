"""CodeSpec: its fields, and its checks of them."""

import dataclasses

import numpy as np
import pytest

from approxifer.coding import CodeSpec
from approxifer.errors import ConfigError


def test_defaults():
    assert CodeSpec("berrut", 4) == CodeSpec(scheme="berrut", k=4, stragglers=1, byzantine=0)


def test_a_spec_is_frozen_hashable_and_holds_plain_numbers():
    spec = CodeSpec("berrut", np.int64(4), np.int32(1))
    assert type(spec.k) is type(spec.stragglers) is int
    assert hash(spec) == hash(CodeSpec("berrut", 4, 1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.k = 5
    assert CodeSpec(**dataclasses.asdict(spec)) == spec


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheme": "sistematic"}, r"'sistematic'.*uncoded, replication.*mean 'systematic'"),
        ({"scheme": "Berrut"}, r"mean 'berrut'"),
        ({"scheme": None}, r"scheme=None is unknown"),
        ({"scheme": "parm", "byzantine": 1}, r"byzantine=1.*cannot show which share.*systematic"),
        ({"scheme": "parm", "encoder": "sum"}, r"encoder='sum'.*addition"),
        ({"encoder": "concatenation"}, r"only has a meaning for scheme='parm'"),
        ({"scheme": "parm", "encoder": "concatenation"}, r"tiles 2 or 4 images.*k=8"),
        (
            {"scheme": "parm", "k": 2, "stragglers": 2, "encoder": "concatenation"},
            r"stragglers=2.*take stragglers=1",
        ),
        ({"k": 0}, r"k=0 is too small.*at least 1"),
        ({"k": 8.0}, r"k=8.0 is a float.*whole number"),
        ({"k": True}, r"k=True is a bool"),
        ({"k": "8"}, r"k='8' is a str"),
        ({"stragglers": -1}, r"stragglers=-1 is too small.*at least 0"),
        ({"stragglers": 0.5}, r"stragglers=0.5 is a float"),
        ({"stragglers": False}, r"stragglers=False is a bool"),
        ({"byzantine": -1}, r"byzantine=-1 is too small"),
        ({"byzantine": 1.0}, r"byzantine=1.0 is a float"),
        ({"byzantine": True}, r"byzantine=True is a bool"),
        (
            {"k": 1020, "stragglers": 5},
            r"k=1020, stragglers=5 and byzantine=0 make 1025.*at most 1024",
        ),
        ({"k": 1019, "byzantine": 3}, r"byzantine=3 make 1026 shares.*fewer byzantine workers"),
        ({"scheme": "replication-adaptive"}, r"with byzantine=0.*scheme='replication'"),
    ],
)
def test_nonsense_is_refused_with_the_remedy(arguments, message):
    with pytest.raises(ConfigError, match=message):
        CodeSpec(**{"scheme": "systematic", "k": 8} | arguments)

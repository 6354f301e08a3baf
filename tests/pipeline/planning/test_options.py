"""Arguments that are wrong are refused at once, with what was given and what is allowed."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from approxifer.errors import ConfigError
from approxifer.pipeline.planning.arguments import FORMER, declared, grouped
from approxifer.pipeline.planning.options import Options
from approxifer.pipeline.scheduler.policy import Policy

GIVEN: dict[str, Any] = {"data": "in.zarr", "model": "m.pt2", "out": "out.zarr"}


def options(**changes: Any) -> Options:
    return Options(**(GIVEN | changes))


def test_the_defaults() -> None:
    plain = options()
    assert plain.memory_bytes == 10**9
    assert plain.code_for(4).n == 5
    assert plain.resolved_order == "none"
    assert plain.policy == Policy(
        patience=1.0, late=2.0, hang_after=30.0, lazy=True, exact=True, reuse=True
    )


@pytest.mark.parametrize(
    ("given", "order", "lazy", "patience"),
    [
        ({}, "none", True, 1.0),
        ({"repair": "exact"}, "none", True, 1.0),
        ({"repair": "none"}, "similar", False, 0.0),
        ({"repair": "none", "order": "natural"}, "natural", False, 0.0),
        ({"order": "random"}, "random", True, 1.0),
        ({"order": "mine:function"}, "similar", True, 1.0),
        ({"order": len}, "similar", True, 1.0),
        ({"repair": 0.99}, "similar", False, 1.0),
        ({"repair": "0.99"}, "similar", False, 1.0),
        ({"scheme": "berrut", "repair": "none"}, "similar", False, 0.0),
    ],
)
def test_what_follows_from_what(
    given: dict[str, Any], order: str, lazy: bool, patience: float
) -> None:
    found = options(**given)
    assert (found.resolved_order, found.policy.lazy, found.policy.patience) == (
        order,
        lazy,
        patience,
    )


@pytest.mark.parametrize(("byzantine", "failures"), [(0, 3), (1, 3), (2, 3), (3, 4), (5, 6)])
def test_no_share_fails_on_the_word_of_as_many_workers_as_may_lie(
    byzantine: int, failures: int
) -> None:
    assert options(byzantine=byzantine).policy.max_failures == failures


def test_the_policys_numbers_are_passed_on() -> None:
    policy = options(late=2, hang_after=7).policy
    assert (policy.late, policy.hang_after) == (2.0, 7.0)
    assert all(isinstance(v, float) for v in (policy.late, policy.hang_after))


@pytest.mark.parametrize(
    ("memory", "size"), [("1GB", 10**9), ("2GiB", 2**31), (5_000_000, 5_000_000), ("500 MB", 5e8)]
)
def test_memory(memory: str | int, size: int) -> None:
    assert options(memory=memory).memory_bytes == size


WHOLE = "give a whole number, at least 1"


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        ({"scheme": "sistematic"}, ["'sistematic'", "systematic", "berrut", "uncoded"]),
        ({"scheme": "parm"}, ["'parm'", "parity=None", "train-parity"]),
        ({"parity": "folder"}, ["'systematic'", "parity='folder'", "no other scheme"]),
        ({"scheme": None}, ["None", "systematic"]),
        ({"k": 0}, ["k=0", "at least 1"]),
        ({"k": -3}, ["k=-3", "at least 1"]),
        ({"k": 4.0}, ["k=4.0", "whole number"]),
        ({"k": "4"}, ["k='4'", "whole number"]),
        ({"k": True}, ["k=True", "whole number"]),
        ({"k": 2000}, ["2000", "1024"]),
        ({"stragglers": -1}, ["stragglers=-1", "at least 0"]),
        ({"stragglers": 1.5}, ["stragglers=1.5", "whole number"]),
        ({"stragglers": None}, ["stragglers=None", "whole number"]),
        ({"byzantine": 1.0}, ["byzantine=1.0", "whole number"]),
        ({"byzantine": -1}, ["byzantine=-1", "at least 0"]),
        ({"order": "similiar"}, ["'similiar'", "did you mean 'similar'?", "'natural'", "'none'"]),
        ({"order": 3}, ["order=3", "'random'"]),
        ({"repair": "exakt"}, ["'exakt'", "did you mean 'exact'?", "'none'", "from 0.5 to 0.9999"]),
        ({"repair": 1}, ["repair=1", "from 0.5 to 0.9999"]),
        ({"repair": "0.2"}, ["repair=0.2", "from 0.5"]),
        ({"repair": "doubtful"}, ["earlier version", "repair=0.995"]),
        ({"hedge": {"multiple": 2.0, "after": 0.5}}, ["earlier version", "hedge=(2.0, 0.5)"]),
        ({"repair": None}, ["repair=None", "'exact'"]),
        ({"heal": "kill"}, ["'kill'", "'restart'", "'avoid'"]),
        ({"hedge": "auto"}, ["hedge='auto'", "'cubed' or 'spark'", "(2.0, 0.5)"]),
        ({"hedge": "spark"}, ["'systematic' has parity", "'uncoded' or 'replication'"]),
        ({"scheme": "replication-adaptive"}, ["byzantine=0", "at least 1"]),
        ({"check": -1}, ["check=-1", "at least 0"]),
        ({"check": 0.05}, ["check=0.05", "whole number"]),
        ({"check": True}, ["check=True", "whole number"]),
        *(
            ({"scheme": scheme, "byzantine": 1, "check": 0} | more, ["check=0", "'berrut'"])
            for scheme, more in (("uncoded", {}), ("systematic", {}), ("parm", {"parity": "x"}))
        ),
        ({"check": 3, "referee": "quorum"}, ["check=3", "byzantine=0", "referee='client'"]),
        ({"assurance": 0.1, "check": 0}, ["assurance=0.1", "leave check="]),
        ({"assurance": 0.1, "repair": "none"}, ["assurance=0.1", "repair='exact'"]),
        (
            {"scheme": "replication-adaptive", "byzantine": 1, "check": 3},
            ["'replication-adaptive'", "check=3"],
        ),
        ({"assurance": 0}, ["assurance=0", "from 0.001"]),
        ({"assurance": 1}, ["assurance=1", "to 0.999"]),
        ({"quarantine": "host"}, ["quarantine='host'", "'worker'", "'node'"]),
        ({"referee": "quorom"}, ["did you mean 'quorum'?", "'client'"]),
        ({"forgive": [3]}, ["forgive=[3]", "host"]),
        ({"window": 0}, ["window=0", WHOLE]),
        ({"window": 10.0}, ["window=10.0", WHOLE]),
        ({"window": "10"}, ["window='10'", WHOLE]),
        ({"block": -1}, ["block=-1", WHOLE]),
        ({"late": "1"}, ["late='1'", "number"]),
        ({"storage_options": "key"}, ["storage_options: give a mapping", "as JSON"]),
        ({"storage_options": {1: 2}}, ["storage_options: give a mapping"]),
        ({"late": 0.5}, ["late=0.5", "at least 1"]),
        ({"late": float("nan")}, ["late=nan", "at least 1"]),
        ({"hang_after": 0}, ["hang_after=0", "at least 0.1"]),
        ({"seed": -1}, ["seed=-1", "at least 0"]),
        ({"seed": 1.0}, ["seed=1.0", "whole number"]),
        ({"seed": None}, ["seed=None", "whole number"]),
        ({"memory": "1XB"}, ["memory='1XB'", "'1GB'"]),
        ({"memory": "much"}, ["memory='much'", "'1GB'"]),
        ({"memory": 0}, ["memory=0", "'1GB'"]),
        ({"memory": -5}, ["memory=-5", "'1GB'"]),
        ({"memory": "-1GB"}, ["memory='-1GB'", "'1GB'"]),
        ({"memory": None}, ["memory=None", "'1GB'"]),
        ({"memory": float("nan")}, ["memory=nan", "'1GB'"]),
        ({"cluster": "c.yaml", "client": object()}, ["cluster=", "client=", "one of the two"]),
        ({"variable": "u", "variables": "u,v"}, ["variable=", "variables=", "one of the two"]),
        ({"variables": 3}, ["variables=3"]),
        ({"tile": 256}, ["tile=256", "lengths by dimension", "--tile y=256,x=256"]),
        ({"tile": "y=256,x"}, ["tile='y=256,x'", "lengths by dimension"]),
        ({"tile": {"y": 0}}, ["tile={'y': 0}", "at least 1"]),
        ({"tile": {"y": True}}, ["tile={'y': True}"]),
        ({"tile": {}}, ["tile={}"]),
        ({"tile": "y=4", "halo": -1}, ["halo=-1", "at least 0"]),
        ({"tile": "y=4", "halo": "much"}, ["halo='much'", "a whole number of at least 0"]),
        ({"tile": "y=4", "halo": 1.5}, ["halo=1.5", "a whole number"]),
        ({"halo": 32}, ["halo=32", "without tile="]),
    ],
    ids=str,
)
def test_bad_values(given: dict[str, Any], messages: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        options(**given)
    for message in messages:
        assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"memory": "1e999GB"},
        {"memory": float("inf")},
        {"window": True},
        {"block": True},
        {"seed": True},
    ],
    ids=str,
)
def test_values_that_are_hardly_numbers(given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(ConfigError, match=f"{name}="):
        options(**given)


def test_lengths_from_a_shell_are_those_from_python() -> None:
    asked = {"y": 256, "x": 128}
    for tile in (asked, "y=256,x=128", "y = 256, x = 128"):
        assert options(tile=tile).tile == asked
    assert options(tile=asked, halo="32").halo == options(tile=asked, halo=np.int64(32)).halo == 32
    assert options(tile=asked, halo="y=3,x=0").halo == {"y": 3, "x": 0}


def test_numpys_integers_are_whole_numbers() -> None:
    found = options(k=np.int64(4), window=np.int64(64), block=np.int32(8), seed=np.int64(3))
    assert (found.k, found.window, found.block, found.seed) == (4, 64, 8, 3)


def test_a_misspelt_name_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"'straglers', did you mean 'stragglers'\? Allowed: data"
    ):
        Options.of(GIVEN | {"straglers": 1})


@pytest.mark.parametrize("name", GIVEN)
def test_a_missing_argument_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}= is missing: every run needs data, out, model"):
        Options.of({key: value for key, value in GIVEN.items() if key != name})


@pytest.mark.parametrize("name", FORMER)
def test_an_argument_of_an_earlier_version_names_what_to_give(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}= is of an earlier version; give ") as caught:
        Options.of(GIVEN | {name: 1})
    assert FORMER[name] in str(caught.value)


def test_arguments_are_declared_group_by_group() -> None:
    in_groups = [one.name for group in grouped().values() for one in group]
    assert in_groups == list(declared())
    assert [field.name for field in fields(Options)] == in_groups


def test_credentials_are_in_no_text_of_the_options() -> None:
    for given in ({"secret": "s3cr3t"}, '{"secret": "s3cr3t"}'):
        found = options(storage_options=given)
        assert found.storage_options == {"secret": "s3cr3t"}
        assert "s3cr3t" not in repr(found)
    with pytest.raises(ConfigError) as caught:
        options(storage_options='{"secret": "s3cr3t"')
    assert "s3cr3t" not in str(caught.value)

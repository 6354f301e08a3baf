"""The names under which Dask knows a run's shares."""

from __future__ import annotations

from typing import Any

import pytest

from approxifer.pipeline.keys import as_key, new_key, run_of


def test_keys_of_a_run_differ_in_their_random_token_only() -> None:
    keys = {new_key("one") for _ in range(1000)}
    assert len(keys) == 1000
    assert {name for name, _ in keys} == {"approxifer-one"}
    assert {len(token) for _, token in keys} == {16}
    assert {run_of(key) for key in keys} == {"one"}


def test_a_key_survives_a_wire_that_makes_lists_of_tuples() -> None:
    key = new_key("one")
    assert as_key(list(key)) == key


@pytest.mark.parametrize("key", ["x-1", (), ("x", 1), (1, 2), ("approxifer",), b"approxifer-1"])
def test_a_key_of_somebody_else_is_of_no_run(key: Any) -> None:
    assert run_of(key) == ""

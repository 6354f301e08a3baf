"""When a second copy goes out: pure, the clock passed in; and once on real workers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import toy_models
from distributed import Client

from approxifer import score
from approxifer.coding import CodeSpec
from approxifer.datasets import Journal
from approxifer.errors import ConfigError
from approxifer.pipeline import faults
from approxifer.pipeline.hedge import LAST_RESORT, NAMED, Hedge, parse_hedge
from approxifer.pipeline.policy import AttemptState, GroupState, Policy, decide


class Idle:
    queued = 0

    def stuck(self, now: float, limit: float) -> bool:
        return False


def asked(back: int, now: float, hedge: str | Hedge = "spark", copies: int = 1) -> tuple[int, ...]:
    """Eight shares that start at 0, of which so many are back after the median, 1 s."""
    group = GroupState(0, CodeSpec("uncoded", 8).build(), rows=8, priority=0)
    for share in range(8):
        for attempt in range(1 if share < back else copies):
            group.attempts.append(
                AttemptState(
                    share, attempt, f"a{attempt}", "w", 0.0, start=0.0, returned=share < back
                )
            )
    policy = Policy(hedge=parse_hedge(hedge))
    workers = {"a0": Idle(), "a1": Idle()}
    return decide(group, now, policy=policy, typical=1.0, workers=workers).submit


def test_spark_copies_after_one_and_a_half_medians_once_three_quarters_are_back() -> None:
    assert asked(6, 1.4) == ()
    assert asked(6, 1.6) == (6, 7)
    assert asked(7, 1.6) == (7,)
    assert asked(5, 1.6) == (), "five of a share's seven others are less than three quarters"


def test_cubed_copies_after_three_medians_once_half_are_back() -> None:
    assert asked(4, 2.9, "cubed") == ()
    assert asked(4, 3.1, "cubed") == (4, 5, 6, 7)
    assert asked(3, 3.1, "cubed") == ()


def test_nothing_waits_for_ever() -> None:
    assert asked(0, LAST_RESORT - 0.1) == ()
    assert asked(0, LAST_RESORT + 0.1) == tuple(range(8))


def test_there_are_two_copies_at_most() -> None:
    assert asked(7, 1.6, copies=1) == (7,)
    assert asked(7, 100.0, copies=2) == ()


def test_a_share_without_others_needs_none_of_them() -> None:
    assert NAMED["spark"].limit(2.0, 0, 0) == 3.0


def test_numbers_of_the_users() -> None:
    assert parse_hedge({"multiple": 2, "after": 0}) == Hedge(2.0, 0.0)
    assert parse_hedge("cubed") is NAMED["cubed"]
    assert parse_hedge(None) is None
    assert asked(0, 2.1, Hedge(2.0, 0.0)) == tuple(range(8))
    for wrong in ({"multiple": 2}, {"multiple": float("nan"), "after": 0.5}, 3, ["cubed"]):
        with pytest.raises(ConfigError, match="hedge="):
            parse_hedge(wrong)


@pytest.mark.parametrize("scheme", ["uncoded", "replication"])
def test_a_slow_workers_shares_are_copied_and_the_first_copy_wins(
    client: Client, store: Path, rows: np.ndarray, tmp_path: Path, scheme: str
) -> None:
    faults.install(client, {"2": faults.Slow(seconds=2.0)})
    out = tmp_path / "out.zarr"
    report = score(
        store, model=toy_models.slow_linear, out=out, client=client, scheme=scheme, k=4, block=5,
        stragglers=0, window=100, hedge="spark", progress=False,
    )  # fmt: skip
    np.testing.assert_array_equal(report.predictions.prediction, toy_models.linear(rows))
    groups = [e for e in Journal.read(out) if e["event"] == "group" and e["kind"] == "coded"]
    copies = Counter(
        (group["group"], one["share"]) for group in groups for one in group["attempts"]
    )
    assert max(copies.values()) == 2
    slow = [one for group in groups for one in group["attempts"] if one["worker"] == "2"]
    assert any(one["fate"] == "dropped" for one in slow)
    for group in groups:
        for one in group["attempts"]:
            if one["worker"] == "2" and one["fate"] == "dropped":
                other = [o for o in group["attempts"] if o["share"] == one["share"]]
                assert "used" in [o["fate"] for o in other]

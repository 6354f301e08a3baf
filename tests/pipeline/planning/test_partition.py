"""How a run is cut: the arithmetic, on numbers of many sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from approxifer.coding import CodeSpec
from approxifer.errors import ConfigError, TooFewWorkersError
from approxifer.models.batches import BatchSizes
from approxifer.pipeline.planning.partition import (
    CHUNK_BYTES,
    MICRO_BATCH,
    SHARE_SECONDS,
    Layout,
    Measures,
    check_workers,
    choose_k,
    conflicting,
    fewest_workers,
    groups_in_flight,
    make_layout,
    micro_batch,
    most_in_flight,
    row_bytes,
    workers_needed,
)

MEASURES = Measures(
    rows=100_000,
    row_bytes=3_000,
    stored_bytes=750,
    output_bytes=60,
    input_chunk=1_000,
    rows_per_second=5_000.0,
    workers=10,
)
GB = 10**9


def spec(scheme: str = "systematic", k: int = 8, stragglers: int = 1) -> CodeSpec:
    return CodeSpec(scheme=scheme, k=k, stragglers=stragglers)


def layout(code: CodeSpec | None = None, measures: Measures = MEASURES, **changes: Any) -> Layout:
    plain: dict[str, Any] = {"order": "none", "seed": 0, "memory": GB}
    return make_layout(code or spec(), measures, **(plain | changes))


# ---- the code ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "stragglers", "workers", "k"),
    [
        ("systematic", 1, 100, 8),
        ("systematic", 1, 9, 8),
        ("systematic", 1, 8, 7),
        ("systematic", 3, 8, 5),
        ("systematic", 1, 2, 1),
        ("berrut", 2, 6, 4),
        ("replication", 1, 2, 8),
        ("replication", 2, 3, 8),
        ("uncoded", 1, 1, 8),
        ("systematic", 0, 3, 3),
    ],
)
def test_k_is_the_largest_that_the_workers_allow(
    scheme: str, stragglers: int, workers: int, k: int
) -> None:
    chosen = choose_k(make(scheme, stragglers), None, workers, byzantine=0)
    assert chosen == spec(scheme, k, stragglers)
    check_workers(chosen, workers, byzantine=0)


def make(scheme: str, stragglers: int, **more: Any) -> Callable[[int], CodeSpec]:
    return lambda k: CodeSpec(scheme, k, stragglers, **more)


def test_a_given_k_is_taken() -> None:
    assert choose_k(make("systematic", 1), 12, 3, byzantine=0).k == 12
    with pytest.raises(ConfigError):
        choose_k(make("systematic", 1), 0, 3, byzantine=0)


@pytest.mark.parametrize(
    ("scheme", "stragglers", "workers"),
    [("systematic", 1, 1), ("berrut", 3, 3), ("replication", 2, 2), ("uncoded", 0, 0)],
)
def test_not_even_one_query_fits(scheme: str, stragglers: int, workers: int) -> None:
    with pytest.raises(TooFewWorkersError) as caught:
        choose_k(make(scheme, stragglers), None, workers, byzantine=0)
    needed = {"systematic": 2, "berrut": 4, "replication": 3, "uncoded": 1}[scheme]
    assert f"at least {needed} workers, there are {workers}" in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "k", "stragglers", "needed"),
    [
        ("systematic", 8, 1, 9),
        ("berrut", 4, 2, 6),
        ("replication", 8, 2, 3),
        ("replication", 8, 0, 1),
        ("uncoded", 8, 2, 1),
    ],
)
def test_workers_needed(scheme: str, k: int, stragglers: int, needed: int) -> None:
    code = spec(scheme, k, stragglers)
    assert conflicting(code) == needed
    check_workers(code, needed, byzantine=0)
    with pytest.raises(TooFewWorkersError, match=f"at least {needed}"):
        check_workers(code, needed - 1, byzantine=0)


def test_byzantine_workers_need_as_many_and_one_more_to_spare() -> None:
    code = spec("uncoded", 8, 0)
    assert workers_needed(code, 0) == 1
    assert workers_needed(code, 2) == 4
    assert workers_needed(spec("systematic", 8, 1), 1) == 11
    with pytest.raises(TooFewWorkersError, match="2 to spare for E=1"):
        check_workers(code, 2, byzantine=1)


def test_a_code_too_large_for_k_8_is_tried_with_less() -> None:
    """replication with S = 200 has 1,608 shares at K = 8, more than a code may have."""
    assert choose_k(make("replication", 200), None, 201, byzantine=0).k == 5


def test_groups_in_flight() -> None:
    assert groups_in_flight(9, 10) == 4  # 36 shares for 10 workers
    assert groups_in_flight(9, 2) == 3
    assert groups_in_flight(2, 10) == 15
    assert all(
        groups_in_flight(n, w) * n >= 3 * w and groups_in_flight(n, w) >= 3
        for n in range(1, 20)
        for w in range(1, 60)
    )


@pytest.mark.parametrize(
    ("block", "rows"), [(1, 8), (7, 8), (8, 8), (9, 16), (60, 64), (64, 64), (5000, 64)]
)
def test_micro_batch(block: int, rows: int) -> None:
    assert micro_batch(block) == rows


def test_row_bytes() -> None:
    assert row_bytes((3, 4), np.dtype(np.float32)) == 48
    assert row_bytes((), np.dtype(np.uint8)) == 1


# ---- the layout ----------------------------------------------------------------------------------


def bytes_held(code: CodeSpec, measures: Measures, found: Layout) -> int:
    """What a run holds at one time: two windows with inputs and outputs, the rows being read, and
    the shares in flight, encoded, beside the blocks they are made of."""
    flight = groups_in_flight(code.n, measures.workers)
    windows = 2 * found.window * (measures.row_bytes + measures.output_bytes)
    reading = 2 * found.window * measures.stored_bytes
    shares = (flight + 1) * (code.n + code.k) * found.block * measures.row_bytes
    return windows + reading + shares


@st.composite
def cases(draw: st.DrawFn) -> tuple[CodeSpec, Measures, dict[str, Any]]:
    code = spec(
        draw(st.sampled_from(["uncoded", "replication", "systematic", "berrut"])),
        draw(st.integers(1, 8)),
        draw(st.integers(0, 3)),
    )
    measures = Measures(
        rows=draw(st.integers(1, 10**6)),
        row_bytes=draw(st.integers(1, 10**6)),
        stored_bytes=draw(st.integers(1, 10**6)),
        output_bytes=draw(st.integers(21, 10**5)),
        input_chunk=draw(st.integers(1, 10**5)),
        rows_per_second=draw(st.floats(0.5, 10**6)),
        workers=draw(st.integers(1, 40)),
    )
    optional = {
        "window": st.integers(1, 10**5),
        "block": st.integers(1, 10**4),
        "batches": st.sampled_from([*map(only, (1, 8, 10, 100)), BatchSizes(2, 7)]),
    }
    chosen = {
        "order": draw(st.sampled_from(["none", "natural", "similar", "random"])),
        "memory": draw(st.sampled_from([10**6, 10**7, 10**8, 10**9])),
        **{name: draw(kind) for name, kind in optional.items() if draw(st.integers(0, 2)) == 0},
    }
    return code, measures, chosen


@settings(derandomize=True, max_examples=250, deadline=None)
@given(cases())
def test_a_layout_keeps_its_promises(case: tuple[CodeSpec, Measures, dict[str, Any]]) -> None:
    code, measures, chosen = case
    try:
        found = layout(code, measures, **chosen)
    except ConfigError:
        assume(False)
    assert 1 <= found.window <= measures.rows
    assert bytes_held(code, measures, found) <= chosen["memory"]
    if "window" in chosen:
        assert found.window == min(chosen["window"], measures.rows)
    if "block" in chosen:
        assert found.block == chosen["block"]
    elif found.block > 1:
        groups = found.window / (code.k * found.block)
        assert groups >= max(4, groups_in_flight(code.n, measures.workers))
    if "batches" in chosen:
        assert found.micro_batch in chosen["batches"]
    else:
        assert found.micro_batch % 8 == 0
        assert 8 <= found.micro_batch <= MICRO_BATCH
        assert found.micro_batch < found.block + 8
    if found.window < measures.rows:  # else there is one window, and the end of the store
        assert found.window % found.chunk == 0
    assert 1 <= found.chunk <= found.window
    flight = groups_in_flight(code.n, measures.workers)
    assert most_in_flight(code, found, measures, chosen["memory"]) >= flight
    assert (found.order, found.seed) == (chosen["order"], 0)
    assert Layout.of(found.attrs()) == found


@settings(derandomize=True, max_examples=100, deadline=None)
@given(cases())
def test_a_refusal_is_right(case: tuple[CodeSpec, Measures, dict[str, Any]]) -> None:
    """What is refused would not fit: neither as asked for, nor with the smallest block."""
    code, measures, chosen = case
    try:
        layout(code, measures, **chosen)
    except ConfigError:
        smallest = Layout(
            window=min(chosen.get("window", 1), measures.rows),
            block=chosen.get("block", 1),
            micro_batch=8,
            chunk=1,
            order="none",
            seed=0,
        )
        assert bytes_held(code, measures, smallest) > chosen["memory"]
    else:
        assume(False)


def test_a_share_takes_a_tenth_of_a_second_or_two() -> None:
    for speed in (1_000.0, 5_000.0, 30_000.0):
        measures = replace(MEASURES, rows=10**6, rows_per_second=speed)
        found = layout(measures=measures, memory=10 * GB)
        assert 0.1 <= found.block / speed <= 0.2, speed
        assert found.block <= SHARE_SECONDS * speed
        assert found.block % MICRO_BATCH == 0


def test_a_slow_model_gets_blocks_of_a_few_rows() -> None:
    found = layout(measures=replace(MEASURES, rows_per_second=40.0))
    assert (found.block, found.micro_batch) == (6, 8)


def test_few_rows_make_small_blocks() -> None:
    found = layout(measures=replace(MEASURES, rows=1_000))
    assert found.window == 1_000
    assert found.block == 1_000 // (8 * 4)


def test_little_memory_makes_small_windows_then_small_blocks() -> None:
    much, less, little = (layout(memory=memory) for memory in (GB, 10**8, 10**7))
    assert much.window > less.window > little.window
    assert much.block >= less.block > little.block


def test_a_window_is_whole_chunks_of_the_input() -> None:
    for memory in (GB // 10, GB // 5, GB // 3):
        found = layout(memory=memory)
        assert found.window < MEASURES.rows
        assert found.window % MEASURES.input_chunk == 0


@pytest.mark.parametrize(("order", "seconds"), [("none", 60), ("natural", 60), ("similar", 300)])
def test_a_window_is_no_longer_than_what_a_crash_may_cost(order: str, seconds: int) -> None:
    measures = replace(
        MEASURES, rows=10**8, row_bytes=4, stored_bytes=4, output_bytes=24, rows_per_second=1e3
    )
    found = layout(measures=measures, order=order)
    assert found.window == seconds * 10 * 1_000


def test_what_the_user_sets_is_taken() -> None:
    found = layout(window=5_000, block=32)
    assert (found.window, found.block, found.micro_batch) == (5_000, 32, 32)
    assert layout(window=10**6).window == MEASURES.rows
    assert layout(block=1).micro_batch == 8
    # A block that is set is not cut to the window: the last group's is shorter anyway.
    assert layout(window=100, block=64).block == 64


def only(rows: int) -> BatchSizes:
    return BatchSizes(rows, rows)


def test_a_models_own_batch_is_taken() -> None:
    found = layout(batches=only(50))
    assert found.micro_batch == 50
    assert found.block % 50 == 0
    assert layout(batches=only(50), block=7).micro_batch == 50
    assert layout(batches=BatchSizes(2, 32), block=9).micro_batch == 16
    assert layout(batches=BatchSizes(1, 4)).micro_batch == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"memory": 1},
        {"memory": 10**5},
        {"memory": 10**7, "window": 50_000},
        {"memory": 10**7, "block": 1_000},
        {"memory": 10**8, "window": 10**9},
    ],
)
def test_too_little_memory_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"MB does not hold two windows.*give more memory="):
        layout(**changes)


@pytest.mark.parametrize("changes", [{"window": 0}, {"window": -5}, {"block": 0}])
def test_lengths_below_one_are_refused(changes: dict[str, int]) -> None:
    (name, value), *_ = changes.items()
    with pytest.raises(ConfigError, match=f"{name}={value}: give a number of rows, at least 1"):
        layout(**changes)


def test_more_workers_than_expected_do_not_burst_the_memory() -> None:
    code, found = spec(), layout(memory=10**8)
    groups = most_in_flight(code, found, MEASURES, 10**8)
    assert groups > groups_in_flight(code.n, MEASURES.workers)
    held = bytes_held(code, replace(MEASURES, workers=groups * code.n // 3), found)
    assert held <= 10**8
    more = bytes_held(code, replace(MEASURES, workers=(groups + 1) * code.n // 3 + 1), found)
    assert more > 10**8
    assert most_in_flight(code, found, MEASURES, 10**7) == 3  # fewer would stall it


# ---- chunks of the output ------------------------------------------------------------------------


def test_small_outputs_make_one_chunk_a_window() -> None:
    found = layout(window=5_000)
    assert found.chunk == found.window


def test_large_outputs_are_cut_into_chunks() -> None:
    found = layout(measures=replace(MEASURES, output_bytes=100_000), window=3_000, memory=10**10)
    assert 3_000 % found.chunk == 0
    assert found.chunk * 100_000 <= CHUNK_BYTES
    assert found.chunk == 150


@pytest.mark.parametrize("rows", [999_983, 1_000_003])  # primes
def test_no_number_of_rows_makes_a_chunk_for_each_row(rows: int) -> None:
    measures = replace(MEASURES, rows=rows, row_bytes=16, stored_bytes=16, rows_per_second=1e5)
    assert layout(measures=measures).chunk > 1_000


def test_no_memory_makes_a_chunk_for_each_row() -> None:
    """Where a chunk of the input is larger than a window, any number of rows is a window."""
    measures = replace(
        MEASURES,
        rows=10**7,
        row_bytes=64,
        stored_bytes=64,
        input_chunk=9 * 10**6,
        rows_per_second=1e5,
    )
    for memory in range(10**9, 10**9 + 20_000, 1_000):
        found = layout(measures=measures, memory=memory)
        assert found.chunk > 1_000, found


@pytest.mark.parametrize("byzantine", [1, 2])
@pytest.mark.parametrize("stragglers", [0, 3])
def test_adaptive_copies_need_workers_for_more_of_them(stragglers: int, byzantine: int) -> None:
    """E + 1 run each block, and where these differ E more, whatever S is."""
    of = make("replication-adaptive", stragglers, byzantine=byzantine)
    spec = choose_k(of, None, 20, byzantine=byzantine)
    assert (spec.k, spec.n) == (8, 8 * (byzantine + 1))
    assert workers_needed(spec, byzantine) == 2 * byzantine + 2
    assert fewest_workers(spec, byzantine) == byzantine + 2


@pytest.mark.parametrize(
    ("spec", "byzantine", "fewest"),
    [
        (CodeSpec("uncoded", 4), 0, 1),
        (CodeSpec("uncoded", 4), 1, 2),
        (CodeSpec("systematic", 4, 2), 0, 4),
        (CodeSpec("systematic", 4, 2), 1, 5),
        (CodeSpec("replication", 4, 1), 0, 1),
        (CodeSpec("replication", 4, 1, 1), 1, 4),
    ],
    ids=str,
)
def test_without_stragglers_there_is_still_an_output(
    spec: CodeSpec, byzantine: int, fewest: int
) -> None:
    assert fewest_workers(spec, byzantine) == fewest

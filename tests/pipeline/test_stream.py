"""Blocks on their way from the engine's thread to the user's loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
import time
import weakref
from collections.abc import Callable

import numpy as np
import pytest
from waiting import until

from approxifer.errors import StoreError
from approxifer.pipeline.records import Block, Status
from approxifer.pipeline.stream import BlockStream


def block(first: int, size: int = 4, *, provisional: bool = False) -> Block:
    rows = np.arange(first, first + size)
    status = Status.DECODED if provisional else Status.EXACT
    return Block(rows, rows[:, None] * 1.0, np.full(size, status, np.uint8), provisional)


class Store:
    """Gives committed rows back, and remembers what was asked for and where."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.threads: set[int] = set()

    def read(self, start: int, stop: int) -> Block:
        self.asked.append((start, stop))
        self.threads.add(threading.get_ident())
        return block(start, stop - start)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def stream(store: Store) -> BlockStream:
    made = BlockStream()
    made.read_back = store.read
    return made


async def gather(stream: BlockStream, seen: list[Block] | None = None) -> list[Block]:
    seen = [] if seen is None else seen
    async for found in stream.blocks():
        seen.append(found)
    return seen


def take(stream: BlockStream) -> list[Block]:
    return asyncio.run(gather(stream))


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def firsts(blocks: list[Block]) -> list[int]:
    return [int(found.rows[0]) for found in blocks]


def test_blocks_come_in_the_order_in_which_they_were_put(stream: BlockStream) -> None:
    put = [block(8), block(0, provisional=True), block(4), block(0)]
    for one in put:
        stream.put(0, one)
    stream.close()
    found = take(stream)
    assert len(found) == 4
    assert all(a is b for a, b in zip(found, put, strict=True))
    assert [one.provisional for one in found] == [False, True, False, False]


def test_an_empty_run_ends(stream: BlockStream) -> None:
    stream.close()
    assert take(stream) == []
    assert take(stream) == []


def test_unread_blocks_of_a_written_window_are_read_back_once(
    stream: BlockStream, store: Store
) -> None:
    for first in (100, 104, 108):
        stream.put(1, block(first))
    stream.committed(1, 100, 120)
    stream.close()
    (found,) = take(stream)
    np.testing.assert_array_equal(found.rows, np.arange(100, 120))
    assert store.asked == [(100, 120)]
    assert not found.provisional


def test_a_window_that_was_read_before_it_was_written_is_not_read_back(
    stream: BlockStream, store: Store
) -> None:
    seen: list[Block] = []

    async def main() -> None:
        reading = asyncio.create_task(gather(stream, seen))
        stream.put(0, block(0))
        stream.put(0, block(4))
        while len(seen) < 2:
            await asyncio.sleep(0.01)
        stream.committed(0, 0, 8)
        stream.close()
        await reading

    asyncio.run(main())
    assert firsts(seen) == [0, 4]
    assert store.asked == []


def test_only_the_written_window_is_read_back(stream: BlockStream, store: Store) -> None:
    stream.put(0, block(0))
    stream.put(1, block(100))
    stream.put(0, block(4))
    stream.put(2, block(200))
    stream.committed(0, 0, 8)
    stream.put(1, block(104))
    stream.committed(2, 200, 204)
    stream.close()
    found = take(stream)
    assert firsts(found) == [100, 0, 104, 200]
    assert [len(one.rows) for one in found] == [4, 8, 4, 4]
    assert store.asked == [(0, 8), (200, 204)]


def test_reading_back_does_not_stop_the_readers_loop(stream: BlockStream, store: Store) -> None:
    stream.put(0, block(0))
    stream.committed(0, 0, 4)
    stream.close()
    take(stream)
    assert threading.get_ident() not in store.threads


def test_a_reader_that_is_slow_or_absent_costs_no_memory(stream: BlockStream, store: Store) -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    for window in range(50):
        for first in range(window * 100, window * 100 + 100, 10):
            one = block(first, 10)
            alive.append(weakref.ref(one.predictions))
            stream.put(window, one)
            del one
        if window:
            stream.committed(window - 1, (window - 1) * 100, window * 100)
    gc.collect()
    assert sum(ref() is not None for ref in alive) == 10  # those of the open window
    stream.committed(49, 4900, 5000)
    gc.collect()
    assert sum(ref() is not None for ref in alive) == 0
    stream.close()
    found = take(stream)
    np.testing.assert_array_equal(np.concatenate([one.rows for one in found]), np.arange(5000))
    assert len(store.asked) == 50


def test_an_error_is_raised_after_the_last_block(stream: BlockStream) -> None:
    stream.put(0, block(0))
    stream.close(StoreError("the disk is full"))
    seen: list[Block] = []
    with pytest.raises(StoreError, match="the disk is full"):
        asyncio.run(gather(stream, seen))
    assert firsts(seen) == [0]
    with pytest.raises(StoreError, match="the disk is full"):
        take(stream)


def test_a_cancelled_run_is_distinct_from_a_cancelled_task(stream: BlockStream) -> None:
    """`asyncio.CancelledError` would look as if the reader's own task had been cancelled."""
    stream.close(concurrent.futures.CancelledError())
    with pytest.raises(concurrent.futures.CancelledError):
        take(stream)


def test_an_error_while_reading_back_is_raised(stream: BlockStream) -> None:
    def broken(start: int, stop: int) -> Block:
        raise StoreError(f"rows {start} to {stop} are damaged")

    stream.read_back = broken
    stream.put(0, block(0))
    stream.committed(0, 0, 4)
    with pytest.raises(StoreError, match="rows 0 to 4 are damaged"):
        take(stream)


def test_a_reader_in_another_thread_than_the_engine(stream: BlockStream) -> None:
    seen: list[Block] = []
    reader = in_thread(lambda: asyncio.run(gather(stream, seen)))
    for number in range(200):
        stream.put(number // 10, block(number * 4))
        if number % 10 == 9 and number // 10 % 2:
            stream.committed(number // 10, (number - 9) * 4, (number + 1) * 4)
        if number % 50 == 0:
            until(lambda: bool(seen))
    stream.close()
    reader.join(10)
    assert not reader.is_alive()
    assert set(np.concatenate([one.rows for one in seen]).tolist()) == set(range(800))


def test_a_waiting_reader_is_woken_at_once(stream: BlockStream) -> None:
    seen: list[tuple[float, Block]] = []
    ended: list[float] = []

    async def main() -> None:
        async for found in stream.blocks():
            seen.append((time.monotonic(), found))
        ended.append(time.monotonic())

    reader = in_thread(lambda: asyncio.run(main()))
    late = []
    for number in range(5):
        time.sleep(0.05)
        put = time.monotonic()
        stream.put(0, block(number))
        until(lambda n=number: len(seen) > n)  # type: ignore[misc]
        late.append(seen[-1][0] - put)
    closed = time.monotonic()
    stream.close()
    reader.join(10)
    late.append(ended[0] - closed)
    assert sorted(late)[len(late) // 2] < 0.1


def test_the_readers_loop_goes_on_while_it_waits(stream: BlockStream) -> None:
    async def main() -> int:
        reading = asyncio.create_task(gather(stream))
        turns = 0
        for _ in range(20):
            await asyncio.sleep(0.005)
            turns += not reading.done()
        stream.close()
        await reading
        return turns

    assert asyncio.run(main()) == 20


def test_two_readers_share_the_blocks(stream: BlockStream) -> None:
    seen: list[list[Block]] = [[], []]
    readers = [in_thread(lambda s=s: asyncio.run(gather(stream, s))) for s in seen]  # type: ignore[misc]
    for number in range(60):
        stream.put(0, block(number, 1))
        time.sleep(0.001)
    stream.close()
    for reader in readers:
        reader.join(10)
    assert sorted(firsts(seen[0]) + firsts(seen[1])) == list(range(60))


def test_a_reader_that_gives_up_loses_nothing(stream: BlockStream) -> None:
    """Its call to the queue is still out when it is cancelled, and takes a block for nobody."""

    async def impatient() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(aiter(stream.blocks())), 0.05)
        stream.put(0, block(0))
        await asyncio.sleep(0.3)

    asyncio.run(impatient())
    stream.close()
    assert firsts(take(stream)) == [0]

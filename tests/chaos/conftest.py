"""One pool for all tests here, taken anew where a test leaves it broken."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
for folder in (HERE.parent, HERE.parent / "support"):  # processes that are forked inherit them
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from chaos.harness import Outcome, play  # noqa: E402
from chaos.pool import Pool  # noqa: E402
from chaos.schedule import Chaos, Fault, Job  # noqa: E402


class Pools:
    """A pool as long as it serves."""

    def __init__(self) -> None:
        self.pool: Pool | None = None

    def take(self) -> Pool:
        """The pool, or a new one."""
        self.pool = self.pool or Pool()
        return self.pool

    def drop(self) -> None:
        """Close it."""
        if self.pool is not None:
            self.pool.__exit__()
            self.pool = None


@pytest.fixture(scope="module")
def pools() -> Iterator[Pools]:
    """Closed at the end."""
    made = Pools()
    yield made
    made.drop()


Play = Callable[..., Outcome]


@pytest.fixture
def one(pools: Pools, tmp_path: Path) -> Play:
    """Play a job with these faults; nothing may be amiss with what came of it."""

    def played(*faults: Fault, job: Job | None = None) -> Outcome:
        outcome = play(Chaos(0, job or Job(), faults), pools.take(), tmp_path)
        if not outcome.good or outcome.set_back:
            pools.drop()
        assert outcome.good, outcome.problems
        assert not outcome.missed
        return outcome

    return played

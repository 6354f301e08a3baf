"""A scene for tests of checks and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from trust_scene import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []

    def make(workers: int = 5, **setup: Any) -> Scene:
        one = Scene(tmp_path, workers, **setup)
        one.open()
        made.append(one)
        return one

    yield make
    for one in made:
        one.close()

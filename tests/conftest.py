"""Options of the whole test run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A shell has what it starts in the background ignore Ctrl-C, and so would the programs under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples each time (``--hypothesis-profile=default --hypothesis-seed=N`` draws others),
# and no deadline for each: a busy machine is no failure.
settings.register_profile("seeded", derandomize=True, deadline=None)
settings.load_profile("seeded")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--data=DIR``: real data that does not come with the project."""
    parser.addoption("--data", default=None, help="folder with mnist.npz (and others)")
    parser.addoption(
        "--kill-points", type=int, default=15, help="steps at which a client is killed; 0: all"
    )


@pytest.fixture(scope="session")
def kill_points(request: pytest.FixtureRequest) -> int:
    """The number given by ``--kill-points``."""
    given: int = request.config.getoption("--kill-points")
    return given


@pytest.fixture(scope="session")
def data_dir(request: pytest.FixtureRequest) -> Path:
    """The folder given by ``--data``."""
    given = request.config.getoption("--data")
    if given is None:
        pytest.skip("needs real data: pytest --data=DIR, a folder with mnist.npz")
    return Path(given).resolve()


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test, nor a process that one starts, touches the user's own cache."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before

"""The user's code may fail, but neither ends the process nor swallows a person's Ctrl-C."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from approxifer.errors import ModelError
from approxifer.models import open_model, probe, resolve_callable
from approxifer.models.user_code.exits import NoExit

Write = Callable[[str, str], str]

SOURCE = """
    import sys

    def leaves():
        sys.exit(0)

    def interrupts():
        raise KeyboardInterrupt

    def model(rows):
        sys.exit(3)

    def model_factory():
        return model

    class Module:
        def __call__(self, rows):
            raise GeneratorExit

        def __reduce__(self):
            sys.exit("never pickled")
"""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SystemExit(0), r"it called sys.exit\(0\)"),
        (SystemExit(), r"it called sys.exit\(\)"),
        (SystemExit("usage"), r"it called sys.exit\('usage'\)"),
        (KeyboardInterrupt(), "it raised KeyboardInterrupt"),
        (asyncio.CancelledError(), "it raised CancelledError"),
        (GeneratorExit(), "it raised GeneratorExit"),
    ],
)
def test_what_would_end_the_process_is_a_model_error(error: BaseException, said: str) -> None:
    with pytest.raises(ModelError, match=said), NoExit("it"):
        raise error


def test_exceptions_pass_as_they_are() -> None:
    with pytest.raises(OSError, match="as it is"), NoExit("it"):
        raise OSError("as it is")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("then", [None, SystemExit(1), ImportError("half a module")])
def test_a_signal_remains_an_interrupt(number: int, then: BaseException | None) -> None:
    def interrupted() -> None:
        try:
            os.kill(os.getpid(), number)
            threading.Event().wait(5)
        except KeyboardInterrupt:
            if then is None:
                raise
            raise then from None

    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), NoExit("it"):
            interrupted()
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


def test_handlers_that_the_code_sets_stay() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        with NoExit("it"):
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_no_person_interrupts_another_thread() -> None:
    raised: list[BaseException] = []

    def work() -> None:
        try:
            with NoExit("it"):
                raise KeyboardInterrupt
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert isinstance(raised[0], ModelError)


@pytest.mark.parametrize("name", ["leaves", "interrupts"])
def test_factories_that_end_the_process(importable: Write, name: str) -> None:
    module = importable("exit_factories", SOURCE)
    with pytest.raises(ModelError, match=f"model='{module}:{name}': loading it"):
        open_model(f"{module}:{name}")


def test_modules_that_read_the_command_line(importable: Write) -> None:
    module = importable(
        "training_script",
        """
        import argparse
        parser = argparse.ArgumentParser()
        parser.add_argument("--rate", required=True)
        arguments = parser.parse_args()
        """,
    )
    for take in (open_model, resolve_callable):
        with pytest.raises(ModelError, match=rf"importing {module} called sys.exit\(2\).*__main__"):
            take(f"{module}:net")  # type: ignore[operator]


def test_names_whose_look_up_ends_the_process(importable: Write) -> None:
    module = importable("lazy_names", "def __getattr__(name): raise KeyboardInterrupt")
    with pytest.raises(ModelError, match="raised KeyboardInterrupt"):
        open_model(f"{module}:net")


def test_models_that_end_the_process_when_called(importable: Write) -> None:
    found: Any = __import__(importable("exit_models", SOURCE))
    rows = np.zeros((4, 3), np.float32)
    with pytest.raises(ModelError, match=r"exit_models:model_factory' called sys.exit\(3\)"):
        open_model("exit_models:model_factory").load()(rows)
    with pytest.raises(ModelError, match="exit_models:model'"):
        probe(open_model(found.model), rows, 2)


def test_objects_that_end_the_process_when_pickled(importable: Write) -> None:
    found: Any = __import__(importable("exit_pickles", SOURCE))
    with pytest.raises(ModelError, match="never pickled"):
        open_model(found.Module())

"""Code of the user's may fail, but not end the process that calls it.

``sys.exit``, ``argparse`` and ``KeyboardInterrupt`` raise what is no `Exception`. It would pass
through every handler: end the command with the code's own exit status, or a worker with all of its
shares.
"""

import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from approxifer.errors import ModelError

#: What a person, or a batch system, interrupts a command with.
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


class NoExit:
    """A context in which code of the user's runs: what would end the process is a `ModelError`.

    Exceptions pass as they are. A signal that arrives meanwhile, which Python delivers to the main
    thread alone, still is a KeyboardInterrupt, whatever the code makes of it.

    Parameters
    ----------
    what : str
        The code, for the message: ``"preprocess"``.

    Raises
    ------
    ModelError
        The code called ``sys.exit``, or raised what is no Exception.
    KeyboardInterrupt
        The code was interrupted.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._interrupted = False
        self._replaced: dict[int, tuple[Any, Any]] = {}  #: by signal: handler before, and ours

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in INTERRUPTS:
                before = signal.getsignal(number)
                if callable(before):
                    ours = self._noting(before)
                    self._replaced[number] = before, ours
                    signal.signal(number, ours)

    def _noting(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        def note(*arguments: Any) -> Any:
            self._interrupted = True
            return handler(*arguments)

        return note

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, (before, ours) in self._replaced.items():
            if signal.getsignal(number) is ours:  # else the user's code has set its own
                signal.signal(number, before)
        if error is None:
            return
        if self._interrupted:
            raise KeyboardInterrupt from error
        if not isinstance(error, Exception):
            raise ModelError(
                f"{self._what} {_described(error)}, which would end this process: code that is"
                " called must return; what a script does belongs under if __name__ == '__main__':"
            ) from error


def _described(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"called sys.exit({'' if error.code is None else repr(error.code)})"
    return f"raised {type(error).__name__}"

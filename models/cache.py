"""One runner per model and process: loaded once, found by fingerprint."""

import threading
from collections import defaultdict
from dataclasses import replace

from approxifer.checks import instance, whole_number
from approxifer.errors import ModelError
from approxifer.models.handle import ModelHandle
from approxifer.models.runner import Crop, Runner
from approxifer.models.runtime import MOST_THREADS

_guard = threading.Lock()
_loading: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
_runners: dict[str, Runner] = {}


def ensure(handle: ModelHandle, threads: int = 1) -> Runner:
    """Return the runner of `handle` in this process, loading it the first time.

    Safe to call from several threads: the model is loaded once, the others wait. Compare the
    result's fingerprint with the handle's: another one means that this process has other code or
    data under the same name, and `get` will not give that runner out.

    Parameters
    ----------
    handle : ModelHandle
    threads : int
        torch threads of every call. Later callers with another number share the loaded model.

    Raises
    ------
    ModelError
        The model cannot be built here. A later call tries again.
    ConfigError
        It is no handle, or `threads` no number of them.
    """
    instance("handle", handle, ModelHandle, "what open_model returns")
    threads = whole_number("threads", threads, least=1, most=MOST_THREADS)
    with _guard:
        turn = _loading[handle.fingerprint]
    with turn:
        runner = _runners.get(handle.fingerprint)
        if runner is None:
            runner = _runners[handle.fingerprint] = handle.load(threads)
    return runner if runner.threads == threads else replace(runner, threads=threads)


def get(fingerprint: str) -> Runner:
    """Return the runner that `ensure` has loaded for this fingerprint.

    Raises
    ------
    ModelError
        None has been loaded in this process, or what was loaded is another model.
    ConfigError
        It is no text.
    """
    instance("fingerprint", fingerprint, str, "a handle's fingerprint")
    runner = _runners.get(fingerprint)
    if runner is None:
        known = ", ".join(key[:12] for key in list(_runners)) or "none"
        raise ModelError(
            f"no model {fingerprint[:12]} in this process (loaded: {known}). Call ensure(handle)"
            " first."
        )
    if runner.fingerprint != fingerprint:
        raise ModelError(
            f"model {runner.name!r} is {runner.fingerprint[:12]} in this process, expected"
            f" {fingerprint[:12]}: other code or data has that name here. Install the same"
            " version everywhere."
        )
    return runner


def cropped(handle: ModelHandle, crop: Crop) -> ModelHandle:
    """Return the model that returns a part of its outputs; what is loaded here serves both."""
    part = handle.cropped(crop)
    whole = _runners.get(handle.fingerprint)
    if whole is not None and whole.fingerprint == handle.fingerprint:
        _runners[part.fingerprint] = replace(whole, fingerprint=part.fingerprint, crop=crop)
    return part


def forget(fingerprint: str) -> None:
    """Drop a model from this process; nothing happens if it is not there.

    Raises
    ------
    ConfigError
        It is no text.
    """
    instance("fingerprint", fingerprint, str, "a handle's fingerprint")
    _runners.pop(fingerprint, None)

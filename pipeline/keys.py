"""The names under which a run's things are known to Dask."""

from __future__ import annotations

from typing import Any

#: (name, group, share, attempt)
Key = tuple[str, int, int, int]

#: The topic of the events that workers send to the scheduler's plugin.
TOPIC = "approxifer"
#: The scheduler's plugin.
PLUGIN = "approxifer"


def share_key(run: str, group: int, share: int, attempt: int) -> Key:
    """One attempt at one share; never used twice (a dropped key comes back cancelled)."""
    return (f"approxifer-{run}", group, share, attempt)


def as_key(sent: Any) -> Key:
    """A key as it comes over the wire, where tuples may have become lists."""
    name, group, share, attempt = sent
    return (name, group, share, attempt)


def run_of(key: Any) -> str:
    """The run that a share belongs to; "" where the key is somebody else's."""
    if not isinstance(key, tuple) or not isinstance(key[0], str):
        return ""
    prefix, _, run = key[0].rpartition("-")
    return run if prefix == "approxifer" else ""


def put_handler(run: str) -> str:
    """The worker's handler that takes the inputs of a run's shares."""
    return f"approxifer_put_{run}"


def model_plugin_name(run: str) -> str:
    """The worker plugin that loads a run's model."""
    return f"approxifer-model-{run}"

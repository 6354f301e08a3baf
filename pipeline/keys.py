"""The names under which a run's things are known to Dask."""

from __future__ import annotations

#: (name, group, share, attempt)
Key = tuple[str, int, int, int]

#: The topic of the events that workers send to the scheduler's plugin.
TOPIC = "approxifer"
#: The scheduler's plugin.
PLUGIN = "approxifer"


def share_key(run: str, group: int, share: int, attempt: int) -> Key:
    """One attempt at one share; never used twice (a dropped key comes back cancelled)."""
    return (f"approxifer-{run}", group, share, attempt)


def input_key(run: str, group: int, share: int, attempt: int) -> Key:
    """That attempt's input."""
    return (f"approxifer-input-{run}", group, share, attempt)


def model_plugin_name(run: str) -> str:
    """The worker plugin that loads a run's model."""
    return f"approxifer-model-{run}"

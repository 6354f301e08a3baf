"""The names under which a run's things are known to Dask."""

from __future__ import annotations

import secrets
from typing import Any

#: (name of the run, random token)
Key = tuple[str, str]

#: The topic of the events that workers send to the scheduler's plugin.
TOPIC = "approxifer"
#: The scheduler's plugin.
PLUGIN = "approxifer"


def new_key(run: str) -> Key:
    """A key for one attempt at one share; never used twice (a dropped key comes back cancelled).

    A worker learns nothing from it: neither group nor share, nor whether it checks another's.
    """
    return (f"approxifer-{run}", secrets.token_hex(8))


def as_key(sent: Any) -> Key:
    """A key as it comes over the wire, where tuples may have become lists."""
    name, token = sent
    return (name, token)


def run_of(key: Any) -> str:
    """The run that a share belongs to; "" where the key is somebody else's."""
    if not isinstance(key, tuple) or not key or not isinstance(key[0], str):
        return ""
    prefix, _, run = key[0].rpartition("-")
    return run if prefix == "approxifer" else ""


def put_handler(run: str) -> str:
    """The worker's handler that takes the inputs of a run's shares."""
    return f"approxifer_put_{run}"


def read_handler(run: str) -> str:
    """The worker's handler that takes the descriptions of a run's shares."""
    return f"approxifer_read_{run}"


def proof_handler(run: str) -> str:
    """The worker's handler that shows whether it reads the client's input."""
    return f"approxifer_proof_{run}"


def model_plugin_name(run: str) -> str:
    """The worker plugin that loads a run's model."""
    return f"approxifer-model-{run}"

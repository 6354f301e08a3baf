"""``cluster.yaml``: one flat mapping, checked before anything is started.

``kind``, ``workers``, ``threads`` and ``memory`` mean the same for every kind; everything else goes
to the cluster class under its own name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PositiveInt, ValidationError

from approxifer.errors import ConfigError
from approxifer.pipeline.cluster.batch_spec import (
    BATCH,
    BatchSpec,
    batch_spec,
    legal_keys,
    tls_files,
)
from approxifer.pipeline.yamlfile import check_keys, read_mapping
from approxifer.text import did_you_mean

#: The keys that mean the same for every kind.
COMMON_KEYS = ("kind", "workers", "threads", "memory")

#: Keys of distributed's LocalCluster, Nanny and Worker that make sense in a file. The others are
#: objects, or are set here.
LOCAL_KEYS = (
    "dashboard_address", "death_timeout", "env", "heartbeat_interval", "host", "interface",
    "lifetime", "lifetime_restart", "lifetime_stagger", "local_directory", "name", "preload",
    "preload_argv", "preload_nanny", "preload_nanny_argv", "protocol", "resources",
    "scheduler_port", "security", "silence_logs", "worker_dashboard_address", "worker_port",
)  # fmt: skip

#: What each kind takes besides the common keys; the others (`BATCH`) take dask-jobqueue's.
KEYS: dict[str, tuple[str, ...]] = {
    "local": LOCAL_KEYS,
    "address": ("address", "scheduler_file", "security"),
}

#: All kinds.
KINDS = (*KEYS, *BATCH)

#: Dask's and others' names for our keys.
ALIASES = {
    "n_workers": "workers", "num_workers": "workers", "processes": "workers",
    "nthreads": "threads", "threads_per_worker": "threads", "cores": "threads",
    "memory_limit": "memory", "scheduler": "address", "scheduler_address": "address",
}  # fmt: skip

_SMALLEST_MEMORY = 100_000_000


def _to_bytes(value: Any) -> int | None:
    """``"2GB"`` to 2000000000."""
    from dask.utils import parse_bytes

    if value is None or isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError("give a size such as 2GB or 512MiB")
    try:
        size = int(parse_bytes(value))
    except ValueError:
        raise ValueError("give a size such as 2GB or 512MiB") from None
    if size < _SMALLEST_MEMORY:
        raise ValueError(f"that is {size} bytes; a worker needs at least 100MB (mind the unit)")
    return size


class ClusterSpec(BaseModel):
    """A cluster as described in ``cluster.yaml``; make one with :func:`load_cluster`.

    Attributes
    ----------
    kind : "local", "address", or a batch system's
    workers : int or None
        None: what the code needs, plus spares.
    threads : int or None
        Torch threads per worker. None: one on a cluster of ours, else the workers' own number.
    memory : int or None
        Bytes per worker. None: an equal share of the machine; of a batch system, what its section
        of Dask's configuration says.
    options : dict
        Everything else, under the cluster class's own names.
    origin : str
        Where this came from, for messages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: str = "local"
    workers: PositiveInt | None = None
    threads: PositiveInt | None = None
    memory: Annotated[int, BeforeValidator(_to_bytes)] | None = None
    options: dict[str, Any] = {}
    origin: str = "cluster"

    @property
    def batch(self) -> BatchSpec | None:
        """The batch system, where it is one."""
        if self.kind not in BATCH:
            return None
        return batch_spec(
            self.kind,
            self.options,
            threads=self.threads or 1,
            memory=self.memory,
            origin=self.origin,
        )


def load_cluster(source: str | os.PathLike[str] | Mapping[str, Any] | ClusterSpec) -> ClusterSpec:
    """Read and check a cluster's description.

    Parameters
    ----------
    source : path of a YAML file, or the mapping itself

    Raises
    ------
    ConfigError
        The file cannot be read or is no mapping, a key is unknown, or a value has the wrong type.
    """
    if isinstance(source, ClusterSpec):
        return source
    if isinstance(source, Mapping):
        return _parse(dict(source), "cluster")
    origin = os.fspath(source)
    return _parse(read_mapping(origin, what="cluster file", example="kind: local"), origin)


def _parse(content: dict[Any, Any], origin: str) -> ClusterSpec:
    entries = {str(key).replace("-", "_"): value for key, value in content.items()}
    kind = entries.get("kind", "local")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ConfigError(
            f"{origin}: unknown kind {kind!r}{did_you_mean(kind, KINDS)}; allowed: "
            f"{', '.join(KINDS)}"
        )
    allowed = (*COMMON_KEYS, *(KEYS[kind] if kind in KEYS else legal_keys(kind)))
    check_keys(entries, allowed, where=origin, of=f" for kind {kind!r}", aliases=ALIASES)
    options = {key: value for key, value in entries.items() if key not in COMMON_KEYS}
    if kind == "address":
        _check_address(options, origin)
    if kind == "local" and not isinstance(options.get("security", True), bool):
        raise ConfigError(
            f"{origin}: security is {options['security']!r}; give true (TLS with a certificate of "
            "this run, the default) or false (whoever has an account here can run code as you)"
        )
    common = {key: entries[key] for key in COMMON_KEYS if key in entries}
    try:
        spec = ClusterSpec(**common, options=options, origin=origin)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key, given = first["loc"][0], first["input"]
        reason = first["msg"].removeprefix("Value error, ")
        reason = reason.replace("Input should be", "it must be")
        raise ConfigError(f"{origin}: {key}: {given!r} does not do: {reason}") from None
    _ = spec.batch  # refused now, where a value does not do
    return spec


def _check_address(options: Mapping[str, Any], origin: str) -> None:
    address, file = (options.get(name) for name in ("address", "scheduler_file"))
    if (address is None) == (file is None):
        given = "is missing" if address is None else "and scheduler_file are both given"
        raise ConfigError(
            f"{origin}: address {given}; give a scheduler's, as in tcp://host:8786, or the "
            "scheduler-file that 'dask scheduler --scheduler-file' writes"
        )
    if address is not None and not (isinstance(address, str) and "://" in address):
        raise ConfigError(
            f"{origin}: address is {address!r}; give a scheduler's, as in tcp://host:8786"
        )
    if file is not None and not isinstance(file, str):
        raise ConfigError(f"{origin}: scheduler_file is {file!r}; give a path")
    if "security" in options:
        tls_files(options["security"], origin)

"""A batch system's entry in ``cluster.yaml``: dask-jobqueue's keys, checked.

The legal keys are read off dask-jobqueue itself (signatures and its section of Dask's
configuration), so that they are those of the installed version, and what a site has put into
``~/.config/dask/jobqueue.yaml`` holds here too. One job is one worker that runs one share at a
time; ``threads`` are the CPUs that it reserves and the model may use.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dask
from dask.utils import parse_timedelta
from distributed import Security, Status

from approxifer.errors import ClusterError, ConfigError
from approxifer.pipeline.cluster.job_script import check_values, quoted, quoted_header

#: The kinds, and dask-jobqueue's cluster class for each.
BATCH = {
    "slurm": "SLURMCluster", "pbs": "PBSCluster", "sge": "SGECluster", "lsf": "LSFCluster",
    "htcondor": "HTCondorCluster", "oar": "OARCluster", "moab": "MoabCluster",
}  # fmt: skip

#: Our own keys beside dask-jobqueue's.
OWN_KEYS = ("lifetime", "lifetime_stagger", "resubmissions", "wait")

#: Parameters of dask-jobqueue that are set here, are objects, or that it refuses itself.
_NOT_IN_A_FILE = {
    "args", "asynchronous", "dashboard_address", "host", "job_cls", "loop", "memory", "n_workers",
    "scheduler", "scheduler_cls", "self",
}  # fmt: skip

_REFUSED = {
    "processes": "a job is one worker here, so that a lost job is noticed as a lost worker (with "
    "several processes dask-jobqueue does not): leave it out, and ask for more workers",
    "cores": "a worker runs one share at a time, in which the model may use several threads: leave "
    "it out, and give their number as threads",
}

#: A worker ends by itself, on average, after this part of its walltime, plus or minus
#: `STAGGER` of it: not all together, and the latest with a twelfth to spare.
LIFETIME, STAGGER = 3 / 4, 1 / 6
#: Keys whose values become words of the worker's command.
_WORDS = ("local_directory", "interface", "protocol", "death_timeout", "python")
#: Seconds that a worker must have lasted for its loss not to count as a failure, where no lifetime
#: says otherwise.
STEADY = 300.0


@dataclass(frozen=True)
class BatchSpec:
    """A batch system's entry, ready for dask-jobqueue.

    Attributes
    ----------
    kind : str
    job_name : str
        Also the stem of the workers' names.
    keywords : dict
        For the cluster class.
    wait : float
        Seconds after submission within which enough workers must have come.
    resubmissions : int
        How often in a row a worker's job is submitted again after it was lost early.
    steady : float
        Seconds that a worker must have lasted for its loss not to be an early one.
    """

    kind: str
    job_name: str
    keywords: dict[str, Any]
    wait: float
    resubmissions: int
    steady: float


def legal_keys(kind: str) -> tuple[str, ...]:
    """The keys of ``cluster.yaml`` for a kind of batch system, besides the common keys.

    Raises
    ------
    ConfigError
        dask-jobqueue is not installed.
    """
    jobqueue, cluster = _classes(kind)
    known = set(OWN_KEYS)
    for made in (jobqueue.JobQueueCluster, *cluster.job_cls.__mro__[:-1]):
        parameters = inspect.signature(made.__init__).parameters.values()
        known.update(p.name for p in parameters if p.kind is not p.VAR_KEYWORD)
    known.update(key.replace("-", "_") for key in dask.config.get(f"jobqueue.{kind}"))
    return tuple(sorted(known - _NOT_IN_A_FILE))


def batch_spec(
    kind: str, options: Mapping[str, Any], *, threads: int, memory: int | None, origin: str
) -> BatchSpec:
    """Check the values, and fill in what follows from them.

    Parameters
    ----------
    options
        What the file holds besides the common keys, with underscores.
    threads, memory
        CPUs and bytes of one worker.
    origin
        The file, for messages.

    Raises
    ------
    ConfigError
    """
    check_values(kind, options, origin)
    given = dict(options)
    for name, why in _REFUSED.items():
        if given.pop(name, 1) != 1:
            raise ConfigError(f"{origin}: {name}: {options[name]!r} does not do: {why}")
    section = given.get("config_name") or kind
    site = dask.config.get(f"jobqueue.{section}", None)
    if site is None:
        raise ConfigError(
            f"{origin}: config_name: {section!r}: there is no jobqueue.{section} in Dask's "
            "configuration"
        )
    reserved = memory if memory is not None else site.get("memory")
    if reserved is None:
        raise ConfigError(
            f"{origin}: memory is missing: kind {kind!r} reserves it for each worker; give as much "
            "as the model and a block of rows take, as in memory: 4GB"
        )
    walltime = given.get("walltime", site.get("walltime"))
    if walltime is not None and not isinstance(walltime, str):
        raise ConfigError(
            f"{origin}: walltime: {walltime!r} is a number: put it in quotes, as in walltime: "
            '"01:00:00" (YAML takes 01:00:00 without them for 3600)'
        )
    name = given.pop("name", None)
    job_name = given.get("job_name") or name or "approxifer"
    wait = _seconds(given, "wait", origin, default=3600.0)
    resubmissions = given.pop("resubmissions", 5)
    if isinstance(resubmissions, bool) or not isinstance(resubmissions, int) or resubmissions < 0:
        raise ConfigError(
            f"{origin}: resubmissions: {resubmissions!r} does not do: give a number, 0 or more"
        )
    extra = list(given.pop("worker_extra_args", None) or site.get("worker-extra-args") or ())
    limit = walltime_seconds(walltime, kind) if walltime else None
    steady = STEADY
    lifetime = _seconds(given, "lifetime", origin, default=LIFETIME * (limit or 0.0))
    stagger = _seconds(given, "lifetime_stagger", origin, default=lifetime * STAGGER / LIFETIME)
    if lifetime and not any(str(one).startswith("--lifetime") for one in extra):
        if limit and lifetime + stagger >= limit:
            raise ConfigError(
                f"{origin}: lifetime {lifetime:g} s plus lifetime_stagger {stagger:g} s is not "
                f"below the walltime ({walltime}, {limit:g} s): what a job holds when the batch "
                "system ends it is lost"
            )
        extra += ["--lifetime", f"{lifetime:.0f}s", "--lifetime-stagger", f"{stagger:.0f}s"]
        steady = min(STEADY, max(0.0, lifetime - stagger))
    keywords = given | {
        "name": job_name,
        "job_name": job_name,
        "cores": threads,
        "processes": 1,
        "memory": f"{memory}B" if memory is not None else reserved,
        "worker_extra_args": extra,
        "scheduler_options": {"dashboard_address": "127.0.0.1:0"}
        | (given.get("scheduler_options") or site.get("scheduler-options") or {}),
    }
    if not isinstance(secured := given.get("security", True), bool):
        keywords["security"] = tls_files(secured, origin)
    return BatchSpec(kind, job_name, keywords, wait, resubmissions, steady)


def tls_files(given: object, origin: str) -> Security:
    """The files of Dask's TLS, by Dask's names for them: ``tls-ca-file`` and so on.

    Raises
    ------
    ConfigError
    """
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"{origin}: security is {given!r}; give the files of TLS: tls-ca-file, "
            "tls-client-cert, tls-client-key, and the same for scheduler and worker; or, for a "
            "cluster that is started here, true or false"
        )
    try:
        return Security(**{str(key).replace("-", "_"): value for key, value in given.items()})
    except (TypeError, ImportError) as error:
        raise ConfigError(f"{origin}: security: {error}") from error


def job_class(kind: str) -> Any:
    """dask-jobqueue's class of one job, which reserves ``cores`` CPUs but runs one share at a time,
    and whose commands Ctrl-C does not reach: a submission that has begun is seen to its end, so
    that its job can be cancelled."""
    base: Any = _classes(kind)[1].job_cls

    class OneShareJob(base):  # type: ignore[misc]
        def __init__(self, scheduler: Any = None, name: Any = None, **keywords: Any) -> None:
            section = keywords.get("config_name") or kind
            for key in _WORDS:  # the site's, as the user's own
                if keywords.get(key) is None:
                    keywords[key] = dask.config.get(f"jobqueue.{section}.{key}", None)
            super().__init__(scheduler, **quoted(keywords | {"name": name}, sys.executable))
            self.name = name
            if kind == "slurm":
                self.job_header: str = quoted_header(self.job_header)

        @property
        def worker_process_threads(self) -> int:
            return 1

        @staticmethod
        async def _call(cmd: list[str], *, shell: bool = False, **keywords: Any) -> Any:
            return await base._call(cmd, shell=shell, start_new_session=True, **keywords)

        async def close(self) -> None:
            await super().close()
            self.status = Status.closed  # which the cluster's end insists on

    return OneShareJob


def cluster_class(kind: str) -> Any:
    """dask-jobqueue's class of a whole cluster."""
    return _classes(kind)[1]


def job_script(spec: BatchSpec) -> str:
    """The script of one job, without a scheduler.

    Raises
    ------
    ConfigError
        dask-jobqueue refuses a value.
    """
    common = {"scheduler_options", "shared_temp_directory", "silence_logs", "name"}
    if not isinstance(spec.keywords.get("security"), Security):  # made with the cluster, or none
        common.add("security")
    keywords = {key: value for key, value in spec.keywords.items() if key not in common}
    try:
        job = job_class(spec.kind)("tcp://SCHEDULER:PORT", name=f"{spec.job_name}-0", **keywords)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"kind {spec.kind!r}: {error}") from error
    script: str = job.job_script()
    return script.strip()


def check_installed(kind: str) -> None:
    """Refuse to go on where the batch system's commands are not there.

    Raises
    ------
    ClusterError
    """
    job = job_class(kind)
    for what, command in (("submits", job.submit_command), ("cancels", job.cancel_command)):
        program = shlex.split(command)[0]
        if shutil.which(program) is None:
            raise ClusterError(
                f"kind {kind!r} {what} jobs with {program}, which is not in PATH: run this on a "
                "login node of the batch system (or load its module), or use kind: local"
            )


def walltime_seconds(text: str, kind: str) -> float | None:
    """A time limit in the words of a batch system, in seconds; None: not understood.

    >>> walltime_seconds("01:30:00", "pbs"), walltime_seconds("1-12", "slurm")
    (5400.0, 129600.0)
    >>> walltime_seconds("90", "slurm"), walltime_seconds("1:30", "lsf")
    (5400.0, 5400.0)
    """
    days, dash, rest = text.strip().rpartition("-")
    if not re.fullmatch(r"\d+(:\d+){0,2}", rest) or (dash and not days.isdigit()):
        return None
    parts = [int(part) for part in rest.split(":")]
    units: tuple[int, ...]
    if dash:  # days-hours[:minutes[:seconds]]
        units = (3600, 60, 1)
    elif kind == "lsf":  # [hours:]minutes
        units = ((60,), (3600, 60), (3600, 60, 1))[len(parts) - 1]
    elif kind == "slurm":  # minutes, minutes:seconds, hours:minutes:seconds
        units = ((60,), (60, 1), (3600, 60, 1))[len(parts) - 1]
    else:  # [[hours:]minutes:]seconds
        units = (3600, 60, 1)[3 - len(parts) :]
    seconds = sum(part * unit for part, unit in zip(parts, units, strict=False))
    return float(86400 * int(days or 0) + seconds) or None


def _seconds(given: dict[str, Any], key: str, origin: str, *, default: float) -> float:
    value = given.pop(key, None)
    if value is None:
        return default
    try:
        known = re.sub("min$", "m", value) if isinstance(value, str) else value
        seconds = parse_timedelta(known, default="s")
    except (ValueError, KeyError, TypeError, AttributeError):
        seconds = -1
    if isinstance(value, bool) or seconds < 0:
        raise ConfigError(
            f"{origin}: {key}: {value!r} does not do: give a time, as in 90s, 20min or 2h"
        )
    return float(seconds)


def _classes(kind: str) -> tuple[Any, Any]:
    """The module dask_jobqueue and its cluster class for a kind."""
    try:
        with _ctrl_c_kept():
            import dask_jobqueue
    except ImportError as error:
        raise ConfigError(
            f"kind {kind!r} needs dask-jobqueue, which is not installed here: "
            "pip install 'approxifer[hpc]'"
        ) from error
    return dask_jobqueue, getattr(dask_jobqueue, BATCH[kind])


@contextlib.contextmanager
def _ctrl_c_kept() -> Iterator[None]:
    """dask-jobqueue 0.9.0 sets a handler of SIGINT when it is imported: Ctrl-C would then no longer
    be a KeyboardInterrupt, and its import in a thread fails. What this thread sets is ignored."""
    real, me = signal.signal, threading.get_ident()

    def ours(number: Any, handler: Any) -> Any:
        return None if threading.get_ident() == me else real(number, handler)

    signal.signal = ours  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = real

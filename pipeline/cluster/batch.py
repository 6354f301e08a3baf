"""A cluster of batch jobs, one worker each: submitted, waited for, kept alive, and all cancelled.

The scheduler runs in this process. When that is killed the workers lose it and end, and jobs that
were still waiting in the queue end within their ``death_timeout`` of having started.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import logging
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dask
from distributed import Security
from distributed.deploy.adaptive import Adaptive

from approxifer.errors import ClusterError
from approxifer.pipeline.cluster.batch_spec import (
    BatchSpec,
    check_installed,
    cluster_class,
    job_class,
    job_script,
)
from approxifer.pipeline.cluster.dask_process import keep_lost_workers, silent, starting
from approxifer.text import duration, one_line

logger = logging.getLogger(__name__)

Say = Callable[[str], None]

#: Seconds without another worker coming after which fewer than the code wants will do.
QUIET = 60.0
#: Seconds before a job that was lost early is submitted again; doubled each time.
BACKOFF = 5.0
#: Seconds between two looks at the workers.
LOOK = 1.0
#: Seconds between two looks at the queue while a worker that had come is away or a job is gone, and
#: while others are waited for. It is not looked at while all are there.
SOON, LATER = 4.0, 15.0
#: Seconds that the queue must not have known a job, and that a worker must have been away.
GONE, AWAY = 3.0, 120.0
#: Seconds between two words on who has come.
TELL = 5.0
_CLOSE_SECONDS = 30.0

#: What shows a user's jobs. Slurm's is also read (job, state, reason, node).
QUEUE = {
    "slurm": "squeue --me --noheader --format='%i %T %r %N'",
    "pbs": "qstat -u {user}", "sge": "qstat -u {user}", "moab": "showq -u {user}",
    "lsf": "bjobs -u {user}", "htcondor": "condor_q {user}", "oar": "oarstat -u {user}",
}  # fmt: skip


class Keeper(Adaptive):
    """Submits the jobs of lost workers again, up to a limit.

    A worker that is away may come back: its nanny starts it anew, or the batch system its requeued
    job. It is lost once the queue no longer has its job, or it has been away for `AWAY` seconds
    although its job runs, or although nothing is known of its job (the queue is read on Slurm only;
    elsewhere a job whose worker never came is not missed). Its job is then cancelled, if there is
    one, and another one submitted. Losses of workers that lasted for ``spec.steady`` are no
    failures: their time was up.

    Parameters
    ----------
    cluster : dask_jobqueue.JobQueueCluster
    spec : BatchSpec
    say : callable
        Called with workers that are given up.

    Attributes
    ----------
    given_up : dict
        Worker to the reason.
    queue : dict
        Worker to its job's state, reason and node, as far as the queue has it.
    """

    cluster: Any

    def __init__(self, cluster: Any, *, spec: BatchSpec, say: Say, **options: Any) -> None:
        self.spec = spec
        self.names = sorted(cluster.worker_spec)
        self.given_up: dict[str, str] = {}
        self.queue: dict[str, str] = {}
        self._say = say
        self._seen: dict[str, tuple[float, float]] = {}  #: when a worker was first and last there
        self._early: dict[str, int] = dict.fromkeys(self.names, 0)  #: early losses in a row
        self._due: dict[str, float] = {}  #: when a worker's job is to be submitted again
        self._absent: dict[str, float] = {}  #: since when the queue does not know its job
        self._asked = float("-inf")
        super().__init__(cluster, **options)

    async def adapt(self) -> None:
        """Look once."""
        if self._adapting:
            return
        self._adapting = True
        try:
            await self._look(time.monotonic())
        finally:
            self._adapting = False

    async def _look(self, now: float) -> None:
        here = {str(ws.name) for ws in self.cluster.scheduler.workers.values()}
        for name in here.intersection(self.names):
            self._seen[name] = (self._seen.get(name, (now, now))[0], now)
        away = {name: job for name, job in self.cluster.workers.items() if name not in here}
        wait = SOON if self._absent or self._seen.keys() & away else LATER
        if away and now - self._asked >= wait:
            self._asked = now
            for name, why in (await self._lost(away, now)).items():
                job = self.cluster.workers.pop(name)
                await job.close()
                self.lost(name, now, why)
        await self._submit(now)

    async def _lost(self, away: Mapping[str, Any], now: float) -> dict[str, str]:
        """The workers that are away and will not come back, with the reason."""
        text = await show_queue(self.spec.kind) if self.spec.kind == "slurm" else None
        lines = (text or "").splitlines()
        listed = dict(line.split(maxsplit=1) for line in lines if " " in line.strip())
        jobs = {name: str(job.job_id) for name, job in self.cluster.workers.items()}
        self.queue = {name: listed[job] for name, job in jobs.items() if job in listed}
        found = {}
        for name in away:
            gone = text is not None and name not in self.queue
            since = self._absent.setdefault(name, now) if gone else self._absent.pop(name, now)
            if gone and now - since >= GONE:
                found[name] = f"job {jobs[name]} has left the queue"
            elif name in self._seen and not self.queue.get(name, "").startswith("PENDING"):
                seconds = now - self._seen[name][1]
                if seconds >= AWAY:
                    found[name] = f"it was away for {duration(seconds)}"
        return found

    async def _submit(self, now: float) -> None:
        """Submit what is due."""
        cluster = self.cluster
        due = [name for name, when in self._due.items() if when <= now]
        for name in due:
            del self._due[name]
            cluster.worker_spec[name] = cluster.new_spec
        if not due:
            return
        try:
            await cluster
        except Exception as error:  # whatever the submission command comes up with
            for name in due:
                job = cluster.workers.get(name)
                if job is not None and job.job_id is None:
                    del cluster.workers[name]
                    self.lost(name, now, f"it could not be submitted: {one_line(error)}")

    def lost(self, name: str, now: float, why: str) -> None:
        """A worker is gone for good: order another job for it, or give it up."""
        came = name in self._seen
        first, last = self._seen.pop(name, (now, now))
        self._absent.pop(name, None)
        self.cluster.worker_spec.pop(name, None)
        if came and last - first >= self.spec.steady:
            self._early[name], self._due[name] = 0, now
            return
        self._early[name] += 1
        count = self._early[name]
        if count <= self.spec.resubmissions:
            self._due[name] = now + BACKOFF * 2 ** (count - 1) * (count > 1)
            return
        lasted = f"its worker lasted {duration(last - first)}" if came else "its worker never came"
        self.given_up[name] = f"{why}, {lasted}"
        self._say(
            f"worker {name} is given up: its job was lost early {count} times in a row; the last "
            f"time {self.given_up[name]}. Look at its log (log-directory, or where this was "
            "started), or raise resubmissions"
        )


@contextlib.contextmanager
def batch_cluster(
    spec: BatchSpec,
    *,
    jobs: int,
    needed: int,
    fewest: int,
    say: Say | None = None,
    check: Callable[[], None] | None = None,
) -> Iterator[Any]:
    """Submit ``jobs`` jobs and wait until enough workers have come; cancel all at the end.

    Parameters
    ----------
    spec : BatchSpec
    jobs, needed, fewest : int
        Workers to submit; that the code needs; that will do once no more seem to come.
    say : callable, optional
        Called with how it gets on.
    check : callable, optional
        Called every second; raises to break off.

    Raises
    ------
    ClusterError
        A command is missing, the submission is refused, or too few workers came in time.
    ConfigError
        dask-jobqueue refuses a value.
    """
    tell = say or (lambda text: None)
    check_installed(spec.kind)
    job_script(spec)  # refused now, where a value does not do
    tell(
        f"submitting {jobs} jobs to {spec.kind}, one worker each: {needed} are needed, "
        f"{jobs - needed} to spare; {resources(spec)} each"
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(keep_lost_workers)
        if "silence_logs" not in spec.keywords:
            stack.enter_context(silent)
        try:
            with starting:
                keywords = spec.keywords | stack.enter_context(_tls(spec))
                cluster = cluster_class(spec.kind)(job_cls=job_class(spec.kind), **keywords)
            stack.callback(_close_key_files, cluster)
            stack.callback(_close, cluster)
            cluster.worker_spec = {f"{spec.job_name}-{i}": cluster.new_spec for i in range(jobs)}
            cluster.sync(_wait, cluster)
        except Exception as error:
            raise ClusterError(
                f"kind {spec.kind!r}: the jobs could not be submitted: {one_line(error)}"
            ) from error
        keeper = cluster.adapt(
            Adaptive=Keeper, minimum_jobs=jobs, maximum_jobs=jobs, interval=f"{LOOK}s",
            spec=spec, say=_warn,
        )  # fmt: skip
        stack.callback(keeper.stop)
        _wait_for_workers(cluster, keeper, needed, fewest, tell, check or (lambda: None))
        yield cluster


@contextlib.contextmanager
def _tls(spec: BatchSpec) -> Iterator[dict[str, Any]]:
    """Dask's temporary certificate, kept for the jobs in a folder of the user's alone which the
    nodes see; nothing new where the user has given files, or ``security: false``."""
    given = spec.keywords.get("security", True)
    if given is not True:
        yield {"security": given or None}
        return
    section = spec.keywords.get("config_name") or spec.kind
    site = dask.config.get(f"jobqueue.{section}.shared-temp-directory", None)
    shared = spec.keywords.get("shared_temp_directory") or site or "~"
    where = os.path.expanduser(os.path.expandvars(shared))
    with tempfile.TemporaryDirectory(prefix=".approxifer-tls-", dir=where) as folder:
        yield {"security": Security.temporary(), "shared_temp_directory": folder}


def _close_key_files(cluster: Any) -> None:
    """Close what dask-jobqueue keeps open of the certificate, before its folder is removed."""
    for name in ("_job_key", "_job_cert", "_job_ca_file"):
        if (file := getattr(cluster, name, None)) is not None:
            file.close()


def _warn(text: str) -> None:
    logger.warning("%s", one_line(text))


async def _wait(cluster: Any) -> None:
    await cluster


def _wait_for_workers(
    cluster: Any, keeper: Keeper, needed: int, fewest: int, say: Say, check: Callable[[], None]
) -> None:
    spec, jobs = keeper.spec, len(keeper.names)
    began = came = time.monotonic()
    told, there = began, 0
    while True:
        check()
        now, before = time.monotonic(), there
        there = len(cluster.scheduler.workers)
        came = now if there != before else came
        if there >= needed:
            return
        if there >= fewest and now - came > QUIET:
            say(f"starting with {there} workers instead of {needed}: no other came for {QUIET:g} s")
            return
        hopeless = jobs - len(keeper.given_up) < fewest
        if hopeless or now - began > spec.wait:
            shown = cluster.sync(show_queue, spec.kind)
            lost = "; ".join(f"{name}: {why}" for name, why in keeper.given_up.items())
            raise ClusterError(
                f"{there} of {jobs} workers came within {duration(now - began)}, and {needed} are "
                f"needed{f' ({lost})' if lost else ''}. The queue says: "
                f"{one_line(shown or 'nothing about jobs of yours')}. Nothing of the run is left "
                "in it; wait: in the cluster file sets the time"
            )
        time.sleep(0.2)
        if now - told < TELL:
            continue
        told = now
        states = sorted(" ".join(line.split()[:2]) for line in keeper.queue.values())
        queue = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        say(
            f"waiting for workers: {there} of {jobs} there ({needed} needed) after "
            f"{duration(now - began)}{f'; queue: {queue}' if queue else ''}"
        )


def resources(spec: BatchSpec) -> str:
    """The resources of one job, for a person."""
    cpus = spec.keywords.get("job_cpu") or spec.keywords.get("ncpus") or spec.keywords["cores"]
    memory = dask.utils.format_bytes(dask.utils.parse_bytes(spec.keywords["memory"]))
    return f"{cpus} CPU{'s' * (cpus != 1)} and {memory}"


async def show_queue(kind: str) -> str | None:
    """The batch system's list of the user's jobs; None: nothing could be learnt."""
    command = shlex.split(QUEUE[kind].format(user=shlex.quote(getpass.getuser())))
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 20)
    except (OSError, TimeoutError):
        return None
    return out.decode(errors="replace") if process.returncode == 0 else None


def _close(cluster: Any) -> None:
    """Cancel all jobs, then stop the rest: asked in Dask's order, a hung worker would hold up the
    cancelling of all."""
    jobs: Mapping[str, Any] = dict(cluster.workers)
    try:
        cluster.sync(_cancel, jobs, callback_timeout=_CLOSE_SECONDS)
        cluster.close(timeout=_CLOSE_SECONDS)
    except TimeoutError:
        ids = ", ".join(str(job.job_id) for job in jobs.values())
        logger.warning("the batch system did not answer in time; see that jobs %s are gone", ids)


async def _cancel(jobs: Mapping[str, Any]) -> None:
    await asyncio.gather(*(job.close() for job in jobs.values()))

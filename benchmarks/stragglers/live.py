"""Runs on real workers under a schedule of slowness: ours, its rivals in the same engine, Dask."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import xarray as xr
from distributed import Client, LocalCluster

import approxifer
from approxifer.benchmarks.stragglers import latency, plain_dask
from approxifer.benchmarks.stragglers.latency import Latency
from approxifer.benchmarks.stragglers.schedules import Schedule, Service
from approxifer.benchmarks.stragglers.simulated_workers import Delays
from approxifer.benchmarks.stragglers.simulation import Shape
from approxifer.coding import CodeSpec
from approxifer.datasets import Journal
from approxifer.datasets.journal import journal_path
from approxifer.pipeline import faults
from approxifer.pipeline.cluster import workers_of
from approxifer.pipeline.localcluster import local_cluster
from approxifer.pipeline.options import Options

#: Seconds after which a share that runs is given up, and its worker with it.
HANG_AFTER = 5.0
#: The section ``hung``: workers, seconds of sleep in a share, groups (two minutes' work), and the
#: seconds after which plain Dask is cut.
HUNG_WORKERS, HUNG_SLEEP, HUNG_GROUPS, HUNG_LIMIT = 10, 0.1, 1500, 300.0


@dataclass(frozen=True)
class Scheme:
    """A way to score. ``options`` as `approxifer.score` has them; None: plain Dask."""

    says: str
    options: Mapping[str, Any] | None = None

    def checked(self, k: int) -> Options:
        """The options, with what they do not say."""
        stand_in = {"parity": "-"} if self.options and self.options["scheme"] == "parm" else {}
        given = {**(self.options or {"scheme": "uncoded"}), **stand_in}
        return Options(data="-", model="-", out="-", k=k, hang_after=HANG_AFTER, **given)

    def spec(self, k: int) -> CodeSpec:
        """The code."""
        return self.checked(k).code_for(k)

    @property
    def finals(self) -> bool:
        """Whether every row ends exact or repaired."""
        return (self.options or {}).get("repair") != "none"


def _ours(stragglers: int, repair: str, **options: float) -> Scheme:
    told = "".join(f", {name}={value:g}" for name, value in options.items())
    return Scheme(
        f'systematic S={stragglers}, repair="{repair}"{told}',
        {"scheme": "systematic", "stragglers": stragglers, "repair": repair, **options},
    )


SCHEMES: Mapping[str, Scheme] = {
    "dask": Scheme("uncoded, plain Dask"),
    "hedged": Scheme("uncoded, hedged", {"scheme": "uncoded", "hedge": "spark"}),
    "replication": Scheme("replication x2", {"scheme": "replication", "stragglers": 1}),
    "parm": Scheme("ParM, one parity", {"scheme": "parm", "stragglers": 1, "repair": "none"}),
    "none": _ours(2, "none"),
    "prompt": _ours(2, "none", in_flight=1.5),
    "exact": _ours(2, "exact"),
    "none-1": _ours(1, "none"),
    "exact-1": _ours(1, "exact"),
}


@dataclass(frozen=True)
class Site:
    """What all runs of a benchmark have in common.

    Attributes
    ----------
    folder : Path
        For the runs' outputs.
    data : Path
        A Zarr store with ``image (sample, *feature)``: the same rows over and over, a window each
        time, so that no row is like another of its window.
    model : Path or str
        As `approxifer.score` takes it.
    parity : Path
    labels : array (rows of a window,)
        The uncoded model's classes.
    k : int
    shape : Shape
    sleep : float
        Seconds before each micro-batch.
    seed : int
        Of the schedules and the runs.
    """

    folder: Path
    data: Path
    model: Path | str
    parity: Path
    labels: np.ndarray
    k: int
    shape: Shape
    sleep: float
    seed: int

    @property
    def group_rows(self) -> int:
        """Rows of a group."""
        return self.k * self.shape.block


@dataclass(frozen=True)
class Outcome:
    """One run on real workers; ``events`` of its journal, none of Dask."""

    latencies: list[Latency]
    seconds: float
    whole: bool
    evaluations_per_query: float
    agreement: float  #: of the classes that came back, with the uncoded model's
    decoded: int  #: rows that stayed decoded
    events: list[dict[str, Any]]

    def figures(self, *, finals: bool) -> dict[str, Any]:
        """For the file."""
        return {
            **latency.summary(self.latencies, finals=finals),
            "seconds": self.seconds,
            "whole": self.whole,
            "evaluations_per_query": self.evaluations_per_query,
            "agreement": self.agreement,
            "decoded": self.decoded,
            "tail": latency.tail([one.decodable for one in self.latencies]),
        }


@contextmanager
def crew(workers: int) -> Iterator[tuple[LocalCluster, Client]]:
    """Fresh worker processes."""
    with (
        local_cluster(n_workers=workers, memory=None, options={}) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(workers, timeout=60)
        yield cluster, client


def arm(client: Client, site: Site, schedule: Schedule) -> None:
    """Give every worker its service time, from its next share on."""
    names = {worker["name"]: address for address, worker in workers_of(client).items()}
    processes = client.run(os.getpid)
    services: dict[str, faults.Fault] = {}
    for number in range(site.shape.workers):
        name = f"worker-{number}"
        services[name] = Service(
            schedule, site.seed, number, site.sleep, process=processes[names[name]]
        )
    faults.install(client, services, seed=site.seed)


def run(
    cluster: LocalCluster,
    client: Client,
    site: Site,
    scheme: Scheme,
    schedule: Schedule,
    *,
    groups: int,
    limit: float = 3600.0,
    idle: float = 20.0,
    **options: Any,
) -> Outcome:
    """Score so many groups.

    Parameters
    ----------
    limit, idle : float
        Seconds after which plain Dask is cut: in all, or without anything coming back.
    options
        Further ones of `approxifer.score`.
    """
    arm(client, site, schedule)
    labels = np.resize(site.labels, groups * site.group_rows)
    if scheme.options is None:
        return _plain(cluster, client, site, labels, groups=groups, limit=limit, idle=idle)
    out = site.folder / "out.zarr"
    given = dict(scheme.options)
    if given["scheme"] == "parm":
        given["parity"] = site.parity
    with xr.open_zarr(str(site.data), chunks=None, consolidated=False) as data:
        report = approxifer.score(
            data.image[: groups * site.group_rows],
            model=site.model,
            out=out,
            client=client,
            k=site.k,
            block=site.shape.block,
            window=site.shape.window * site.group_rows,
            hang_after=HANG_AFTER,
            seed=site.seed,
            progress=False,
            **given,
            **options,
        )
    events = Journal.read(out)
    found = report.predictions.prediction.to_numpy().argmax(axis=1)
    shutil.rmtree(out)
    journal_path(out).unlink()
    return Outcome(
        latency.read(events),
        report.wall_seconds,
        True,
        report.evaluations_per_query,
        float((found == labels).mean()),
        report.counts["decoded"],
        events,
    )


def _plain(
    cluster: LocalCluster,
    client: Client,
    site: Site,
    labels: np.ndarray,
    *,
    groups: int,
    limit: float,
    idle: float,
) -> Outcome:
    shape = site.shape
    blocks = plain_dask.Blocks(
        str(site.data), "image", str(site.model), shape.block, shape.micro_batch
    )
    client.run(plain_dask.warm, blocks)
    found, seconds, whole, outputs = plain_dask.score(
        cluster, client, blocks, groups=groups, k=site.k, limit=limit, idle=idle
    )
    same = [
        (output.argmax(axis=1) == labels[share * shape.block : (share + 1) * shape.block]).mean()
        for share, output in outputs.items()
    ]
    agreement = float(np.mean(same)) if same else float("nan")
    return Outcome(found, seconds, whole, 1.0, agreement, 0, [])


def delays(events: Sequence[Mapping[str, Any]], site: Site) -> Delays:
    """What the simulation needs to know, from a run of ``hedged`` without faults.

    The time from one share's end to the next one's start on its worker is the gap; sending takes
    as long again as a share that is back takes to be known, for which the gap stands in.
    """
    batches = -(-site.shape.block // site.shape.micro_batch)
    attempts = [
        attempt
        for event in events
        if event["event"] == "group"
        for attempt in event["attempts"]
        if attempt["fate"] in latency.BACK
    ]
    forward = [a["stop"] - a["start"] - batches * site.sleep for a in attempts]
    gaps = []
    for name in {a["worker"] for a in attempts}:
        mine = sorted((a for a in attempts if a["worker"] == name), key=lambda a: a["start"])
        gaps += [b["start"] - a["stop"] for a, b in itertools.pairwise(mine)]
    gap = max(0.0, median(gaps))
    return Delays(site.sleep, tuple(max(0.0, one) for one in forward), gap, gap)

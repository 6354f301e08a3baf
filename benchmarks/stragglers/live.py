"""Runs on real workers under a schedule of slowness: ours, its rivals in the same engine, Dask."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import xarray as xr
from distributed import Client, LocalCluster

import approxifer
from approxifer.benchmarks.stragglers import latency, plain_dask
from approxifer.benchmarks.stragglers.latency import Latency
from approxifer.benchmarks.stragglers.schedules import Schedule, Service
from approxifer.benchmarks.stragglers.setup import HANG_AFTER, Scheme, Site
from approxifer.benchmarks.stragglers.simulated_workers import Delays
from approxifer.datasets import Journal
from approxifer.datasets.journal import journal_path
from approxifer.pipeline import faults
from approxifer.pipeline.cluster.connect import workers_of
from approxifer.pipeline.cluster.local import local_cluster


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
def fresh_workers(workers: int) -> Iterator[tuple[LocalCluster, Client]]:
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
    """Delays for the simulation, from a run of ``hedged`` without faults.

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

"""The face: `score` waits for the report, `submit` returns a job at once."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from approxifer.datasets.layout import FLAG_MEANINGS
from approxifer.pipeline import garbage
from approxifer.pipeline.client.engine import Engine
from approxifer.pipeline.cluster.batch_spec import job_script
from approxifer.pipeline.cluster.connect import refuse_import_of_main, workers_of
from approxifer.pipeline.job import Job
from approxifer.pipeline.planning.options import Options
from approxifer.pipeline.planning.partition import groups_in_flight, workers_needed
from approxifer.pipeline.planning.prepare import (
    Prepared,
    check_batch,
    expected_workers,
    open_run,
    open_workers,
    prepare,
    settle,
)
from approxifer.pipeline.reporting.progress import ProgressBar
from approxifer.pipeline.reporting.report import Report

if TYPE_CHECKING:
    import xarray as xr
    from distributed import Client


def score(
    data: str | os.PathLike[str] | xr.DataArray,
    *,
    model: Any,
    out: str | os.PathLike[str],
    state: str | os.PathLike[str] | None = None,
    preprocess: str | Callable[..., Any] | None = None,
    dtype: str = "float32",
    device: str = "auto",
    trust_model: bool = False,
    variable: str | None = None,
    sample_dim: str | None = None,
    cluster: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    client: Client | None = None,
    scheme: str = "systematic",
    k: int | None = None,
    stragglers: int = 1,
    byzantine: int = 0,
    adaptive: bool = False,
    order: str | None = None,
    features: str | Callable[..., Any] | None = None,
    parity: str | os.PathLike[str] | None = None,
    window: int | None = None,
    block: int | None = None,
    memory: str | int = "1GB",
    decoder: str = "berrut",
    repair: str = "exact",
    agreement: float = 0.995,
    redundancy: str | None = None,
    patience: float | None = None,
    late: float | None = None,
    hedge: str | Mapping[str, float] | Sequence[float] | None = None,
    check: int | None = None,
    assurance: float | None = None,
    referee: str = "client",
    quarantine: str | None = None,
    forgive: Sequence[str] = (),
    in_flight: float = 3.0,
    heal: str | None = None,
    hang_after: float = 30.0,
    stall_after: float = 300.0,
    retry_failed: bool = False,
    progress: bool = True,
    seed: int = 0,
) -> Report:
    """Score every row of a dataset with a model, on workers that may be slow, dead, hung or wrong.

    The same call after a crash, a cancel or Ctrl-C goes on where it stopped.

    Parameters
    ----------
    data
        Path or fsspec URL of a Zarr store, or a DataArray.
    model
        ``.pt2`` file of ``torch.export``, ``"package.module:factory"``, an ``nn.Module``, or a
        callable of arrays (M, *feature) -> (M, *out). What workers cannot import is sent to them.
    out
        Path of the output store; begun if it is not there, gone on with if it is ours.
    state
        Weights for a factory's module.
    preprocess
        ``"module:function"`` or any callable, rows (n, *stored) -> (n, *feature), applied
        on the client before encoding. A row's result must depend on nothing but that row: no random
        numbers, no statistics of the rows it comes with. That is tried on sample rows.
    dtype, device
        The model's precision, or ``"stored"``: rows reach it as they are stored, token ids of 8
        bits for instance; ``"auto"``: a GPU where a worker has one.
    trust_model
        Load a ``.pt2`` that could run code of its author's.
    variable, sample_dim
        Which variable (needed where there are several), and along which dimension its rows lie
        (None: the first).
    cluster, client
        Path or mapping of a ``cluster.yaml``, or a client of your own; a local cluster if neither.
    scheme, k, stragglers, byzantine
        The code: ``"systematic"``, ``"berrut"``, ``"parm"``, ``"replication"`` or ``"uncoded"``; K
        queries a codeword (None: the largest K <= 8 that the workers allow), S stragglers and E
        Byzantine workers tolerated.
    adaptive
        With ``"replication"``, E > 0 and ``check=0``: E + 1 copies, and more only where these
        differ.
    order
        Which rows form a codeword: ``"none"``, ``"natural"``, ``"similar"`` or ``"random"``. None:
        ``"none"`` under ``repair="exact"``, else ``"similar"``.
    features
        What rows are compared by in order ``"similar"``, instead of themselves: a function, or
        ``"module:function"``, rows (n, *feature) -> real numbers (n, d). Runs on the client; may
        look at the rows of a call together, but not draw random numbers or change the rows.
    parity
        With ``scheme="parm"``: the folder of its parity models (``approxifer train-parity``).
    window, block
        Rows held at one time and committed together; rows of a share. None: chosen from the
        model's speed and ``memory``.
    memory
        What the rows on the client may take.
    decoder
        ``"berrut"``, or ``"fitted"``: weights learnt at the start from all shares of 25 codewords
        of the first window, for that many evaluations more. Not with ``byzantine``.
    repair
        ``"exact"``: rows that were decoded are run again; ``"none"``: they stay (the paper);
        ``"doubtful"``: those whose decode is in doubt are run again. For models that give a number
        for each of at least two classes.
    agreement
        Under ``repair="doubtful"``, the part of all rows whose class is to be the one that the
        model gives. How sure a decode must be for that is learnt from rows of the run.
    redundancy
        ``"lazy"``: parity shares run on idle time; ``"eager"``. None: lazy under exact repair.
    patience
        How long a decodable group waits for the rest, in medians of the share time. None: 0 under
        ``repair="none"``, else 1.
    late
        In medians: when a share below the threshold is submitted again. None: 2, or with ``hedge``
        three times its multiple.
    in_flight
        Shares sent out for each worker. Fewer shorten the time that a group takes, and leave
        workers idle for a moment: 1.5 is for those who use rows as they return.
    heal
        ``"restart"`` hung workers (the default on clusters that we start) or ``"avoid"`` them.
    hang_after
        Seconds after which a running share, or a silent worker, counts as hung.
    stall_after
        Seconds without any share coming back, but at least three times what counts as hung, after
        which the run ends with a `ClusterError` that says who holds what; at half of it progress
        says so.
    retry_failed
        Run rows again that failed in an earlier session.
    progress
        Show a bar (plain lines where stderr is no terminal).
    seed
        Of everything random.
    check
        Rows of every share that are run again on other workers and compared, drawn once its output
        is back. None: 3 with ``byzantine`` > 0, else 0. With 0 and ``byzantine`` > 0, copies and
        the paper's locator tell wrong shares (``"replication"``, ``"berrut"``).
    assurance
        Check further rows until, with 95 % confidence, less than this fraction of the rows of any
        worker that wrote the output is wrong.
    referee
        Who decides where two workers differ: the ``"client"``, which runs the row itself, or a
        ``"quorum"`` of E + 1 workers that agree.
    quarantine
        What is shut out with a convicted ``"worker"``: itself, or its ``"node"``, for this output
        store also in later sessions. None: the node where the workers are on several hosts.
    forgive
        Hosts of convicted nodes that are to be used again.
    hedge
        With ``"uncoded"`` and ``"replication"``: when a second copy of a slow share goes out, of
        which the first to return is used. ``"cubed"``: after 3 medians, once half of the shares
        that were in flight with it are back; ``"spark"``: 1.5 and three quarters; or two numbers,
        ``(2.0, 0.5)`` or ``{"multiple": 2.0, "after": 0.5}``. None: ``late`` alone decides.

    Returns
    -------
    Report

    Raises
    ------
    TrustError
        More than ``byzantine`` workers were convicted; what they touched is pending again.
    ApproxiferError
        See `approxifer.errors`; bad input is refused before any work.
    """
    arguments = dict(locals())
    show = arguments.pop("progress")
    with ProgressBar(enabled=show) as bar:
        job = submit(**arguments)
        try:
            while True:
                bar.update(job.progress())
                try:
                    report = job.result(timeout=0.1)
                    break
                except TimeoutError:
                    if job.done():
                        raise
        except (KeyboardInterrupt, SystemExit):  # dask-jobqueue turns the one into the other
            job.cancel()
            job.wait()
            raise
        bar.update(job.progress())
    return report


def submit(data: Any, **options: Any) -> Job:
    """Start scoring and return at once; the arguments are those of `score`, without ``progress``.

    Bad arguments are refused here; what takes longer to find out is raised by ``job.result()``.

    Returns
    -------
    Job
    """
    refuse_import_of_main()
    options.pop("progress", None)
    checked = Options(data=data, **options)
    return Job(lambda job: _run(job, checked))


def plan_run(data: Any, **options: Any) -> str:
    """Describe a run without starting anything (``--dry-run``)."""
    options.pop("progress", None)
    prepared = prepare(Options(data=data, **options))
    client = prepared.options.client
    workers = expected_workers(prepared) if client is None else len(workers_of(client))
    spec, layout = settle(prepared, workers)
    n = spec.n
    asked = prepared.options
    # Parity is held back where it may not be needed: not to find errors, nor to keep what it gives.
    least = 1.0 if asked.repair == "exact" and not asked.votes else n / spec.k
    part = min(asked.rows_checked, layout.block) / layout.block
    checked = f", and {part:.1%} of the rows checked" if part else ""
    lines = [
        f"input   {prepared.source.rows:,} rows of {prepared.source.feature_shape} "
        f"{prepared.source.dtype}",
        f"model   {prepared.handle.name}: rows to {prepared.probe.output_shape} "
        f"{prepared.probe.output_dtype}, {prepared.probe.rows_per_second:,.0f} rows/s on one "
        "thread here",
        f"code    {_scheme(prepared, spec.scheme, spec.k, n)}, repair {prepared.options.repair!r}, "
        f"order {layout.order!r}",
        f"layout  windows of {layout.window:,} rows, blocks of {layout.block}, micro-batches of "
        f"{layout.micro_batch}",
        f"cluster {workers} workers ({workers_needed(spec, asked.byzantine)} needed), "
        f"{groups_in_flight(n, workers, asked.in_flight)} groups in flight",
        f"cost    {least:.3f} to {n / spec.k:.3f} evaluations per query before repairs{checked}",
        *(f"note    {note}" for note in prepared.notes),
    ]
    if prepared.stored is not None:
        lines.append(f"resume  {prepared.options.out} exists and would be gone on with")
    batch = None if prepared.cluster is None else prepared.cluster.batch
    if batch is not None:
        from approxifer.pipeline.cluster.batch import resources

        each = f"{workers} jobs of {batch.kind}, one worker each, {resources(batch)} each"
        lines += [f"jobs    {each}; the script of one:", "", job_script(batch)]
    return "\n".join(lines)


def _run(job: Job, options: Options) -> Report:
    """The work of a job, in its thread."""
    begin = time.monotonic()
    job.stage("opening input and model")
    check_batch(options)
    prepared = prepare(options)
    job.check_cancelled()
    with ExitStack() as stack:
        cluster = stack.enter_context(open_workers(prepared, job.stage, job.check_cancelled))
        job.check_cancelled()
        setup, spec = open_run(prepared, cluster, stack)
        stack.enter_context(garbage.frozen_gc())
        engine = Engine(setup, job.stream)
        job.stream.read_back = engine.windows.read_back
        job.run(engine, cluster.client.loop.asyncio_loop)  # type: ignore[union-attr]
        status = setup.store.status()
        found = Counter(FLAG_MEANINGS[value] for value in status.tolist())
        counts = {name: found.get(name, 0) for name in ("exact", "decoded", "repaired", "failed")}
        started = engine.started or time.monotonic()
        evaluations = sum(w["evaluations"] for w in engine.connection.ledger["workers"])
        members = engine.members
        doubts = engine.collector.doubts
        doubt = doubts.found if doubts is not None and doubts.found.rows else None
        records, proofs = engine.integrity.records()
        aside = [c.sentence for c in members.convictions if c.aside]
        setup.store.close(
            counts=counts,
            workers=[member.name for member in members.members],
            extra={"convicted": [str(c) for c in members.convictions if not c.aside]}
            | ({"doubtful": doubt.attrs()} if doubt else {}),
        )
        wall = time.monotonic() - started
        setup.journal.append(
            {
                "event": "close",
                "session": setup.session,
                "counts": counts,
                "evaluations": evaluations,
                "wall_seconds": round(wall, 3),
            },
            fsync=True,
        )
        return Report(
            out=setup.store.path,
            rows=setup.store.rows,
            counts=counts,
            workers=records,
            proofs=proofs,
            session=setup.session,
            evaluations=evaluations,
            wall_seconds=wall,
            setup_seconds=started - begin,
            scheme=_scheme(prepared, spec.scheme, spec.k, spec.n),
            resumed=engine.windows.resumed,
            convicted=[c for c in members.convictions if not c.aside],
            failures=engine.collector.failures,
            doubt=doubt,
            notes=prepared.notes + engine.integrity.enforcement.hardware + aside,
        )


def _scheme(prepared: Prepared, scheme: str, k: int, n: int) -> str:
    options = prepared.options
    byzantine = f" E={options.byzantine}" if options.byzantine else ""
    adaptive = ", adaptive" if options.adaptive else ""
    return f"{scheme} K={k} S={options.stragglers}{byzantine}{adaptive}, {n} shares"

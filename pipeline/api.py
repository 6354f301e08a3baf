"""The face: `score` waits for the report, `submit` returns a job at once."""

from __future__ import annotations

import time
from contextlib import ExitStack

from approxifer.coding import CodeSpec
from approxifer.coding.spec import MAX_SHARES
from approxifer.pipeline import garbage
from approxifer.pipeline.client.engine import Engine
from approxifer.pipeline.cluster.batch_spec import job_script
from approxifer.pipeline.cluster.connect import refuse_import_of_main, workers_of
from approxifer.pipeline.finished import final_counts, finished_report
from approxifer.pipeline.job import Job
from approxifer.pipeline.planning.described import bytes_read
from approxifer.pipeline.planning.home import with_client
from approxifer.pipeline.planning.options import Options
from approxifer.pipeline.planning.partition import Layout, groups_in_flight, workers_needed
from approxifer.pipeline.planning.prepare import (
    Prepared,
    check_batch,
    expected_workers,
    open_run,
    open_workers,
    prepare,
    settle,
    why_sent,
)
from approxifer.pipeline.planning.signature import takes_options
from approxifer.pipeline.reporting.progress import ProgressBar
from approxifer.pipeline.reporting.report import Report


@takes_options(Options)
def score(options: Options) -> Report:
    """Score every row of a dataset with a model, on workers that may be slow, dead, hung or wrong.

    The same call after a crash, a cancel or Ctrl-C goes on where it stopped.

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
    with ProgressBar(enabled=options.progress) as bar:
        job = _submit(options)
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


@takes_options(Options)
def submit(options: Options) -> Job:
    """Start scoring and return at once.

    Bad arguments are refused here; what takes longer to find out is raised by ``job.result()``.

    Returns
    -------
    Job
    """
    return _submit(options)


def _submit(options: Options) -> Job:
    refuse_import_of_main()
    settled = with_client(options)  # here: in the job's thread an asynchronous one would hang
    return Job(lambda job: _run(job, settled))


@takes_options(Options)
def plan_run(options: Options) -> str:
    """Describe a run without starting anything (``--dry-run``).

    Returns
    -------
    str
        Of several lines.
    """
    prepared = prepare(with_client(options))
    if (report := _finished(prepared, write=False)) is not None:
        return f"finished: all {report.rows:,} rows of {report.out} are there; nothing would be run"
    client = prepared.options.client
    workers = expected_workers(prepared) if client is None else len(workers_of(client))
    spec, layout = settle(prepared, workers)
    n = spec.n
    asked = prepared.options
    # Parity is held back where it may not be needed: not to find errors, nor to keep what it gives.
    least = 1.0 if asked.repair == "exact" and not asked.votes else n / spec.k
    part = min(asked.rows_checked, layout.block) / layout.block
    checked = f", and {part:.1%} of the rows checked" if part else ""
    source = prepared.source
    made_of = f", of {source.variable}" if source.stacked else ""
    made_of += f", tiles of {source.tiling}" if source.tiling is not None else ""
    lines = [
        f"input   {source.rows:,} rows of {source.feature_shape} {source.dtype}{made_of}",
        f"model   {prepared.handle.name}: rows to {prepared.probe.packing}, "
        f"{prepared.probe.rows_per_second:,.0f} rows/s on one thread here",
        f"output  {prepared.forms}",
        f"code    {asked.in_words(spec)}, repair {prepared.options.repair!r}, "
        f"order {layout.order!r}",
        f"layout  windows of {layout.window:,} rows, blocks of {layout.block}, micro-batches of "
        f"{layout.micro_batch}",
        f"cluster {workers} workers ({workers_needed(spec, asked.byzantine)} needed), "
        f"{groups_in_flight(n, workers, asked.in_flight)} groups in flight",
        f"reads   {_reads(prepared, spec, layout)}",
        f"cost    {least:.3f} to {n / spec.k:.3f} evaluations per query before repairs{checked}",
        *(f"note    {note}" for note in prepared.notes),
        *(f"note    {note}" for note in source.reads_again(layout.window)),
    ]
    if prepared.stored is not None:
        lines.append(f"resume  {prepared.options.out} exists and would be gone on with")
    if prepared.growth is not None and prepared.stored is not None:
        there = prepared.stored["rows"]
        lines.append(f"append  {source.rows - there:,} rows to the {there:,} that it has")
    batch = None if prepared.cluster is None else prepared.cluster.batch
    if batch is not None:
        from approxifer.pipeline.cluster.batch import resources

        each = f"{workers} jobs of {batch.kind}, one worker each, {resources(batch)} each"
        lines += [f"jobs    {each}; the script of one:", "", job_script(batch)]
    return "\n".join(lines)


def _reads(prepared: Prepared, spec: CodeSpec, layout: Layout) -> str:
    """The way of the rows to the workers, in words."""
    if why := why_sent(prepared, spec, layout):
        return f"the client reads the rows and sends them: {why}"
    source = prepared.source
    each = bytes_read(layout, spec.k, source.rows, source.chunk)
    return f"each worker reads the rows of its shares, {each:.2f} bytes for each byte of the input"


def _finished(prepared: Prepared, *, write: bool) -> Report | None:
    """The report of a job of which nothing is left to do; None if something is."""
    if prepared.stored is None or prepared.growth is not None:
        return None
    spec, layout = settle(prepared, MAX_SHARES)
    report = finished_report(prepared.options, layout, spec, prepared.results, write=write)
    if report is not None:
        report.notes += prepared.notes
    return report


def _run(job: Job, options: Options) -> Report:
    """The work of a job, in its thread."""
    begin = time.monotonic()
    job.stage("opening input and model")
    check_batch(options)
    prepared = prepare(options)
    job.check_cancelled()
    if (report := _finished(prepared, write=True)) is not None:
        return report
    with ExitStack() as stack:
        cluster = stack.enter_context(open_workers(prepared, job.stage, job.check_cancelled))
        job.check_cancelled()
        setup, spec = open_run(prepared, cluster, stack)
        stack.enter_context(garbage.frozen_gc())
        engine = Engine(setup, job.stream)
        job.stream.read_back = engine.windows.read_back
        job.run(engine, cluster.client.loop.asyncio_loop)  # type: ignore[union-attr]
        counts = final_counts(setup.store)
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
            scheme=options.in_words(spec),
            resumed=engine.windows.resumed,
            convicted=[c for c in members.convictions if not c.aside],
            failures=engine.collector.failures,
            doubt=doubt,
            notes=prepared.notes + engine.integrity.enforcement.hardware + aside,
        )

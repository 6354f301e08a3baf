"""From options to a run: open and check everything, in the order of what is cheap to refuse.

Nothing is started or written before the input, the model and the output path have been found fit.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from approxifer.coding import SCHEMES, CodeSpec
from approxifer.coding.spec import MAX_SHARES
from approxifer.datasets import Journal, OutputStore, Source, codable, open_source
from approxifer.datasets.compare import check_same
from approxifer.datasets.dtypes import not_finite
from approxifer.datasets.form import Forms
from approxifer.datasets.growth import Growth
from approxifer.datasets.layout import OUTPUT, coordinates_of
from approxifer.datasets.ownership import claim_journal, own_events
from approxifer.datasets.tiles.tiling import Joined
from approxifer.errors import ConfigError, ModelError
from approxifer.models import (
    ModelHandle,
    Probe,
    ensure,
    open_model,
    resolve_callable,
    run_rows,
)
from approxifer.models.cache import cropped
from approxifer.models.parity import Parity, load_parity
from approxifer.models.user_code.exits import NoExit
from approxifer.models.user_code.identity import code_parts
from approxifer.packing import Packing
from approxifer.pipeline.byzantine.membership import Membership
from approxifer.pipeline.client.context import Setup
from approxifer.pipeline.cluster.batch_spec import check_installed
from approxifer.pipeline.cluster.connect import (
    ClusterSpec,
    OpenCluster,
    load_cluster,
    open_cluster,
)
from approxifer.pipeline.planning.described import MOST_READ, bytes_read, describable
from approxifer.pipeline.planning.options import Options
from approxifer.pipeline.planning.output import forms_for
from approxifer.pipeline.planning.partition import (
    MICRO_BATCH,
    MOST_K,
    Layout,
    Measures,
    check_workers,
    choose_k,
    make_layout,
    micro_batch,
    most_in_flight,
    row_bytes,
    window_bytes,
    workers_needed,
)
from approxifer.pipeline.planning.queries import probe_model
from approxifer.pipeline.planning.results import plan_results
from approxifer.pipeline.planning.resume import attributes, check_outputs, follow
from approxifer.pipeline.planning.user_code import USER_CODE, check_code
from approxifer.pipeline.planning.user_probe import probe_by_rows, probe_features
from approxifer.pipeline.queries import Queries, Recipe
from approxifer.pipeline.results import POSTPROCESS, Results
from approxifer.version import __version__

#: Workers beyond what the code needs, on a cluster whose size is ours to choose.
SPARES = 1
#: Bytes of a row's status, group, worker and residual.
STATUS_BYTES = 1 + 4 + 4 + 4
#: The attribute that holds E where shares are checked by rows, and the code takes no more for it.
BYZANTINE = "byzantine"


@dataclass(frozen=True)
class Prepared:
    """A run as it is known before a worker has been asked for."""

    options: Options
    cluster: ClusterSpec | None
    queries: Queries
    row: np.ndarray  #: (1, *feature): the first, as the model takes it
    handle: ModelHandle
    parity: Parity | None
    probe: Probe
    results: Results
    forms: Forms  #: of the predictions
    stored: dict[str, Any] | None  #: attributes of the output store, where there is one
    growth: Growth | None  #: rows to be appended to it
    notes: list[str]
    user_code: dict[str, dict[str, str]]  #: the parts of each use
    recipe: Recipe | str  #: by which workers read the rows; or why none can

    @property
    def source(self) -> Source:
        """The input."""
        return self.queries.source


def check_batch(options: Options) -> None:
    """Refuse a batch system that is not installed here, before anything else is looked at.

    Raises
    ------
    ConfigError, ClusterError
    """
    cluster = None if options.cluster is None else load_cluster(options.cluster)
    if cluster is not None and cluster.batch is not None:
        check_installed(cluster.kind)


def prepare(options: Options) -> Prepared:
    """Open the input and the model, look at the output path, and probe the model on sample rows.

    Raises
    ------
    ConfigError, InputError, ModelError, StoreError
    """
    cluster = None if options.cluster is None else load_cluster(options.cluster)
    source = open_source(
        options.data,
        variable=options.variable,
        sample_dim=options.sample_dim,
        storage_options=options.storage_options,
        variables=options.variables,
        tile=options.tile,
        halo=options.halo,
    )
    stored, past = None, list[dict[str, Any]]()
    if OutputStore.exists(options.out):
        with OutputStore.open(options.out) as store:  # for a moment: refused where it is in use
            stored = attributes(store)
            follow(source, store, append=options.append)
            past, _ = own_events(store)
            begun = store.packing
    else:
        OutputStore.check_path(options.out)
    if options.forgive:
        Membership("", past, forgive=options.forgive)
    if options.preprocess is None:
        codable(source.dtype, options.scheme, options.dtype)  # before the model is loaded
    handle = open_model(
        options.model,
        state=options.state,
        dtype=options.dtype,
        device=options.device,
        trust_model=options.trust_model,
        preprocess=options.preprocess,
        variables=source.variables if source.stacked else (),
    )
    preprocess = None if options.preprocess is None else resolve_callable(options.preprocess)
    features = options.compared_by  # on the client alone: need not be importable
    if isinstance(features, str):
        features = resolve_callable(features, "order")
    queries = Queries(source, preprocess, features, options.scheme, options.dtype)
    batch = handle.batches.fit(micro_batch(options.block or MICRO_BATCH))
    if handle.preprocess is not None:
        probe_by_rows(handle.preprocess, queries.preprocessed, _ends(source, 2 * batch))
    queries, found, sample, note = probe_model(queries, handle, batch)
    joined: tuple[Joined, ...] = ()
    if source.tiling is not None:
        handle, found, joined = _without_border(options, source, handle, found)
    if features is not None:
        name = getattr(features, "__qualname__", repr(features))
        probe_features(name, queries.compared, sample)
    results, runs = plan_results(options, handle, found)
    if options.agreement is not None:
        check_classes(found)
    notes = [note] if note else []
    forms = forms_for(options.output, source, results.kept, joined)
    growth = None
    if stored is not None and options.append and source.rows > stored["rows"]:
        growth = OutputStore.open(options.out, write=False).growth(source, forms)
    notes += [*source.notes, *coordinates_of(source, forms).notes]
    notes += not_finite(queries.load, source.rows)
    if not found.bitwise:
        notes.append("the model rounds a row by its place in a batch: runs may differ in last bits")
    parity = _open_parity(options, handle, sample, found)
    with NoExit("preprocess"):
        user_code = {"model": dict(handle.code), "preprocess": code_parts(options.preprocess)}
        if options.compared_by is not None:
            user_code["order"] = code_parts(options.compared_by)
        if results.postprocess is not None and results.postprocess.own:
            user_code["postprocess"] = code_parts(options.postprocess)
    prepared = Prepared(
        options, cluster, queries, sample[:1].copy(), runs, parity, found, results, forms, stored,
        growth, notes, user_code, queries.recipe(options.seed),
    )  # fmt: skip
    if stored is not None:  # now, not once the workers are there
        spec, layout = settle(prepared, MAX_SHARES)
        _check_windows(prepared, spec, layout)
        given = store_attributes(prepared, spec, layout)
        if POSTPROCESS in stored:
            given.setdefault(POSTPROCESS, None)
        if options.output is not None:
            given[OUTPUT] = forms.described()
        if growth is not None:
            given |= {"rows": stored["rows"], "input": source.fingerprint(growth.before)}
        check_same(Path(options.out), given=given, stored=stored)
        check_outputs(Path(options.out), results.kept, begun)
        accept = options.accept_code_change
        notes += check_code(Path(options.out), given=user_code, stored=stored, accept=accept)
    return prepared


def _without_border(
    options: Options, source: Source, handle: ModelHandle, found: Probe
) -> tuple[ModelHandle, Probe, tuple[Joined, ...]]:
    """The model that returns a tile's output without its border, and how these are joined.

    Raises
    ------
    ConfigError
        Outputs that cannot be.
    """
    assert source.tiling is not None, "rows are tiles"
    if not found.packing.alone or options.postprocess is not None:
        what = "postprocess=" if found.packing.alone else f"several outputs ({found.packing})"
        raise ConfigError(
            f"tile= with {what}: tiles of one output, as the model returns it, are put together; "
            "let the model return that, or score whole fields"
        )
    joined, inner = source.tiling.joined(
        found.output_shape, source.feature_dims, len(source.sample_dims)
    )
    kept = found.outputs[(slice(None), *(slice(*part) for part in inner))]
    return (
        cropped(handle, inner),
        replace(found, packing=Packing.single(kept), outputs=kept),
        joined,
    )


def _ends(source: Source, most: int) -> np.ndarray:
    """Rows from the beginning and the end of the input: either may be blank."""
    if source.rows <= most:
        return source.read(0, source.rows)
    first = source.read(0, most // 2)
    return np.concatenate([first, source.read(source.rows - most // 2, source.rows)])


def _open_parity(
    options: Options, handle: ModelHandle, sample: np.ndarray, found: Probe
) -> Parity | None:
    """Open the parity models, and run one row of sums through each."""
    if options.parity is None:
        return None
    parity = load_parity(options.parity, handle, k=options.k, stragglers=options.stragglers)
    for one in parity.handles:
        output = run_rows(ensure(one), sample[:1], 1)
        if (output.shape[1:], output.dtype) != (found.output_shape, found.output_dtype):
            raise ModelError(
                f"parity model {one.name!r} returns {output.dtype} {output.shape[1:]} a row, the "
                f"model {found.output_dtype} {found.output_shape}: train it again"
            )
    return parity


def check_classes(found: Probe) -> None:
    """Refuse a model of whose outputs it cannot be said when two of them agree.

    Raises
    ------
    ConfigError
    """
    one = found.packing.alone and len(found.output_shape) == 1
    if not one or found.output_shape[0] < 2 or found.output_dtype.kind != "f":
        raise ConfigError(
            f"repair=, a fraction, asks whether classes agree, and the model turns a row into "
            f"{found.packing}: it must give real numbers for at least two classes, and "
            "nothing else. Take repair='exact' or 'none'"
        )


def measure(prepared: Prepared, workers: int, *, described: bool) -> Measures:
    """Measure what the layout follows from; ``described``: workers read the rows."""
    row, found = prepared.row, prepared.probe
    return Measures(
        rows=prepared.source.rows,
        row_bytes=row_bytes(row.shape[1:], row.dtype),
        stored_bytes=row_bytes(prepared.source.feature_shape, prepared.source.dtype),
        output_bytes=prepared.results.kept.bytes + STATUS_BYTES,
        input_chunk=prepared.source.chunk,
        rows_per_second=found.rows_per_second,
        workers=workers,
        whole_chunks=prepared.source.grid.ndim > 1,
        described=described,
    )


def settle(prepared: Prepared, workers: int) -> tuple[CodeSpec, Layout]:
    """The code and the layout: the store's where there is one, else chosen for so many workers.

    What the user asks for goes before what the store holds; where they differ, `OutputStore.check`
    refuses.

    Raises
    ------
    ConfigError, TooFewWorkersError
    """
    options, stored = prepared.options, prepared.stored
    k = options.k if stored is None else options.k or stored["code"]["k"]
    if prepared.parity is not None:
        k = k or prepared.parity.k
    byzantine = options.byzantine
    make = options.code_for
    if stored is not None and BYZANTINE not in stored and stored["code"]["byzantine"] == byzantine:
        make = partial(_with_votes, make, byzantine)  # it was begun with so many shares
    spec = choose_k(make, k, workers, byzantine=byzantine)
    if prepared.parity is not None:
        spec = replace(spec, encoder=prepared.parity.encoder)  # type: ignore[arg-type]
    check_workers(spec, workers, byzantine=byzantine)
    if stored is not None:
        order = None if options.order is None else options.resolved_order
        asked = {"window": options.window, "block": options.block, "order": order}
        given = {name: value for name, value in asked.items() if value is not None}
        return spec, Layout.of(stored["layout"] | given | {"seed": options.seed})
    order = options.resolved_order

    def layout(*, described: bool) -> Layout:
        return make_layout(
            spec,
            measure(prepared, workers, described=described),
            order=order,
            seed=options.seed,
            memory=options.memory_bytes,
            window=options.window,
            block=options.block,
            batches=prepared.handle.batches,
        )

    if not describable(prepared.recipe, spec, order, options.decoder):
        found = layout(described=True)
        if not why_sent(prepared, spec, found):
            return spec, found
    return spec, layout(described=False)


def why_sent(prepared: Prepared, spec: CodeSpec, layout: Layout) -> str:
    """The reason for which the client sends the rows to the workers; "": they read them."""
    source, options = prepared.source, prepared.options
    why = describable(prepared.recipe, spec, layout.order, options.decoder)
    if why:
        return why
    read = bytes_read(layout, spec.k, source.rows, source.chunk)
    if read <= MOST_READ:
        return ""
    return (
        f"blocks have {layout.block:,} rows and the input's chunks {source.chunk:,}, of which "
        f"workers would read {read:.1f} bytes for each byte of the input"
    )


def _with_votes(make: Callable[[int], CodeSpec], byzantine: int, k: int) -> CodeSpec:
    """A code with the shares that tell E wrong ones from the others."""
    return replace(make(k), byzantine=byzantine)


def _check_windows(prepared: Prepared, spec: CodeSpec, layout: Layout) -> None:
    """Refuse windows of a store that were cut for workers that read the rows, where the client now
    sends them and has not the memory for it.

    Raises
    ------
    ConfigError
    """
    if not (why := why_sent(prepared, spec, layout)):
        return
    rows, options = min(layout.window, prepared.source.rows), prepared.options
    needed = window_bytes(rows, measure(prepared, 1, described=False))
    if needed > options.memory_bytes:
        raise ConfigError(
            f"{options.out} has windows of {rows:,} rows, which take {needed / 1e6:,.0f} MB of the "
            "client where it sends the rows to the workers, and memory= is "
            f"{options.memory_bytes / 1e6:,.0f} MB. It sends them because {why}: give more "
            "memory=, or let the workers read them, as when the store was begun"
        )


def store_attributes(prepared: Prepared, spec: CodeSpec, layout: Layout) -> dict[str, Any]:
    """Attributes of the store, which a resumed run must agree with."""
    code, byzantine = asdict(spec), prepared.options.byzantine
    if not SCHEMES[spec.scheme].trained:  # stores begun before there were encoders have none
        del code["encoder"]
    parity = prepared.parity.handles if prepared.parity else ()
    return {
        "code": code | {"repair": prepared.options.resolved_repair},
        **({BYZANTINE: byzantine} if spec.byzantine != byzantine else {}),
        "layout": layout.attrs(),
        "model": prepared.handle.stored_fingerprint,
        **({"parity": [one.stored_fingerprint for one in parity]} if parity else {}),
        **prepared.results.attrs(),
        "input": prepared.source.fingerprint(),
        **prepared.source.described(),
        "rows": prepared.source.rows,
        "version": __version__,
    }


def expected_workers(prepared: Prepared) -> int:
    """Workers that a cluster of ours will have, before it is started."""
    options = prepared.options
    given = prepared.cluster.workers if prepared.cluster is not None else None
    if given is not None:
        return given
    fixed = _fixed_k(prepared)
    if prepared.cluster is not None and prepared.cluster.batch is not None:
        # A codeword at a time, side by side.
        k = fixed or MOST_K
        return max(workers_needed(options.code_for(k), options.byzantine), k) + SPARES
    # Where nothing says how many: one for each core, but enough for K = 4.
    needed = workers_needed(options.code_for(fixed or 4), options.byzantine)
    return max(os.cpu_count() or 1, needed + SPARES)


def _fixed_k(prepared: Prepared) -> int | None:
    """K where it is not ours to choose."""
    trained = None if prepared.parity is None else prepared.parity.k
    stored: int | None = (prepared.stored or {}).get("code", {}).get("k")
    return prepared.options.k or trained or stored


def open_workers(
    prepared: Prepared,
    say: Callable[[str], None] | None,
    check: Callable[[], None] | None = None,
) -> OpenCluster:
    """Connect to the cluster, or start one, with enough workers for the code. ``check`` is called
    while batch jobs are waited for, and raises to break off."""
    options, spec = prepared.options, prepared.cluster
    if options.client is not None or (spec is not None and spec.kind == "address"):
        needed = workers_needed(options.code_for(options.k or 1), options.byzantine)
        return open_cluster(spec, client=options.client, needed=needed, say=say)
    workers = expected_workers(prepared)
    code, _ = settle(prepared, workers)
    sized = (spec or load_cluster({})).model_copy(update={"workers": workers})
    needed = fewest = workers_needed(code, options.byzantine)
    if _fixed_k(prepared) is None:  # half of K costs twice the redundancy, but is better than none
        fewest = workers_needed(options.code_for(-(-code.k // 2)), options.byzantine)
    cluster = open_cluster(sized, needed=needed, fewest=fewest, say=say, check=check)
    there = cluster.count()
    if there < needed:
        smaller = choose_k(options.code_for, None, there, byzantine=options.byzantine)
        prepared.notes.append(
            f"K={smaller.k} instead of {code.k}: {there} of {workers} workers came in time"
        )
    return cluster


def open_run(prepared: Prepared, cluster: OpenCluster, stack: ExitStack) -> tuple[Setup, CodeSpec]:
    """Open or create the output store, and gather what the engine needs. The store and the journal
    are closed with ``stack``."""
    options, client = prepared.options, cluster.client
    present = cluster.count()
    spec, layout = settle(prepared, present)
    attrs = store_attributes(prepared, spec, layout)
    if prepared.stored is not None:
        store = OutputStore.open(options.out)
        stack.callback(store.release)
        if prepared.growth is not None:
            store.grow(prepared.growth, {name: attrs[name] for name in ("input", "rows")})
        store.check(attrs)
        store.keep({USER_CODE: prepared.user_code})
    else:
        store = OutputStore.create(
            options.out,
            source=prepared.source,
            output_shape=prepared.results.kept.shape,
            output_dtype=prepared.results.kept.dtype,
            forms=prepared.forms,
            chunk=layout.chunk,
            attrs=attrs | {USER_CODE: prepared.user_code},
        )
        stack.callback(store.release)
    past, notes = claim_journal(store)
    prepared.notes.extend(notes + ([store.note] if store.note else []))
    prepared.notes.extend(prepared.source.reads_again(layout.window))
    journal = stack.enter_context(Journal(options.out))
    heal = options.heal or ("restart" if cluster.owned else "avoid")
    sent = why_sent(prepared, spec, layout)
    session = time.strftime("%Y%m%dT%H%M%S") + "-" + uuid.uuid4().hex[:8]
    journal.append(
        {
            "event": "session",
            "session": session,
            "store": store.uuid,
            "time": time.time(),
            "version": __version__,
            "code": asdict(spec),
            "rows": store.rows,
        }
    )
    setup = Setup(
        client=client,
        store=store,
        journal=journal,
        load=prepared.queries.load,
        compared=prepared.queries.compared,
        recipe=None if sent or isinstance(prepared.recipe, str) else prepared.recipe,
        row=prepared.row,
        results=prepared.results,
        handle=prepared.handle,
        parity=prepared.parity.handles if prepared.parity else (),
        threads=cluster.threads,
        spec=spec,
        layout=layout,
        policy=options.policy,
        decoder=options.decoder,
        repair=options.resolved_repair,
        agreement=options.agreement,
        restart=heal == "restart",
        retry_failed=options.retry_failed,
        session=session,
        most_in_flight=most_in_flight(
            spec, layout, measure(prepared, present, described=not sent), options.memory_bytes
        ),
        in_flight=options.in_flight,
        past=[e for e in past if e.get("event") in ("name", "conviction", "forgiven")],
        notes=prepared.notes,
        quarantine=options.quarantine,
        forgive=options.forgive,
        byzantine=options.byzantine,
        check=options.rows_checked,
        assurance=options.assurance,
        referee=options.referee,
    )
    for host in options.forgive:
        journal.append({"event": "forgiven", "session": session, "host": host}, fsync=True)
    return setup, spec

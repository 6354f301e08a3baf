"""The results that options ask for.

``postprocess=`` runs on the workers where nothing else needs the model's own outputs: they are not
decoded, not checked and not kept. Else it runs on the client, on rows that are final.
"""

from __future__ import annotations

import numpy as np

from approxifer.coding import SCHEMES
from approxifer.errors import ConfigError
from approxifer.models import ModelHandle, Probe
from approxifer.models.outputs.postprocess import open_postprocess
from approxifer.packing import Packing
from approxifer.pipeline.planning.options import Options
from approxifer.pipeline.planning.user_probe import probe_by_rows
from approxifer.pipeline.results import Results


def plan_results(
    options: Options, handle: ModelHandle, found: Probe
) -> tuple[Results, ModelHandle]:
    """Settle what is stored, and who makes it: the handle is that of the workers.

    Raises
    ------
    ConfigError
        Outputs that the options do not allow.
    ModelError
        ``postprocess`` raises on the outputs of the sample rows, or returns something else than
        numbers with a row for each.
    InputError
        It couples the rows, or draws random numbers.
    """
    raw, scheme = found.packing, SCHEMES[options.scheme]
    _check_codable(options, raw)
    if options.postprocess is None:
        return Results(raw, raw), handle
    postprocess = open_postprocess(options.postprocess)
    postprocess.check(raw)
    then = postprocess.load()
    made, _ = then(raw, found.outputs)
    for part in range(len(made.parts)):

        def one(outputs: np.ndarray, part: int = part) -> np.ndarray:
            now, result = then(raw, outputs)
            return now.unpack(result)[part]

        probe_by_rows(postprocess.name, one, found.outputs, what="postprocess")
    parts = postprocess.parts(made, keep=options.keep)
    if options.keep:
        if clash := sorted(set(raw.names) & {part.name for part in parts}):
            raise ConfigError(
                f"keep=True: the model and postprocess= both have an output {clash[0]!r}: give it "
                "another name in one of them"
            )
        parts = (*raw.parts, *parts)
    kept = Packing(parts, made.alone and not options.keep)
    on_workers = not (scheme.mixes or options.rows_checked or options.byzantine or options.keep)
    if on_workers and options.agreement is None:
        results = Results(kept, kept, postprocess=postprocess)
        return results, handle.with_postprocess(postprocess)
    return Results(raw, kept, then, made, options.keep, postprocess), handle


def _check_codable(options: Options, raw: Packing) -> None:
    if options.scheme == "parm" and not raw.alone:
        raise ConfigError(
            f"scheme='parm': the model returns several outputs ({raw}), and a parity model is "
            "trained for one: take another scheme, or let the model return one"
        )
    if not SCHEMES[options.scheme].mixes:
        return
    for part in raw.parts:
        if part.exact:
            what = "the model returns" if raw.alone else f"the output {part.name!r} is"
            raise ConfigError(
                f"{what} {part.dtype}, which cannot be interpolated: let it return real numbers "
                "(logits), or take scheme='uncoded' or 'replication'"
            )

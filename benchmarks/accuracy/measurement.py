"""All codes of one K in one order on one case: recorded once, decoded for all losses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from approxifer.benchmarks.accuracy.cases import Case, Loaded, load
from approxifer.benchmarks.accuracy.features import first_layers, places
from approxifer.benchmarks.accuracy.metrics import Metric
from approxifer.benchmarks.datasets import forward
from approxifer.benchmarks.erasures import Decode, always, now_and_then, recover
from approxifer.benchmarks.recording import Recording, record
from approxifer.coding import CodeSpec, gather, order_rows
from approxifer.coding.berrut import InterpolatingCode
from approxifer.coding.fitted import FittedDecoder
from approxifer.models.parity import load_parity
from approxifer.pipeline.client.single_shares import LEARNT

#: Chances with which each share is lost.
CHANCES = (0.01, 0.05)
FEATURES_K = 8


def measured_losses(
    recording: Recording,
    metric: Metric,
    *,
    lost: int,
    seed: int,
    chances: Sequence[float] = CHANCES,
    decode: Decode | None = None,
) -> dict[str, Any]:
    """Lose shares of one recording, in all ways."""
    code, codewords = recording.code, recording.block
    rng = np.random.default_rng([seed, code.k, code.n, lost])
    whole = recover(recording, np.ones((codewords, code.n), bool), decode=decode)
    left = [recover(recording, k, decode=decode) for k in always(code, lost, codewords, rng)]
    found: dict[str, Any] = {
        "decoded": float(np.mean([~one.exact for one in left])),
        "evaluations": code.n / code.k,
        **metric.figures(recording, whole, left),
        "chance": {},
    }
    for chance in chances:
        kept, run = now_and_then(code, chance, codewords, rng)
        after = recover(recording, kept, decode=decode)
        found["chance"][str(chance)] = {
            "decoded": float((~after.exact).mean()),
            "evaluations": run / (code.k * codewords),
            **metric.overall(recording, after),
        }
    return found


def specs(case: Case, k: int, order: str) -> Iterator[tuple[CodeSpec, Path | None]]:
    """The codes to measure, with their parity models; plain ones in the first order, which does not
    matter to them."""
    for s in case.stragglers:
        if order == case.orders[0]:
            yield CodeSpec("replication", k, s), None
        yield CodeSpec("berrut", k, s), None
        yield CodeSpec("systematic", k, s), None
    if order == case.orders[0]:
        yield CodeSpec("uncoded", k, 0), None
    for (of, encoder), folder in case.parity.items():
        if of == k:
            yield CodeSpec("parm", k, 1, encoder=encoder), folder  # type: ignore[arg-type]


def measure(_: None, case: Case, k: int, order: str, seed: int) -> list[dict[str, Any]]:
    """Measure all codes of one K in one order."""
    loaded, found = load(case), []
    for spec, folder in specs(case, k, order):
        recording = record(
            case.name, loaded.rows, loaded.forward, spec,
            block=None, order=order, seed=seed, plain=loaded.plain,
            parity=_parity(folder, loaded, spec),
        )  # fmt: skip
        head = {"scheme": spec.scheme, "k": k, "stragglers": spec.stragglers, "order": order}
        if spec.scheme == "parm":
            head["encoder"] = spec.encoder
        lost = 0 if spec.scheme == "uncoded" else spec.stragglers
        found.append(head | measured_losses(recording, loaded.metric, lost=lost, seed=seed))
        if isinstance(recording.code, InterpolatingCode):
            decode = fitted(loaded, spec, recording.code, order, seed).decode
            some = measured_losses(recording, loaded.metric, lost=lost, seed=seed, decode=decode)
            found.append(head | {"decoder": "fitted"} | some)
    return found


def fitted(
    loaded: Loaded, spec: CodeSpec, code: InterpolatingCode, order: str, seed: int
) -> FittedDecoder:
    """A decoder that has learnt from codewords of other rows, evenly spread over their order."""
    rows = loaded.others
    perm = order_rows(rows, code.k, how=order, seed=seed)
    whole = perm[: len(perm) // code.k * code.k].reshape(-1, code.k)
    chosen = whole[np.linspace(0, len(whole) - 1, LEARNT).astype(int)]
    made = record(
        "lessons", rows[chosen.ravel()], loaded.forward, spec, block=None, order="natural"
    )
    decoder = FittedDecoder(code)
    decoder.learn(made.outputs[0], gather(made.plain, made.members[0], code.k))
    return decoder


def _parity(folder: Path | None, loaded: Loaded, spec: CodeSpec) -> list[Any]:
    if folder is None:
        return []
    parity = load_parity(folder, loaded.handle, k=spec.k, stragglers=spec.stragglers)
    return [forward(handle.load(threads=1)) for handle in parity.handles]


def by_features(_: None, case: Case, seed: int) -> list[dict[str, Any]]:
    """Order by outputs of the model's first layers instead of pixels: what it brings and costs.

    Costs are the first layers' time, as a fraction of a whole forward pass of the same rows.
    """
    loaded, found = load(case), []
    for label, place in [("pixels", None), *places(loaded.runner)]:
        features, cost = None, 0.0
        if place is not None:
            features, cost = first_layers(loaded.runner, place, loaded.rows)
        for s in case.stragglers:
            recording = record(
                case.name, loaded.rows, loaded.forward, CodeSpec("systematic", FEATURES_K, s),
                block=None, order="similar", seed=seed, plain=loaded.plain, features=features,
            )  # fmt: skip
            head = {"features": label, "cost": cost, "stragglers": s}
            found.append(
                head | measured_losses(recording, loaded.metric, lost=s, seed=seed, chances=())
            )
    return found


def uncoded_figures(loaded: Loaded, case: Case) -> dict[str, Any]:
    """The uncoded model itself."""
    if not case.classes:
        return {"rms": float(np.sqrt(np.square(loaded.plain, dtype=np.float64).mean()))}
    labels = loaded.metric.labels  # type: ignore[attr-defined]
    return {"accuracy": float((loaded.plain.argmax(axis=1) == labels).mean())}

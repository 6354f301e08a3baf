"""ApproxIFER's own experiment with Byzantine workers: K=12, S=0, E=1, 2, 3, and Gaussian noise.

Test rows in random order are codewords; E shares of each get noise of standard deviation 1, 10 or
100 added to their outputs (Soleymani et al., AAAI 2022, arXiv 2109.09868). All in this process, as
the published code needs up to 30 shares. Shown is the accuracy of

- the published code, N=2(K+E): all shares honest; all honest, and E of them evicted all the same,
  as its locator always does; E wrong, and known to be; found by the published locator; found by
  `Code.locate` in blocks of 1, 8 and 64 codewords, the same E workers being wrong in a block;
- the systematic code, N=K+2E, with the latter in blocks of 8 and 64; and with what was decoded run
  again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from approxifer.benchmarks.crew import Crew
from approxifer.benchmarks.losses import draw_losses
from approxifer.benchmarks.recorded import Forward, Recording, record
from approxifer.benchmarks.rivals import decode_without
from approxifer.coding import CodeSpec, block_rows
from approxifer.coding.interpolating import InterpolatingCode
from approxifer.coding.protocol import Code
from approxifer.coding.published import published_locator

K = 12
#: Accuracy for E = 1, 2, 3 on MNIST, of a ResNet-18 whose own is .99: the authors' plotting script.
AUTHORS = {1: 0.97, 2: 0.95, 3: 0.93}
BLOCKS = {"berrut": (1, 8, 64), "systematic": (8, 64)}


@dataclass(frozen=True, eq=False)
class Coded:
    """The test rows through both codes, as one group each.

    Attributes
    ----------
    recordings : dict
        By scheme, and E.
    labels : int (n,)
    """

    recordings: dict[tuple[str, int], Recording]
    labels: np.ndarray


def code_rows(
    rows: np.ndarray, labels: np.ndarray, forward: Forward, errors: Sequence[int], *, seed: int
) -> Coded:
    """Run all shares."""
    recordings: dict[tuple[str, int], Recording] = {}
    plain = None
    for scheme in BLOCKS:
        for byzantine in errors:
            spec = CodeSpec(scheme, K, 0, byzantine)
            recordings[scheme, byzantine] = made = record(
                "MNIST", rows, forward, spec,
                block=len(rows), order="random", seed=seed, plain=plain,
            )  # fmt: skip
            plain = made.plain
    return Coded(recordings, labels)


def honest(coded: Coded, scheme: str, byzantine: int, seed: int) -> dict[str, float]:
    """Accuracy where no share is wrong."""
    recording = coded.recordings[scheme, byzantine]
    (outputs,) = recording.outputs
    nobody = np.empty((outputs.shape[1], 0), np.int64)
    found = {"no fault": _accuracy(coded, recording, nobody)}
    if scheme == "berrut":
        found["evicted all the same"] = _accuracy(
            coded, recording, _published(recording.code, outputs)
        )
    return found


def wrong(coded: Coded, scheme: str, byzantine: int, sigma: float, seed: int) -> dict[str, float]:
    """Accuracy where E shares of each codeword are."""
    recording = coded.recordings[scheme, byzantine]
    code, (outputs,) = recording.code, recording.outputs
    found: dict[str, float] = {}
    for block in BLOCKS[scheme]:
        rng = np.random.default_rng([seed, byzantine, block])
        codewords = outputs.shape[1]
        drawn = draw_losses(code.n, byzantine, -(-codewords // block), rng)
        liars = np.repeat(drawn, block, axis=0)[:codewords]
        said = outputs.copy()
        for codeword, shares in enumerate(liars):
            noise = rng.standard_normal((byzantine, *said.shape[2:]))
            said[shares, codeword] += (sigma * noise).astype(said.dtype)
        accuracy = partial(_accuracy, coded, recording, said=said)
        if block == 1:
            found["known"] = accuracy(liars)
            found["published locator"] = accuracy(_published(code, said))
        suspects = _ours(code, said, block)
        found[f"ours, {block}"] = accuracy(suspects)
        if scheme == "systematic":
            found[f"repaired, {block}"] = accuracy(suspects, repair=True)
    return found


def _published(code: Code, outputs: np.ndarray) -> np.ndarray:
    assert isinstance(code, InterpolatingCode)
    return published_locator(outputs, code.nodes, code.k, code.spec.byzantine)


def _ours(code: Code, outputs: np.ndarray, block: int) -> list[list[int]]:
    """Each codeword's suspects, looked for block by block."""
    suspects: list[list[int]] = []
    for start in range(0, outputs.shape[1], block):
        part = outputs[:, start : start + block]
        found = sorted(code.locate(dict(enumerate(part))).suspects)
        suspects += [found] * part.shape[1]
    return suspects


def _accuracy(
    coded: Coded,
    recording: Recording,
    left_out: np.ndarray | list[list[int]],
    said: np.ndarray | None = None,
    *,
    repair: bool = False,
) -> float:
    """Of what is decoded where each codeword leaves some shares out, one more of them than another.

    With `repair` the rows that these carry are run again.
    """
    (outputs,), (members,) = recording.outputs, recording.members
    outputs = outputs if said is None else said
    blocks = np.empty((recording.code.k, *outputs.shape[1:]), outputs.dtype)
    counts = np.array([len(some) for some in left_out])
    for count in np.unique(counts):
        where = np.flatnonzero(counts == count)
        some = np.array([left_out[i] for i in where], np.int64).reshape(len(where), count)
        blocks[:, where] = decode_without(recording.code, outputs[:, where], some)
    classes = np.empty(len(recording.plain), np.int64)
    for number, rows in enumerate(block_rows(members, recording.code.k)):
        classes[rows] = blocks[number, : len(rows)].argmax(axis=-1)
        if repair:
            carrier = recording.code.carries.index(number)
            again = rows[[carrier in some for some in left_out[: len(rows)]]]
            classes[again] = recording.plain[again].argmax(axis=-1)
    return float((classes == coded.labels).mean())


def measure(
    coded: Coded,
    call: Crew,
    *,
    errors: Sequence[int],
    sigmas: Sequence[float],
    seed: int,
) -> dict[str, Any]:
    """All E and sigma."""
    schemes = [(scheme, byzantine) for byzantine in errors for scheme in BLOCKS]
    clean = call(honest, [(*which, seed) for which in schemes])
    faulty = call(wrong, [(*which, sigma, seed) for which in schemes for sigma in sigmas])
    settings = [
        {
            "scheme": scheme,
            "byzantine": byzantine,
            "n": coded.recordings[scheme, byzantine].code.n,
            "authors": AUTHORS.get(byzantine) if scheme == "berrut" else None,
            "honest": next(clean),
            "wrong": [{"sigma": sigma, **next(faulty)} for sigma in sigmas],
        }
        for scheme, byzantine in schemes
    ]
    plain = coded.recordings[schemes[0]].plain
    return {
        "rows": len(coded.labels),
        "k": K,
        "uncoded_accuracy": float((plain.argmax(axis=1) == coded.labels).mean()),
        "settings": settings,
    }

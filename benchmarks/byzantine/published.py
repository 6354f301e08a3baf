"""ApproxIFER's own experiment with Byzantine workers: K=12, S=0, E=1, 2, 3, and Gaussian noise.

Test rows in random order are codewords; E shares of each get noise of standard deviation 1, 10 or
100 added to their outputs (Soleymani et al., AAAI 2022, arXiv 2109.09868). All in this process, as
the published code, N=2(K+E), needs up to 30 shares. Shown is the accuracy with all shares honest;
all honest, and E of them evicted all the same, as the published locator always does, or those that
``score()`` would leave out (`Code.suspects`), which may be none; E wrong, and known to be; found by
the published locator; as suspects in blocks of 1, 8 and 64 codewords, in which the same E workers
are wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from approxifer.benchmarks.byzantine.published_locator import published_locator
from approxifer.benchmarks.byzantine.rivals import decode_without
from approxifer.benchmarks.erasures import draw_losses
from approxifer.benchmarks.pool import Pool
from approxifer.benchmarks.recording import Forward, Recording, record
from approxifer.coding import CodeSpec, block_rows
from approxifer.coding.berrut import InterpolatingCode
from approxifer.coding.code import Code

K = 12
#: Accuracy for E = 1, 2, 3 on MNIST, of a ResNet-18 whose own is 0.99: the authors'
#: plotting script.
AUTHORS = {1: 0.97, 2: 0.95, 3: 0.93}
BLOCKS = (1, 8, 64)


@dataclass(frozen=True, eq=False)
class Coded:
    """The test rows through the code, as one group.

    Attributes
    ----------
    recordings : dict
        By E.
    labels : int (n,)
    """

    recordings: dict[int, Recording]
    labels: np.ndarray


def code_rows(
    rows: np.ndarray, labels: np.ndarray, forward: Forward, errors: Sequence[int], *, seed: int
) -> Coded:
    """Run all shares."""
    recordings: dict[int, Recording] = {}
    plain = None
    for byzantine in errors:
        recordings[byzantine] = made = record(
            "MNIST", rows, forward, CodeSpec("berrut", K, 0, byzantine),
            block=len(rows), order="random", seed=seed, plain=plain,
        )  # fmt: skip
        plain = made.plain
    return Coded(recordings, labels)


def honest(coded: Coded, byzantine: int) -> dict[str, float]:
    """Accuracy where no share is wrong."""
    recording = coded.recordings[byzantine]
    code, (outputs,) = recording.code, recording.outputs
    none = np.empty((outputs.shape[1], 0), np.int64)
    return {
        "no fault": _accuracy(coded, recording, none),
        "evicted all the same": _accuracy(coded, recording, _published(code, outputs)),
        "no fault, suspects out": _accuracy(coded, recording, _suspects(code, outputs, BLOCKS[-1])),
    }


def wrong(coded: Coded, byzantine: int, sigma: float, seed: int) -> dict[str, float]:
    """Accuracy where E shares of each codeword are."""
    recording = coded.recordings[byzantine]
    code, (outputs,) = recording.code, recording.outputs
    found: dict[str, float] = {}
    for block in BLOCKS:
        rng = np.random.default_rng([seed, byzantine, block])
        codewords = outputs.shape[1]
        drawn = draw_losses(code.n, byzantine, -(-codewords // block), rng)
        wrong_shares = np.repeat(drawn, block, axis=0)[:codewords]
        returned = outputs.copy()
        for codeword, shares in enumerate(wrong_shares):
            noise = rng.standard_normal((byzantine, *returned.shape[2:]))
            returned[shares, codeword] += (sigma * noise).astype(returned.dtype)
        accuracy = partial(_accuracy, coded, recording, returned=returned)
        if block == 1:
            found["known"] = accuracy(wrong_shares)
            found["published locator"] = accuracy(_published(code, returned))
        found[f"suspects, {block}"] = accuracy(_suspects(code, returned, block))
    return found


def _published(code: Code, outputs: np.ndarray) -> np.ndarray:
    assert isinstance(code, InterpolatingCode)
    return published_locator(outputs, code.nodes, code.k, code.spec.byzantine)


def _suspects(code: Code, outputs: np.ndarray, block: int) -> list[list[int]]:
    """Each codeword's suspects, looked for block by block."""
    found: list[list[int]] = []
    for start in range(0, outputs.shape[1], block):
        part = outputs[:, start : start + block]
        found += [sorted(code.suspects(dict(enumerate(part))))] * part.shape[1]
    return found


def _accuracy(
    coded: Coded,
    recording: Recording,
    left_out: np.ndarray | list[list[int]],
    returned: np.ndarray | None = None,
) -> float:
    """Of what is decoded where each codeword leaves some shares out, one more than another."""
    (outputs,), (members,) = recording.outputs, recording.members
    outputs = outputs if returned is None else returned
    blocks = np.empty((recording.code.k, *outputs.shape[1:]), outputs.dtype)
    counts = np.array([len(some) for some in left_out])
    for count in np.unique(counts):
        where = np.flatnonzero(counts == count)
        some = np.array([left_out[i] for i in where], np.int64).reshape(len(where), count)
        blocks[:, where] = decode_without(recording.code, outputs[:, where], some)
    classes = np.empty(len(recording.plain), np.int64)
    for number, rows in enumerate(block_rows(members, recording.code.k)):
        classes[rows] = blocks[number, : len(rows)].argmax(axis=-1)
    return float((classes == coded.labels).mean())


def measure(
    coded: Coded,
    call: Pool,
    *,
    errors: Sequence[int],
    sigmas: Sequence[float],
    seed: int,
) -> dict[str, Any]:
    """All E and sigma."""
    clean = call(honest, [(byzantine,) for byzantine in errors])
    faulty = call(wrong, [(byzantine, sigma, seed) for byzantine in errors for sigma in sigmas])
    settings = [
        {
            "byzantine": byzantine,
            "n": coded.recordings[byzantine].code.n,
            "authors": AUTHORS.get(byzantine),
            "honest": next(clean),
            "wrong": [{"sigma": sigma, **next(faulty)} for sigma in sigmas],
        }
        for byzantine in errors
    ]
    plain = coded.recordings[errors[0]].plain
    return {
        "rows": len(coded.labels),
        "k": K,
        "uncoded_accuracy": float((plain.argmax(axis=1) == coded.labels).mean()),
        "settings": settings,
    }

"""Placement of shares on workers: pure, seeded, least loaded first.

Shares that must not share a worker (``Code.conflicts``) never do. Nor do they share a node, so that
one bad node cannot hold two, while there is another one and it is not much busier than the rest;
otherwise they are spread over the nodes as far as that delays nothing. Among equally loaded workers
the choice is random, so that no worker always holds the same share of a group. Shares that carry a
block unchanged are placed first: what is left for parity is the slowest or the fullest worker,
whose loss then costs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from approxifer.coding import Code

#: In share times: how much longer a share may wait for a node of its own.
DETOUR = 2.0


@dataclass(frozen=True)
class Candidate:
    """A worker that may be given shares. ``wait`` and ``time``: seconds until it is free, and that
    one share takes there. ``node``: what it shares its fate with others by; "": with nobody."""

    address: str
    name: str
    wait: float
    time: float
    node: str = ""


def place(
    shares: Sequence[int],
    code: Code,
    candidates: Sequence[Candidate],
    *,
    rng: np.random.Generator,
    held: Mapping[int, Collection[str]] | None = None,
    live: Mapping[int, Collection[str]] | None = None,
    raised: Mapping[int, Collection[str]] | None = None,
    avoid: Collection[str] = (),
    reuse: bool = True,
) -> dict[int, str]:
    """Choose a worker for each share.

    Parameters
    ----------
    shares
        Shares to place.
    code
        Its ``conflicts`` must not share a worker.
    candidates
        The workers that may be given work.
    rng
        Breaks ties.
    held
        Addresses at which each share of the group is or ever was.
    live
        Addresses at which each share of the group is still awaited.
    raised
        Names of workers on which the model raised, for each share: it goes to one of another name
        as long as there is one.
    avoid
        Names that are used only where no other worker is left.
    reuse
        Whether, where no other worker is left, a share may go to one that holds no conflicting
        share any more: its own is in, or lost.

    Returns
    -------
    dict
        Share to address. A share for which there is no worker is left out.
    """
    ever = {share: set(addresses) for share, addresses in (held or {}).items()}
    now = {share: set(addresses) for share, addresses in (live or {}).items()}
    load = {c.address: c.wait + c.time for c in candidates}
    unit = float(np.median([c.time for c in candidates])) if candidates else 1.0
    node = {c.address: c.node or c.address for c in candidates}
    order = [shares[i] for i in rng.permutation(len(shares))]
    order.sort(key=lambda s: code.carries[s] is None)
    placed: dict[int, str] = {}
    for share in order:
        rivals = {share}.union(*(c for c in code.conflicts if share in c))
        taken = set().union(*(ever.get(rival, ()) for rival in rivals))
        pools = [[c for c in candidates if c.address not in taken]]
        if reuse:
            busy = set().union(*(now.get(rival, ()) for rival in rivals))
            free = [c for c in candidates if c.address not in busy]
            pools.append([c for c in free if c.address not in ever.get(share, ())] or free)
        names = (raised or {}).get(share, ())
        pools = [[c for c in pool if c.name not in names] for pool in pools] + pools
        pool = next(filter(None, pools), [])
        pool = [c for c in pool if c.name not in avoid] or pool
        if not pool:
            continue
        crowd = Counter(node[a] for rival in rivals for a in ever.get(rival, ()) if a in node)
        apart = [c for c in pool if not crowd[node[c.address]]]
        if apart and _soonest(apart, load) <= _soonest(pool, load) + DETOUR * unit:
            pool = apart
        tie = zip(pool, rng.random(len(pool)), strict=True)
        ranks = {c: (round(load[c.address] / unit), crowd[node[c.address]], t) for c, t in tie}
        best = min(pool, key=ranks.__getitem__)
        address = best.address
        placed[share] = address
        ever.setdefault(share, set()).add(address)
        now.setdefault(share, set()).add(address)
        load[address] += best.time
    return placed


def _soonest(pool: Sequence[Candidate], load: Mapping[str, float]) -> float:
    return min(load[c.address] for c in pool)

"""The codes: K blocks of queries in, N shares out, and back; and which rows make a codeword.

Everything here is pure and needs only numpy::

    code = CodeSpec(scheme="systematic", k=8, stragglers=1).build()
    perm = order_rows(images, code.k, how="similar", block=64)
    for group in groups(len(images), code.k, block=64):
        members = perm[group.start : group.stop]
        shares = code.encode(gather(images, members, code.k))       # (n, B, *feature)
        outputs = {i: model(shares[i]) for i in some_of_the_shares}  # any N - S of them
        decoded = code.decode(outputs)
        for block, exact, of in zip(decoded.blocks, decoded.exact, block_rows(members, code.k)):
            scores[of] = block[: len(of)]

`CodeSpec` says which code, `Code` what every code can do, `Decoded` what comes back. Where workers
may lie, `Code.suspects` names the shares to leave out of ``outputs``.
"""

from approxifer.coding.code import Code, Decoded
from approxifer.coding.order import Group, block_rows, gather, groups, order_rows
from approxifer.coding.spec import CodeSpec

__all__ = [
    "Code",
    "CodeSpec",
    "Decoded",
    "Group",
    "block_rows",
    "gather",
    "groups",
    "order_rows",
]

"""The codes: K blocks of queries in, N shares out, and back; and the rows that form a codeword.

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

`CodeSpec` describes a code, `Code` is the base class of all, `Decoded` what decoding returns. Where
outputs may be wrong, `Code.suspects` names the shares to leave out of ``outputs``. A `Scheme`, once
it is registered, is a code that a `CodeSpec` can name.
"""

from approxifer.coding.code import Code, Decoded
from approxifer.coding.order import Group, block_rows, gather, groups, order_rows
from approxifer.coding.registry import build_code
from approxifer.coding.spec import SCHEMES, CodeSpec, Scheme, register

__all__ = [
    "SCHEMES",
    "Code",
    "CodeSpec",
    "Decoded",
    "Group",
    "Scheme",
    "block_rows",
    "build_code",
    "gather",
    "groups",
    "order_rows",
    "register",
]

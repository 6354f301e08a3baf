"""Batch sizes that a model takes, and the choice of one among them."""

from dataclasses import dataclass

#: Largest batch that is considered.
LARGEST = 2**20
#: Rows of a batch are best a multiple of 8, else of 4: other numbers make kernels treat the last
#: rows of a batch in another way (`approxifer.models.rows`).
EVEN = (8, 4)


@dataclass(frozen=True)
class BatchSizes:
    """The sizes ``least, least + step, ...`` up to ``most``: by default all.

    An exported program fixes one size, bounds it, or ties it to another number (``8 * b``).
    """

    least: int = 1
    most: int = LARGEST
    step: int = 1

    def __contains__(self, rows: object) -> bool:
        return isinstance(rows, int) and rows in range(self.least, self.most + 1, self.step)

    def __str__(self) -> str:
        if self.fixed is not None:
            return f"exactly {self.fixed}"
        steps = f" in steps of {self.step}" if self.step > 1 else ""
        return f"{self.least} to {self.most}{steps}"

    @property
    def fixed(self) -> int | None:
        """The size, where there is but one."""
        return self.least if self.least + self.step > self.most else None

    def fit(self, wanted: int) -> int:
        """Choose a size: the largest up to `wanted`, or where all are larger, the least; of its
        neighbours one that is `EVEN`."""
        if wanted < self.least:
            near = range(self.least, self.most + 1, self.step)[: EVEN[0]]
        else:
            near = range(self.least, min(wanted, self.most) + 1, self.step)[::-1][: EVEN[0]]
        return next((size for even in EVEN for size in near if size % even == 0), near[0])


#: All sizes.
ANY = BatchSizes()

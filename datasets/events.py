"""The events of a journal, checked before a run or a report is made of them.

Only what is read back is described here: fields that are not named, and events that are not, pass.
A member of a store is known by its index; so the events that name members must count from 0 on, and
the others can only speak of members that were named before.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from approxifer.errors import StoreError
from approxifer.text import one_line

#: The index of a member; -1 is the client, or nobody.
Index = Annotated[int, Field(ge=-1, lt=2**31)]
Number = Annotated[int, Field(ge=-1, lt=2**53)]
Seconds = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]
#: Seconds since 1970, up to the year 5138: what every system can turn into a date.
Date = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]


class _Model(BaseModel):
    model_config = ConfigDict(strict=True)

    session: str = ""

    def members(self) -> set[int]:
        """The indices of the members that are spoken of."""
        return set()


class _Session(_Model):
    session: str
    time: Date | None = None
    rows: Number | None = None
    store: str | None = None


class _Adopted(_Model):
    store: str


class _Orphaned(_Model):
    store: str
    rows: Number


class _Member(_Model):
    worker: str = ""
    name: str = ""
    host: str = ""
    device: str = ""
    node: str = ""
    incarnation: Number = -1
    hardware: str = ""
    life: Number = 0


class _Name(_Member):
    index: Index | None = None


class _Evidence(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    group: Number
    share: Number
    rows: Number
    of: Number
    deviation: float | None
    allowed: float
    referee: str
    suspicion: str


class _Conviction(_Model):
    kind: Literal["worker", "node"]
    member: _Member
    evidence: _Evidence
    alone: bool = False
    aside: bool = False


class _Forgiven(_Model):
    host: str


class _Attempt(BaseModel):
    model_config = ConfigDict(strict=True)

    worker: str
    fate: str
    start: Seconds | None = None
    stop: Seconds | None = None


class _Group(_Model):
    group: Number
    kind: str | None = None
    shares: dict[str, str] | None = None
    attempts: list[_Attempt] = []
    by: dict[str, Index] | None = Field(default=None, alias="members")

    @model_validator(mode="after")
    def _known(self) -> _Group:
        if self.by is None and self.shares is None:
            raise ValueError("it has neither members nor shares")
        return self

    def members(self) -> set[int]:
        return set((self.by or {}).values())


class _Worker(_Model):
    worker: str
    what: str
    time: Seconds | None = None


class _Window(_Model):
    time: Seconds | None = None


class _Close(_Model):
    counts: dict[str, Number] | None = None
    evaluations: Number = 0
    wall_seconds: Seconds = 0.0


class _Check(_Model):
    member: Index
    group: Number
    share: Number
    of: Number
    rate: Annotated[float, Field(ge=0, le=1)]
    why: str
    rows: list[Annotated[list[Number], Field(min_length=1)]]
    checkers: list[Index]

    @model_validator(mode="after")
    def _paired(self) -> _Check:
        if len(self.rows) != len(self.checkers):
            raise ValueError("rows and checkers differ in number")
        return self

    def members(self) -> set[int]:
        return {self.member, *self.checkers}


class _Kept(BaseModel):
    model_config = ConfigDict(strict=True)

    dtype: str
    shape: list[Annotated[int, Field(ge=0)]]
    base64: str

    @model_validator(mode="after")
    def _whole(self) -> _Kept:
        try:
            dtype = np.dtype(self.dtype)
            held = len(base64.b64decode(self.base64, validate=True))
        except (TypeError, ValueError, SyntaxError, binascii.Error):
            raise ValueError("an output that cannot be read") from None
        if dtype.kind not in "biufc" or math.prod(self.shape) * dtype.itemsize != held:
            raise ValueError("an output of another dtype or shape than it declares")
        return self


class _Mismatch(_Model):
    session: str
    number: Number
    member: Index
    checker: Index
    group: Number
    share: Number
    model: Annotated[int, Field(ge=0, lt=2**31)]
    rows: Annotated[list[Number], Field(min_length=1)]
    outputs: Annotated[list[_Kept | None], Field(min_length=2, max_length=2)]

    def members(self) -> set[int]:
        return {self.member, self.checker}


class _Rescored(_Model):
    rows: list[Number]


class _Verdict(_Model):
    of: Annotated[list[str | int], Field(min_length=2, max_length=2)]


_KNOWN: dict[str, type[_Model]] = {
    "session": _Session,
    "adopted": _Adopted,
    "orphaned": _Orphaned,
    "name": _Name,
    "conviction": _Conviction,
    "forgiven": _Forgiven,
    "group": _Group,
    "worker": _Worker,
    "window": _Window,
    "close": _Close,
    "check": _Check,
    "mismatch": _Mismatch,
    "verdict": _Verdict,
    "rescored": _Rescored,
}


def check_events(events: Iterable[Mapping[str, Any]], journal: Path) -> None:
    """Check the events of one journal, in order.

    Parameters
    ----------
    events
        One for each line.
    journal
        The file, for messages.

    Raises
    ------
    StoreError
        A field that is missing or of another type; a member named twice, left out, or unknown.
    """
    named = 0
    for number, event in enumerate(events, start=1):
        found, fault = _read(event)
        if isinstance(found, _Name):
            if found.index not in (None, named):
                fault = f"it names member {found.index}, and {named} is the next"
            named += 1
        strange = [index for index in found.members() if index >= named]
        if strange:
            fault = f"{event['event']}: member {strange[0]} was not named ({named} were)"
        if fault:
            raise StoreError(
                f"Line {number} of the journal {journal} is not as approxifer writes it: "
                f"{one_line(fault)}. Restore the file from a copy; or move it away, and the store "
                "is gone on with as one of which nobody knows who wrote it."
            )


def _read(event: Mapping[str, Any]) -> tuple[_Model, str]:
    """An event as far as it is known, and what is wrong with it."""
    kind = event.get("event", "")
    if not isinstance(kind, str):
        return _Model(), f"its event is {kind!r}, no text"
    try:
        return _KNOWN.get(kind, _Model).model_validate(event), ""
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        return _Model(), f"{kind}: {where}: {first['msg']}" if where else f"{kind}: {first['msg']}"

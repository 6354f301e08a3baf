"""The user's code of a store and of a run that goes on with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from approxifer.errors import FingerprintError
from approxifer.models.user_code.identity import changes

#: The attribute of a store that holds it: by what it is for (``"model"``, ``"preprocess"``), the
#: sha256 of each part.
USER_CODE = "user_code"
#: Parts that a message names of each.
SHOWN = 5


def check_code(
    path: Path,
    *,
    given: Mapping[str, Mapping[str, str]],
    stored: Mapping[str, Any],
    accept: bool = False,
) -> list[str]:
    """Compare the code of a run with that by which the store's rows were made.

    Parameters
    ----------
    path
        Of the store, for messages.
    given
        Of the run: the parts of each use.
    stored
        The store's attributes.
    accept
        Go on where they differ.

    Returns
    -------
    list of str
        Notes: what was accepted, or cannot be known.

    Raises
    ------
    FingerprintError
        Names each use and part that differs.
    """
    begun = stored.get(USER_CODE)
    if not isinstance(begun, Mapping):
        used = [use for use, parts in given.items() if parts]
        note = (
            f"the store was begun before the code of {' and '.join(used)} was kept: whether it has "
            "changed since is not known"
        )
        return [note] if used else []
    found = []
    for use in sorted(given.keys() | begun.keys()):
        kept = begun.get(use)
        if parts := changes(given.get(use, {}), kept if isinstance(kept, Mapping) else {}):
            more = f" and {len(parts) - SHOWN} more" if len(parts) > SHOWN else ""
            found.append(f"{use} changed: {', '.join(parts[:SHOWN])}{more}")
    if not found or accept:
        return [f"{one} (accepted: rows written before are of the former code)" for one in found]
    raise FingerprintError(
        f"The output store {path} was begun with other code, so it cannot be resumed: "
        f"{'; '.join(found)}. Restore the code, or write to another path (--out); if the change "
        "makes no difference to the output, give accept_code_change=True (--accept-code-change)."
    )

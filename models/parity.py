"""Parity models on disk: which model, K and encoder they belong to, and loading them.

A folder holds ``parity.json`` and, for each parity query, a program ``parity-0.pt2``, ...; made by
`approxifer.models.parity_training.train_parity`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from approxifer.errors import ConfigError, ModelError, ModelNotFoundError
from approxifer.models.handle import ModelHandle, open_model

META = "parity.json"
FORMAT = 1


@dataclass(frozen=True)
class Parity:
    """The parity models of one code.

    Attributes
    ----------
    k : int
        Queries per codeword that they were trained for.
    encoder : str
        How their queries are made, as `approxifer.coding.CodeSpec` has it.
    handles : tuple of ModelHandle
        One for each of the S parity queries.
    """

    k: int
    encoder: str
    handles: tuple[ModelHandle, ...]


def program(folder: Path, number: int) -> Path:
    """The file of one parity model."""
    return folder / f"parity-{number}.pt2"


def read_meta(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The content of ``parity.json``; None where there is none.

    Raises
    ------
    ModelError
        It is damaged, or another version's.
    """
    path = Path(folder) / META
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{str(path)!r} cannot be read ({error}). Delete the folder and train it again"
        ) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ModelError(
            f"{str(path)!r} is not what this version of approxifer writes (format {FORMAT}). Train "
            "the parity models again"
        )
    return found


def _trained(folder: str | os.PathLike[str]) -> dict[str, Any]:
    meta = read_meta(folder)
    if meta is None:
        raise ModelNotFoundError(
            f"parity={os.fspath(folder)!r}: there are no parity models (no {META}). Train them: "
            "approxifer train-parity MODEL DATA -k K -s S --out DIR"
        )
    return meta


def load_parity(
    folder: str | os.PathLike[str], model: ModelHandle, *, k: int | None, stragglers: int
) -> Parity:
    """Open the parity models of a model.

    Parameters
    ----------
    folder : path
    model : ModelHandle
        The user's.
    k, stragglers : int
        As they will be used. A K of None is the one that they were trained for; a folder with more
        parity models than stragglers serves too.

    Raises
    ------
    ModelNotFoundError
        No such folder, or a program is missing.
    ConfigError
        They are of another model, K or number of stragglers.
    ModelError
        What is there is not what was trained.
    """
    meta = _trained(folder)
    k = meta["k"] if k is None else k
    wanted = {"model": model.stored_fingerprint, "k": k}
    names = {"model": "another model (its fingerprint differs)", "k": f"k={meta['k']}"}
    for name, value in wanted.items():
        if meta[name] != value:
            raise ConfigError(
                f"parity={os.fspath(folder)!r} belongs to {names[name]}; this run has "
                f"model {model.name!r} and k={k}. Train parity models for these: "
                f"approxifer train-parity MODEL DATA -k {k} -s {stragglers} --out DIR"
            )
    if len(meta["parities"]) < stragglers:
        raise ConfigError(
            f"parity={os.fspath(folder)!r} has {len(meta['parities'])} parity models, enough for "
            f"as many stragglers; this run has stragglers={stragglers}. Lower stragglers=, or "
            "train more with -s"
        )
    handles = tuple(_open(Path(folder), number, meta, model) for number in range(stragglers))
    return Parity(meta["k"], meta["encoder"], handles)


def _open(folder: Path, number: int, meta: Mapping[str, Any], model: ModelHandle) -> ModelHandle:
    path = program(folder, number)
    handle = open_model(path, dtype=model.dtype, device=model.device)
    if handle.fingerprint != meta["parities"][number]["fingerprint"]:
        raise ModelError(
            f"{str(path)!r} is not the program that was trained: its fingerprint differs from that "
            f"in {META}. Train it again"
        )
    return handle

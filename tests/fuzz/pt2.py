"""Mutated ``.pt2`` files, from a few small networks that are exported here."""

import io
import random
import warnings
from collections.abc import Iterator

import mutate
import networks
import torch

CORPUS = ("mlp", "cnn", "lstm", "encoder", "fourier", "branches", "bilinear", "scatter")


def corpus() -> list[bytes]:
    """Export each network of `CORPUS`."""
    programs = []
    for name in CORPUS:
        module, rows = networks.make(name)
        shapes = ({0: torch.export.Dim("batch", min=1, max=512)},)
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(module, (torch.from_numpy(rows),), dynamic_shapes=shapes)
            torch.export.save(program, buffer)
        programs.append(buffer.getvalue())
    return programs


def mutants(programs: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Yield `count` spoilt files, the same for the same seed."""
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        data = rng.choice(programs)
        if rng.random() < 0.2:
            yield mutate.spoil_bytes(rng, data)
        else:
            yield mutate.spoil_entries(rng, mutate.read_zip(data), mutate.spoil_json)

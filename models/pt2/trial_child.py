"""The child of `approxifer.models.pt2.trial`: loads programs from its input, under limits.

Its input is a sequence of lengths (8 bytes, little-endian) and bytes: first the limits as JSON,
then the programs. It prints a JSON string when one is loaded, and one when its batch is done:
"done", followed by what went wrong.
"""

import contextlib
import json
import os
import resource
import struct
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import torch
import torch._export.serde.serialize  # now, not within the limits
import torch.export.passes
import torch.export.pt2_archive

from approxifer.errors import ModelError
from approxifer.models.archive import Program
from approxifer.models.pt2.program import (
    ProgramForward,
    load_program,
    program_forward,
    read_inputs,
)


def _records() -> Iterator[bytes]:
    while header := sys.stdin.buffer.read(8):
        yield sys.stdin.buffer.read(struct.unpack("<Q", header)[0])


def _limit(kind: int, value: float) -> None:
    """Lower the soft limit; an administrator's own may be lower still."""
    _, hard = resource.getrlimit(kind)
    wanted = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
    with contextlib.suppress(ValueError, OSError):  # macOS has no limit on memory
        resource.setrlimit(kind, (wanted, hard))


def _seconds(more: float) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, used.ru_utime + used.ru_stime + more + 1)


def _batch(forward: ProgramForward) -> None:
    """Run a batch of zeros: of two rows, or as many as the program is made for."""
    inputs = forward.inputs
    sizes = [size if type(size) is int else 2 for size in inputs.shape]
    sizes[0] = inputs.batches.fit(2)
    if len(inputs.places) > 1:
        sizes.insert(1, len(inputs.places))
    with torch.no_grad():
        forward.run(torch.zeros(sizes, dtype=inputs.dtype))


def _try(data: bytes, say: Any) -> str:
    try:
        exported = load_program(Program(data, ""), "")
        try:
            inputs = read_inputs(exported, "")
        except ModelError:  # it loads, and who opens it is told what it takes
            return ""
        forward = program_forward(exported, inputs, dtype="float32", device="cpu")
    except MemoryError:
        return "takes too much memory to load"
    except Exception as error:
        return "could not be loaded: " + " ".join(str(error).split())[:300]
    say("loaded")
    try:
        _batch(forward)
    except Exception as error:  # zeros may be no input for it: the probe has real rows
        text = str(error)
        if isinstance(error, MemoryError) or "allocate memory" in text or "bad_alloc" in text:
            return "takes too much memory for a batch of two rows"
    return ""


def main() -> None:
    """Try all programs of the input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what others print is no answer

    def say(word: str) -> None:
        print(json.dumps(word), file=answers, flush=True)

    torch.set_num_threads(1)
    records = _records()
    load, batch, per_byte, memory = json.loads(next(records))
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    held = psutil.Process().memory_info().vms
    for data in records:
        _limit(resource.RLIMIT_AS, held + memory + 6 * len(data))
        _seconds(load + per_byte * len(data))

        def note(word: str) -> None:
            say(word)
            _seconds(batch)

        say("done" + _try(data, note))


if __name__ == "__main__":
    main()

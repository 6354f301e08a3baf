"""Bounds on what the nodes of a ``.pt2`` may make: elements of new tensors, digits of sizes.

A tensor's real size is known only when the program runs; these bounds are on what a file can say in
a few characters (``full([2**40])``, or a size that is squared forty times).
"""

import math
from collections.abc import Iterator
from typing import Any

from approxifer.models.pt2.refused import Refused

#: Elements that the literal sizes of one node may make: 1 GiB of float32.
ELEMENTS = 2**28
#: Bits of a number that is computed from sizes.
BITS = 4096
#: Arguments whose literal numbers multiply, by their names in ATen's schemas.
PRODUCTS = frozenset({"size", "shape", "repeats", "output_size", "dims", "s"})
#: The largest literal number in other arguments.
LARGEST: dict[str, float] = {
    **dict.fromkeys(("n", "m", "steps", "num_classes", "pad", "padding", "row", "col"), ELEMENTS),
    **dict.fromkeys(("length", "n_fft", "win_length", "window_length", "offset"), ELEMENTS),
    **dict.fromkeys(("kernel_size", "num_layers", "upscale_factor", "groups"), 2**16),
    "scale_factors": 2**10,
}
ARANGE = "torch.ops.aten.arange."


def check_nodes(graph: Any) -> None:
    """Go through all nodes of a graph, and of the graphs that they take.

    Parameters
    ----------
    graph : dict
        The JSON of one graph, whose strings have been checked.

    Raises
    ------
    Refused
        A node that could make too much, or that has another form than torch writes.
    """
    try:
        bits: dict[str, int] = {}
        for node in graph["nodes"]:
            for argument in node["inputs"]:
                _check_size(node["target"], argument["name"], argument["arg"])
                if "as_graph" in argument["arg"]:
                    check_nodes(argument["arg"]["as_graph"]["graph"])
            made = _bits(node, bits)
            if made > BITS:
                raise Refused(f"a size of more than {BITS} bits ({node['target']})")
            bits.update((name, made) for out in node["outputs"] for name in _names(out))
    except (KeyError, TypeError, AttributeError) as error:
        raise Refused(f"a node without its parts ({type(error).__name__}: {error})") from None


def _check_size(target: str, name: str, argument: dict[str, Any]) -> None:
    numbers = [abs(number) for number in _numbers(argument)]
    limit: float
    if name in PRODUCTS:
        limit, found = ELEMENTS, math.prod(max(1, number) for number in numbers)
    elif name in ("start", "end", "step") and target.startswith(ARANGE):
        limit, found = ELEMENTS, max(numbers, default=0)
    else:
        limit, found = LARGEST.get(name, math.inf), max(numbers, default=0)
    if found > limit:
        raise Refused(f"a size over {limit} ({name} of {target})")


def _numbers(argument: dict[str, Any]) -> Iterator[float]:
    """Yield the numbers that stand in an argument."""
    for key, value in argument.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                item = item.get("as_int", item.get("as_float"))
            if key != "as_bool" and isinstance(item, (int, float)):
                yield item


def _names(argument: dict[str, Any]) -> Iterator[str]:
    """Yield the names of the symbolic numbers in an argument."""
    for key, value in argument.items():
        if key.startswith("as_sym_"):
            for item in value if isinstance(value, list) else [value]:
                if "as_name" in item:
                    yield item["as_name"]


def _bits(node: dict[str, Any], known: dict[str, int]) -> int:
    """Bound the digits of what a node computes from sizes; a tensor's size has 64 bits."""
    target = node["target"]
    if target.startswith("torch.ops.aten."):
        return 64
    if target.startswith("torch.ops."):
        return BITS  # a branch may have multiplied
    given = [known.get(name, 64) for entry in node["inputs"] for name in _names(entry["arg"])]
    given += [64 for entry in node["inputs"] for _ in _numbers(entry["arg"])]
    if target == "_operator.mul":
        return sum(given)
    return max(given, default=0) + len(given)

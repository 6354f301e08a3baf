"""The allow-list for the graph in a ``.pt2`` archive: what may stand in its JSON.

``torch.export.load`` trusts this text more than it seems. It evaluates symbolic expressions as
Python, imports modules named in tree specs, generates and executes source code out of node and
parameter names, executes the guards, and resolves a node's target by walking attributes from
``torch`` (``torch.os.system`` is such a walk). So every string in the document must stand under a
known key and have that key's form, and what is not needed for running (metadata, guards) is left
out. Anything else is refused.
"""

import json
import keyword
import math
import re
from collections.abc import Callable
from typing import Any

from approxifer.models.pt2 import operators
from approxifer.models.pt2.expressions import expression
from approxifer.models.pt2.nodes import check_nodes
from approxifer.models.pt2.refused import Refused

IDENTIFIER = re.compile(r"(?!__)[A-Za-z_][A-Za-z0-9_]{0,500}")
# Names of parameters and submodules; "@1" marks the second call of one submodule.
DOTTED = re.compile(r"(?!__)[A-Za-z0-9_]+(\.(?!__)[A-Za-z0-9_]+){0,50}(@[0-9]{1,6})?")
TREES = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict"})
#: What operators take as strings (equations of einsum, names of modes, messages): never evaluated.
WORDS = re.compile(r"[ -~]{0,500}")
#: Deeper nesting than this is no graph that torch writes.
DEPTH = 200
STRIDED = 7
DEVICES = re.compile(r"(cpu|cuda|mps|xpu|meta)")


def clean_graph(document: Any) -> dict[str, Any]:
    """Return the part of ``models/model.json`` that running needs, all of it checked.

    Parameters
    ----------
    document : object
        The parsed JSON.

    Returns
    -------
    dict
        The same document without node metadata, guards and the exporter's torch version.

    Raises
    ------
    Refused
        It contains anything that is not on the allow-list.
    """
    if not isinstance(document, dict) or not isinstance(document.get("graph_module"), dict):
        raise Refused("models/model.json has no graph_module")
    graph = {k: v for k, v in document["graph_module"].items() if k in _GRAPH_MODULE}
    kept = {k: document[k] for k in _PROGRAM if k in document}
    checked: dict[str, Any] = clean("models/model.json", {"graph_module": graph, **kept})
    check_nodes(graph.get("graph"))
    return {**checked, "torch_version": "", "guards_code": []}


_GRAPH_MODULE = ("graph", "signature", "module_call_graph")
_PROGRAM = ("opset_version", "range_constraints", "schema_version", "verifiers")


def clean(key: str, value: Any, depth: int = DEPTH) -> Any:
    """Return `value`, found under `key`, checked and without metadata.

    Raises
    ------
    Refused
        A string, a name, a number or an object that is not on the allow-list.
    """
    if key == "metadata":
        return {}
    if key in ("custom_obj", "as_custom_obj", "token", "custom_obj_values") and value:
        raise Refused(f"a custom object ({key})")
    if depth == 0:
        raise Refused(f"nesting deeper than {DEPTH} ({key})")
    if key in ("device", "as_device") and isinstance(value, dict):
        clean("devices", value, depth - 1)
        return {"type": "cpu", "index": None}  # where it runs is settled after loading
    if isinstance(value, dict):
        # Bounds are found by a symbol, or by the text of an expression; neither is evaluated.
        fits = expression if key == "range_constraints" else DOTTED.fullmatch
        for name in value:
            if not fits(name):
                raise Refused(f"the name {name[:80]!r} under {key}")
        return {name: clean(name, item, depth - 1) for name, item in value.items()}
    if isinstance(value, list):
        return [clean(key, item, depth - 1) for item in value]
    if isinstance(value, str):
        _check_text(key, value)
    elif isinstance(value, (int, float)):
        _check_number(key, value)
    return value


def _check_text(key: str, text: str) -> None:
    if key in ("target", "as_operator"):
        if not operators.allowed(text):
            why = operators.LEFT_OUT.get(text.removeprefix("torch.ops.aten."))
            raise Refused(f"the operator {text[:80]!r}" + (f", which {why}" if why else ""))
        return
    rule = RULES.get(key)
    if rule is None or not rule(text):
        raise Refused(f"the text {text[:80]!r} as {key}")


def _check_number(key: str, number: int | float) -> None:
    if key in ("layout", "as_layout"):
        allowed = number == STRIDED  # sparse tensors trust their indices
    elif isinstance(number, float):
        allowed = math.isfinite(number)
    else:
        allowed = -(2**63) <= number < 2**63
    if not allowed:
        raise Refused(f"the number {number!r:.40} as {key}")


def tree_spec(text: str) -> bool:
    """True if this describes nested tuples, lists and dicts of tensors only."""
    if len(text) > 20_000:
        return False
    try:
        protocol, tree = json.loads(text)
        return protocol == 1 and _tree(tree)
    except (ValueError, TypeError, RecursionError):
        return False


def _tree(tree: Any) -> bool:
    if not isinstance(tree, dict) or set(tree) != {"type", "context", "children_spec"}:
        return False
    kind, context, children = tree["type"], tree["context"], tree["children_spec"]
    if kind not in TREES or not isinstance(children, list):
        return False
    if kind == "builtins.dict":
        keys = json.loads(context)
        if not isinstance(keys, list) or not all(
            isinstance(k, str) and IDENTIFIER.fullmatch(k) for k in keys
        ):
            return False
    elif context not in (None, "null"):
        return False
    return all(_tree(child) for child in children)


def _matches(pattern: re.Pattern[str], *also: str) -> Callable[[str], bool]:
    return lambda text: (
        text in also or (pattern.fullmatch(text) is not None and not keyword.iskeyword(text))
    )


#: Which form a string must have, by the key under which it stands. No other key may hold a string.
RULES: dict[str, Callable[[str], bool]] = {
    "expr_str": expression,
    "in_spec": tree_spec,
    "out_spec": tree_spec,
    "name": _matches(IDENTIFIER, ""),
    "as_name": _matches(IDENTIFIER),
    "forward_arg_names": _matches(IDENTIFIER),
    "parameter_name": _matches(DOTTED),
    "buffer_name": _matches(DOTTED),
    "tensor_constant_name": _matches(DOTTED),
    "user_input_name": _matches(IDENTIFIER),
    "fqn": _matches(DOTTED, ""),
    "type": _matches(DEVICES),
    "verifiers": _matches(re.compile("TRAINING|ATEN")),
    "as_float": _matches(re.compile(r"-?(Infinity|inf)|NaN|nan")),
    "as_string": _matches(WORDS),
    "as_strings": _matches(WORDS),
    "path_name": _matches(re.compile(r"(weight|tensor)_[0-9]+")),
}

"""The allow-list for the graph in a ``.pt2`` archive: what may stand in its JSON.

``torch.export.load`` trusts this text more than it seems. It evaluates symbolic expressions as
Python, imports modules named in tree specs, generates and executes source code out of node and
parameter names, executes the guards, and resolves a node's target by walking attributes from
``torch`` (``torch.os.system`` is such a walk). So every string in the document must stand under a
known key and have that key's form, and what is not needed for running (metadata, guards) is left
out. Anything else is refused.
"""

import ast
import json
import re
from collections.abc import Callable
from typing import Any

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Names of parameters and submodules; "@1" marks the second call of one submodule.
DOTTED = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*(@[0-9]+)?")
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]*)?(e[+-]?[0-9]+)?")
ATEN = re.compile(r"torch\.ops\.(aten|prims)\.([A-Za-z0-9_]+)\.([A-Za-z0-9_]+)")


def _words(text: str, prefix: str = "") -> frozenset[str]:
    return frozenset(prefix + word for word in text.split())


#: Operators of ATen that reach outside the process (files), and so are refused.
OUTSIDE = _words("from_file save load")
#: Operators with double underscores in ATen's own names.
DUNDER = _words(
    "__and__ __or__ __xor__ __lshift__ __rshift__ __iand__ __ior__ __ixor__ __ilshift__ __irshift__"
)
HIGHER_ORDER = _words(
    "cond while_loop scan map_impl associative_scan wrap_with_set_grad_enabled wrap_with_autocast",
    "torch.ops.higher_order.",
)
SYMBOLIC = (
    _words("int float ite max min not sqrt sum", "torch.sym_")
    | _words("ceil floor trunc", "math.")
    | _words("eq ne le ge lt gt neg pos mul add sub floordiv mod pow truediv", "_operator.")
    | _words("and_ or_ not_ abs lshift rshift getitem", "_operator.")
)
#: What an expression over symbolic sizes may call (sympy's own, then torch's).
FUNCTIONS = _words(
    "Symbol Integer Float Rational Add Mul Pow Min Max Mod Abs Equality Unequality Eq Ne"
    " StrictLessThan StrictGreaterThan LessThan GreaterThan Lt Gt Le Ge And Or Not Piecewise"
    " floor ceiling true false FloorDiv ModularIndexing Where PythonMod CleanDiv CeilToInt"
    " FloorToInt CeilDiv LShift RShift PowByNatural FloatPow FloatTrueDiv IntTrueDiv"
    " TruncToFloat TruncToInt RoundToInt RoundDecimal ToFloat Identity"
)
EXPRESSION_NODES = (
    ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.BinOp, ast.UnaryOp,
    ast.Compare, ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip
TREES = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict"})
DEVICES = re.compile(r"(cpu|cuda|mps|xpu|meta)")


class Refused(Exception):  # noqa: N818 (a verdict, turned into UntrustedModelError by archive.py)
    """Something in the archive that is not on the allow-list; the message says what."""


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
    return {**checked, "torch_version": "", "guards_code": []}


_GRAPH_MODULE = ("graph", "signature", "module_call_graph")
_PROGRAM = ("opset_version", "range_constraints", "schema_version", "verifiers")


def clean(key: str, value: Any) -> Any:
    """Return `value`, found under `key`, checked and without metadata.

    Raises
    ------
    Refused
        A string, a name or an object that is not on the allow-list.
    """
    if key == "metadata":
        return {}
    if key in ("custom_obj", "as_custom_obj", "token", "custom_obj_values") and value:
        raise Refused(f"a custom object ({key})")
    if key in ("device", "as_device") and isinstance(value, dict):
        clean("devices", value)
        return {"type": "cpu", "index": None}  # where it runs is settled after loading
    if isinstance(value, dict):
        for name in value:
            if not DOTTED.fullmatch(name):
                raise Refused(f"the name {name!r} under {key}")
        return {name: clean(name, item) for name, item in value.items()}
    if isinstance(value, list):
        return [clean(key, item) for item in value]
    if isinstance(value, str):
        rule = RULES.get(key)
        if rule is None or not rule(value):
            raise Refused(f"the text {value[:80]!r} as {key}")
    return value


def operator(text: str) -> bool:
    """Tell whether a node may call this: ATen, symbolic arithmetic, or plain control flow."""
    match = ATEN.fullmatch(text)
    if match is None:
        return text in SYMBOLIC or text in HIGHER_ORDER
    _, name, overload = match.groups()
    hidden = name.startswith("__") and name not in DUNDER
    return not hidden and not overload.startswith("__") and name not in OUTSIDE


def expression(text: str) -> bool:
    """Tell whether this is arithmetic over symbols, and nothing else, as sympy will evaluate it."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return len(text) <= 4096 and all(_arithmetic(node) for node in ast.walk(tree))


def _arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.Name):
        return node.id in FUNCTIONS or re.fullmatch(r"[a-z]{1,4}[0-9]+", node.id) is not None
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):  # Symbol('s77', integer=True), Float('0.5', precision=53)
            return bool(IDENTIFIER.fullmatch(node.value) or NUMBER.fullmatch(node.value))
        return node.value is None or isinstance(node.value, (bool, int, float))
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS
    return isinstance(node, EXPRESSION_NODES)


def tree_spec(text: str) -> bool:
    """Tell whether this describes nested tuples, lists and dicts of tensors only."""
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
    return lambda text: text in also or pattern.fullmatch(text) is not None


#: Which form a string must have, by the key under which it stands. No other key may hold a string.
RULES: dict[str, Callable[[str], bool]] = {
    "target": operator,
    "as_operator": operator,
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
    "as_string": lambda _: True,  # an argument of an operator: never evaluated
    "as_strings": lambda _: True,
    "path_name": _matches(re.compile(r"(weight|tensor)_[0-9]+")),
}

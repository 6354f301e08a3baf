"""Expressions over symbolic sizes in a ``.pt2``: parsed to see what they hold, never evaluated.

Torch hands them to sympy, which evaluates them as Python. So there are no powers (a tower of them
never ends), no floats of a chosen precision but the usual one, and few digits.
"""

import ast
import re

#: Sizes and other numbers that are known when the program runs, as torch names them.
SYMBOL = re.compile(r"(s|u|zf|zuf)[0-9]{1,4}")
CHARACTERS = re.compile(r"[A-Za-z0-9_ '=,()+\-*/%<>!.]{1,2000}")
NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{0,20})?(e[+-]?[0-9]{1,3})?")
DEPTH = 40
LARGEST = 2**63

#: sympy's own functions, then torch's.
NAMES = """
    Add Mul Min Max Mod Abs Equality Unequality Eq Ne StrictLessThan StrictGreaterThan LessThan
    GreaterThan Lt Gt Le Ge And Or Not floor ceiling FloorDiv ModularIndexing Where PythonMod
    CleanDiv CeilToInt FloorToInt CeilDiv FloatTrueDiv IntTrueDiv TruncToFloat TruncToInt RoundToInt
    ToFloat Identity
"""
FUNCTIONS = frozenset(NAMES.split())
ASSUMPTIONS = frozenset({"integer", "positive", "nonnegative", "nonzero", "real"})
OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod)


def expression(text: str) -> bool:
    """Tell whether this is bounded integer arithmetic over symbols, and nothing else."""
    if not CHARACTERS.fullmatch(text):
        return False
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return _arithmetic(tree.body, DEPTH)


def _arithmetic(node: ast.AST, depth: int) -> bool:
    if depth == 0:
        return False
    match node:
        case ast.Name(id=name):
            return name in ("true", "false") or SYMBOL.fullmatch(name) is not None
        case ast.Constant(value=value):
            return type(value) is int and abs(value) <= LARGEST
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            return _arithmetic(operand, depth - 1)
        case ast.BinOp(left=left, op=op, right=right) if isinstance(op, OPERATORS):
            return _arithmetic(left, depth - 1) and _arithmetic(right, depth - 1)
        case ast.Compare(left=left, comparators=[right]):
            return _arithmetic(left, depth - 1) and _arithmetic(right, depth - 1)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            return _call(name, args, keywords, depth - 1)
    return False


def _call(name: str, args: list[ast.expr], keywords: list[ast.keyword], depth: int) -> bool:
    """Tell whether a call is one of `FUNCTIONS`, or spells a symbol or a number."""
    options = {word.arg: getattr(word.value, "value", ...) for word in keywords}
    match name, args:
        case "Symbol", [ast.Constant(value=str(text))]:
            plain = all(k in ASSUMPTIONS and type(v) is bool for k, v in options.items())
            return plain and SYMBOL.fullmatch(text) is not None
        case "Float", [ast.Constant(value=str(text))]:
            return options in ({}, {"precision": 53}) and NUMBER.fullmatch(text) is not None
        case "Integer", [number]:
            return not options and _arithmetic(number, depth)
    return name in FUNCTIONS and not options and all(_arithmetic(arg, depth) for arg in args)

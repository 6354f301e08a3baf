"""Code that is another one has another identity, and nothing else has."""

import functools
import os
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from approxifer.models.user_code.identity import changes, code_parts, data_digest

Write = Callable[[str, str], str]

MODS = """
    \"\"\"A module.\"\"\"
    import numpy as np
    import tables
    from helpers import scale as by, LIMIT
    from torch import nn

    FACTOR = 2
    UNUSED = 3

    def pre(x):
        \"\"\"Prepare rows.\"\"\"
        # halve them
        return by(x) / FACTOR

    def clip(x, most=LIMIT):
        return np.minimum(x, most)

    def look_up(x):
        return tables.TABLE[x]

    class Base(nn.Module):
        def forward(self, x):
            return self.head(x) * FACTOR

    class Net(Base):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 2)

    def make():
        return Net()

    def lazily(x):
        from deep.inner import bend
        return bend(x)

    def other(x):
        return x - UNUSED
"""
OTHERS = {
    "helpers": "LIMIT = 7\ndef scale(x): return x * rate()\ndef rate(): return 3\ndef idle(): pass",
    "tables": "import numpy\nTABLE = [1, 2]",
    "deep/__init__": "STEP = 1",
    "deep/inner": "from . import STEP\nfrom .side import turn\ndef bend(x): return turn(x) + STEP",
    "deep/side": "def turn(x): return -x",
}
ROOTS = ("pre", "clip", "look_up", "make", "lazily", "other")


@pytest.fixture
def mods(importable: Write, tmp_path: Any) -> Callable[..., dict[str, dict[str, str]]]:
    """Write the modules with some texts replaced; return the parts of each root."""

    def write(**replaced: tuple[str, str]) -> dict[str, dict[str, str]]:
        (tmp_path / "deep").mkdir(exist_ok=True)
        for name in [one for one in sys.modules if one.partition(".")[0] == "deep"]:
            del sys.modules[name]
        for name, text in {**OTHERS, "mods": MODS}.items():
            old, new = replaced.get(name.replace("/", "_"), ("", ""))
            assert old in text
            importable(name, text.replace(old, new) if old else text)
        module = __import__("mods")
        return {root: code_parts(getattr(module, root)) for root in ROOTS}

    return write


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("mods", "by(x) / FACTOR", "by(x) * FACTOR", {"pre": ["mods.pre"]}),
        ("mods", "FACTOR = 2", "FACTOR = 4", {"pre": ["mods.FACTOR"], "make": ["mods.FACTOR"]}),
        ("helpers", "return 3", "return 4", {"pre": ["helpers.rate"]}),
        ("helpers", "LIMIT = 7", "LIMIT = 8", {"clip": ["helpers.LIMIT"]}),
        ("mods", "most=LIMIT", "most=2 * LIMIT", {"clip": ["mods.clip"]}),
        ("mods", "self.head(x) * FACTOR", "self.head(x) + FACTOR", {"make": ["mods.Base"]}),
        ("mods", "nn.Linear(4, 2)", "nn.Linear(4, 2, False)", {"make": ["mods.Net"]}),
        ("mods", "from torch import nn", "import torch.nn as nn", {"make": ["mods.nn"]}),
        ("tables", "[1, 2]", "[1, 3]", {"look_up": ["module tables"]}),
        ("deep_side", "-x", "+x", {"lazily": ["deep.side.turn"]}),
        ("deep___init__", "STEP = 1", "STEP = 2", {"lazily": ["deep.STEP"]}),
        # Not seen, as nothing of it is run:
        ("mods", "# halve them", "# divide them\n\n", {}),
        ("mods", "Prepare rows.", "Get rows ready.", {}),
        ("mods", "return tables.TABLE[x]", "return (tables\n            .TABLE[x])", {}),
        ("mods", "A module.", "Modules.", {}),
        ("helpers", "def idle(): pass", "def idle(): return 1", {}),
    ],
)
def test_a_change_is_seen_where_it_is_run(
    mods: Any, file: str, old: str, new: str, changed: dict[str, list[str]]
) -> None:
    before, after = mods(), mods(**{file: (old, new)})
    found = {root: changes(after[root], before[root]) for root in ROOTS}
    assert {root: parts for root, parts in found.items() if parts} == changed


def test_statements_at_the_top_count_wherever_a_module_is_reached(mods: Any) -> None:
    more = 'sorted([1])\n    if __name__ == "__main__":\n        print(pre(1))'
    before = mods()
    after = mods(mods=("UNUSED = 3", f"UNUSED = 3\n    {more}"))
    for root in ROOTS:
        assert changes(after[root], before[root]) == ["mods (statements) (not used before)"]
    again = mods(mods=("UNUSED = 3", f"UNUSED = 3\n    {more.replace('pre(1)', '2')}"))
    assert again == after, "what a script does is not run by who imports it"


def test_what_is_used_no_more_is_named(mods: Any) -> None:
    before, after = mods(), mods(mods=("by(x) / FACTOR", "x / FACTOR"))
    found = changes(after["pre"], before["pre"])
    assert found[0] == "mods.pre"
    assert set(found[1:]) == {
        f"{name} (not used now)" for name in ("mods.by", "helpers.scale", "helpers.rate")
    }


def test_names_that_a_module_makes_up(importable: Write) -> None:
    source = "def __getattr__(name):\n    return lambda x: x * {}"
    importable("made_up", source.format(2))
    before = code_parts("made_up:w_two")
    importable("made_up", source.format(3))
    assert changes(code_parts("made_up:w_two"), before) == ["module made_up"]


def test_star_imports(importable: Write) -> None:
    importable("starred", "from helpers_of_star import *\ndef run(x): return twice(x)")
    importable("helpers_of_star", "def twice(x): return 2 * x")
    before = code_parts("starred:run")
    importable("helpers_of_star", "def twice(x): return x + x")
    assert changes(code_parts("starred:run"), before) == ["module helpers_of_star"]


def test_modules_without_source(importable: Write, tmp_path: Any) -> None:
    import py_compile

    for number in (1, 2):
        importable("compiled", f"def run(x): return x + {number}")
        py_compile.compile(str(tmp_path / "compiled.py"), str(tmp_path / f"{number}.pyc"))
        (tmp_path / "compiled.py").unlink()
    found = []
    for number in (1, 2):
        (tmp_path / f"{number}.pyc").rename(tmp_path / "compiled.pyc")
        sys.modules.pop("compiled", None)
        __import__("importlib").invalidate_caches()
        found.append(code_parts("compiled:run"))
    assert changes(*found) == ["module compiled"]


def test_libraries_are_not_the_users_own() -> None:
    assert code_parts(np.tanh, torch.nn.Linear(2, 2), functools.partial(np.multiply, 2)) == {}
    assert code_parts("approxifer.models.zoo:mlp", "json:loads") == {}


def closure(factor: float, table: Any = None) -> Callable[[Any], Any]:
    def run(x: Any, offset: int = 1) -> Any:
        return x * factor + offset + table

    return run


def test_closures_count_by_what_they_close_over() -> None:
    (name,) = code_parts(closure(2.0))
    assert name == f"{__name__}.closure.<locals>.run"
    same = code_parts(closure(2.0))
    for other in (closure(3.0), closure(2), closure(2.0, np.arange(3)), closure(2.0, {1, 2})):
        assert changes(code_parts(other), same) == [name]
    assert code_parts(closure(2.0)) == same
    other = closure(2.0)
    other.__defaults__ = (2,)
    assert changes(code_parts(other), same) == [name]
    nets = [torch.nn.Linear(2, 2) for _ in range(2)]
    tables = [code_parts(closure(2.0, net)) for net in (*nets, nets[0])]
    assert (tables[0] != tables[1], tables[0] == tables[2]) == (True, True)


def test_lambdas_count_by_their_source() -> None:
    same = [
        lambda x: x + 1,
        lambda x: x + 1,  # another line
    ]
    assert code_parts(same[0]) == code_parts(same[1])
    assert code_parts(same[0]) != code_parts(lambda x: x + 2)
    (name,) = code_parts(same[0])
    assert name.endswith("test_lambdas_count_by_their_source.<locals>.<lambda>")


def script(source: str) -> dict[str, Any]:
    """Run source as a script is run: without a file, in __main__."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(source, names)
    return names


SCRIPT = """
import numpy as np
RATE = 2
TABLE = {'a': np.arange(3), 'b': {'x', 'y', 'z'}}
def helper(x): return x * RATE
class Net:
    SIZE = 3
    @property
    def size(self): return self.SIZE
    def __call__(self, x):
        if x in {'p', 'q', 'r'}: return None
        return [helper(one) for one in x] + [self.size]
def pre(x): return Net()(x) + TABLE['a']
"""


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("x * RATE", "x + RATE", "__main__.helper"),
        ("RATE = 2", "RATE = 3", "__main__.helper"),
        ("SIZE = 3", "SIZE = 4", "__main__.Net"),
        ("return self.SIZE", "return -self.SIZE", "__main__.Net"),
        ("'q'", "'s'", "__main__.Net"),
        ("arange(3)", "arange(4)", "__main__.pre"),
        ("'z'", "'w'", "__main__.pre"),
        ("+ TABLE", "- TABLE", "__main__.pre"),
    ],
)
def test_scripts_count_by_what_is_shipped(old: str, new: str, changed: str) -> None:
    before = code_parts(script(SCRIPT)["pre"])
    assert set(before) >= {"__main__.helper", "__main__.Net", "__main__.pre"}
    assert code_parts(script("x = 1\n" + SCRIPT + "y = 2")["pre"]) == before
    found = changes(code_parts(script(SCRIPT.replace(old, new))["pre"]), before)
    assert changed in found


@pytest.mark.parametrize("seed", ["1", "2"])
def test_the_same_in_every_process(mods: Any, tmp_path: Any, seed: str) -> None:
    mine = mods()
    code = (
        "import mods\nfrom approxifer.models.user_code.identity import code_parts\n"
        f"print([code_parts(getattr(mods, root)) for root in {ROOTS}])\n"
        f"{SCRIPT}\nprint(code_parts(pre))"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONHASHSEED": seed}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    first, second = done.stdout.splitlines()
    assert first == str(list(mine.values()))
    assert second == str(code_parts(script(SCRIPT)["pre"]))


class Cyclic:
    def __init__(self) -> None:
        self.me = self
        self.lock = threading.Lock()

    def __call__(self, x: Any) -> Any:
        return x


def test_objects_that_refer_to_themselves_or_cannot_be_pickled() -> None:
    parts = code_parts(Cyclic())
    assert f"{__name__}.Cyclic" in parts
    assert code_parts(Cyclic()) == parts
    made = types.ModuleType("made_in_memory")
    sys.modules["made_in_memory"] = made
    try:
        exec("def run(x): return run(x - 1) if x else 0", vars(made))
        assert list(code_parts(made.run)) == ["made_in_memory.run"]
    finally:
        del sys.modules["made_in_memory"]


def test_data_of_an_object_is_no_code() -> None:
    one, two = functools.partial(closure(1.0), offset=1), functools.partial(closure(1.0), offset=2)
    assert code_parts(one) == code_parts(two)
    assert data_digest(one) != data_digest(two)
    assert data_digest(functools.partial(closure(2.0), offset=1)) == data_digest(one)
    assert data_digest([np.arange(3), {"b": 1, "a": {3, 1}}]) == data_digest(
        [np.arange(3), {"a": {1, 3}, "b": 1}]
    )

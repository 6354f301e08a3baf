"""Models of one process are imported and built one at a time."""

import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from approxifer.models import open_model

Write = Callable[[str, str], str]

BUSY = """
    import threading, time

    active, most = 0, 0

    def build():
        global active, most
        active += 1
        most = max(most, active)
        time.sleep(0.05)
        active -= 1
        return lambda rows: rows
"""


@pytest.mark.parametrize("again", [False, True])
def test_models_are_built_one_at_a_time(importable: Write, again: bool) -> None:
    module = __import__(importable("busy_factories", BUSY))
    handle = open_model("busy_factories:build")
    work = handle.load if again else lambda: open_model("busy_factories:build")
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (module.active, module.most) == (0, 1)


def test_modules_are_imported_one_at_a_time(importable: Write) -> None:
    note = importable("import_times", "active, most = 0, 0")
    source = """
        import time, import_times as t
        t.active += 1
        t.most = max(t.most, t.active)
        time.sleep(0.05)
        t.active -= 1
        def build(): return lambda rows: rows
    """
    names = [importable(f"slow_import_{number}", source) for number in range(3)]
    threads = [threading.Thread(target=open_model, args=(f"{name}:build",)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert __import__(note).most == 1


HALF = """
    import importlib.abc, sys, threading
    from approxifer.models.runtime import imported_torch, use_threads

    class Meanwhile(importlib.abc.MetaPathFinder):
        # Half of torch is there when it imports the first of its parts.
        def find_spec(self, name, path, target=None):
            if name.startswith("torch.") and not started.is_set():
                started.set()
                go_on.wait(1)

    started, go_on, found = threading.Event(), threading.Event(), []
    sys.meta_path.insert(0, Meanwhile())
    importing = threading.Thread(target=lambda: __import__("torch"))
    importing.start()
    assert started.wait(60) and not hasattr(sys.modules["torch"], "get_num_threads")
    use_threads(1)
    print(imported_torch().get_num_threads())
"""


def test_a_torch_that_is_being_imported_is_waited_for() -> None:
    code = "\n".join(line[4:] for line in HALF.splitlines())
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert (ran.stdout, ran.stderr) == ("1\n", "")

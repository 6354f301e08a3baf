"""The process a model runs in: glibc's malloc thresholds, torch's thread count and its lock.

Dask's nanny starts workers with ``MALLOC_TRIM_THRESHOLD_=65536``. In glibc that also freezes the
mmap threshold at 128 kB, so every activation of a network is mapped, faulted in and unmapped again,
and torch runs at about half its speed on a CPU.
"""

import ctypes
import sys
import threading
from types import ModuleType

#: Held while torch, or code of the user's that may import it, is imported, and while a model is
#: built: neither torch's import nor its loaders can be used by two threads at once.
torch_lock = threading.RLock()

#: Threads that a model may be asked to run in.
MOST_THREADS = 4096

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
MMAP_BYTES = 2**30
TRIM_BYTES = 2**31 - 1


def raise_malloc_thresholds() -> bool:
    """Let glibc keep freed memory, instead of giving it back after every activation.

    Works at any time in a process's life and may be called again.

    Returns
    -------
    bool
        Whether both thresholds were set. False where there is no glibc (musl, macOS, Windows):
        nothing is changed there.
    """
    try:
        libc = ctypes.CDLL(None)
        version, mallopt = libc.gnu_get_libc_version, libc.mallopt
    except (OSError, TypeError, AttributeError):
        return False
    version.restype = ctypes.c_char_p
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    mapped = mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
    trimmed = mallopt(M_TRIM_THRESHOLD, TRIM_BYTES)
    return bool(mapped == 1 and trimmed == 1)


def use_threads(threads: int) -> None:
    """Give torch's operators `threads` threads, in the calling thread.

    OpenMP keeps the count per calling thread, so this is asked again in every call of a model.
    Does nothing in a process that has not imported torch.
    """
    torch = imported_torch()
    if torch is not None and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def imported_torch() -> ModuleType | None:
    """Return torch if this process has imported it; wait for a thread that is just importing it,
    which would else be seen half done."""
    if "torch" not in sys.modules:
        return None
    import torch

    return torch

"""How long torch's threads spin while they wait for each other, on machines that others keep busy.

Behind each of several hundred operations of a prediction a thread of GNU OpenMP (libgomp) spins for
milliseconds, in the hope that the others are about to finish. Where other processes hold their core they
are not. libgomp reads the environment (GOMP_SPINCOUNT) once, when torch is imported, but it also spins hardly
at all while it manages more threads than there are cores (its manual's page on GOMP_SPINCOUNT). So as long as
others compute, some more threads are kept asleep here. Neither the number of threads that compute nor a bit
of the results changes.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

from ..storage.paths import is_set
from .machine_load import cores, running_elsewhere, usable_cores

CHOSEN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # with one of these in the environment nothing is done
_lock = threading.Lock()
_wake_sleepers: Callable[[], None] | None = None


def limit_spinning_if_busy() -> None:
    """Let waiting threads sleep soon if more want to run than there are cores for them, else spin."""
    if torch.get_num_threads() == 1 or is_set(*CHOSEN):
        return
    limit_spinning(torch.get_num_threads() + running_elsewhere() > usable_cores())


def limit_spinning(limited: bool) -> None:
    """Let waiting threads of this process sleep soon, or not; nothing where torch has another OpenMP."""
    global _wake_sleepers
    with _lock:
        if limited and _wake_sleepers is None and _libgomp() is not None:
            _wake_sleepers = _sleepers()
        elif not limited and _wake_sleepers is not None:
            _wake_sleepers()
            _wake_sleepers = None


def _sleepers() -> Callable[[], None]:
    """Start more threads of libgomp than there are cores, which sleep until the result is called."""
    over, ready = threading.Event(), threading.Event()

    def hold() -> None:
        library = _libgomp()
        assert library is not None
        region = library.GOMP_parallel  # what compilers call for `#pragma omp parallel`
        region.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        region.restype = None
        harmless = ctypes.cast(library.omp_get_thread_num, ctypes.c_void_p)  # what each of them calls
        try:
            region(harmless, None, cores() + 1, 0)
        finally:
            ready.set()
        over.wait()  # libgomp keeps a thread's team until the thread ends

    thread = threading.Thread(target=hold, name="multihmr-openmp", daemon=True)
    thread.start()
    ready.wait()

    def wake() -> None:
        over.set()
        thread.join()

    return wake


@cache
def _libgomp() -> ctypes.CDLL | None:
    """GNU OpenMP as torch has loaded it."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    files = {parts[5] for line in lines if len(parts := line.split(maxsplit=5)) == 6}
    loaded = [file for file in files if Path(file).name.startswith("libgomp") and ".so" in file]
    # Other packages bring their own, whose threads are others.
    for file in sorted(loaded, key=lambda file: ("torch" not in file, file)):
        with suppress(OSError):
            library = ctypes.CDLL(file)
            return library if hasattr(library, "GOMP_parallel") else None
    return None


def _forget_sleepers() -> None:
    global _wake_sleepers, _lock
    _wake_sleepers, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_sleepers)  # no thread but the one that forks is in the child

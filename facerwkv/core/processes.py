"""What threads may share and processes may not, and what makes PyTorch work in a forked process."""

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar
from weakref import WeakSet

T = TypeVar("T")
HARD = 2  # omp_pause_hard, of OpenMP 5.0


class PerProcess(Generic[T]):
    """A value that all threads of a process share: `value()` makes it, once, with `make`, which has no arguments.

    A forked child, a pickle and a copy make their own. The parent's value is never freed in the child: its threads are
    not there, and its end would wait for them.
    """

    _all: ClassVar[WeakSet["PerProcess"]] = WeakSet()

    def __init__(self, make: Callable[[], T]):
        self._make = make
        self._made: list[T] = []
        self._lock = threading.Lock()
        self._all.add(self)

    def __call__(self) -> T:
        if not self._made:
            with self._lock:
                if not self._made:
                    self._made.append(self._make())
        return self._made[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._make,)

    @classmethod
    def leave_the_parents(cls) -> None:
        """In a forked child: keep what the parent made for ever, and use it no more."""
        for each in list(cls._all):
            for value in each._made:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))
            each._made, each._lock = [], threading.Lock()


def end_threads() -> None:
    """Before a fork: end the threads that GNU's OpenMP keeps for this one, which makes new ones when it needs them.

    They are not copied, and the child's first parallel loop would wait for them. LLVM's OpenMP sees to this itself.
    """
    torch = getattr(sys.modules.get("torch"), "_C", None)
    if torch is not None:
        openmp = ctypes.CDLL(torch.__file__)  # and the libraries that it loaded
        if hasattr(openmp, "omp_pause_resource_all") and not hasattr(openmp, "__kmpc_fork_call"):
            openmp.omp_pause_resource_all(HARD)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=end_threads, after_in_child=PerProcess.leave_the_parents)

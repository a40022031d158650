"""A line on standard error when kernels are compiled: it takes a while, once per machine and version.

Numba keeps what it compiled beside the package, or in the user's cache folder where that cannot be written.
"""

import sys
from typing import Any

from numba.core import event

__all__ = ["announce"]


class _Announcer(event.Listener):
    def __init__(self) -> None:
        self._said = False

    def on_start(self, event: Any) -> None:
        if not self._said and event.data["dispatcher"].py_func.__module__.startswith("serfast."):
            self._said = True
            print("serfast: compiling feature kernels, once for this machine ...", file=sys.stderr, flush=True)

    def on_end(self, event: Any) -> None:
        pass


def announce() -> None:
    """Say it when the first kernel of this process is compiled and not found compiled."""
    event.register("numba:compile", _Announcer())

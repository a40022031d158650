"""How kernels are compiled: without the interpreter's lock, kept on disk, and with a word when it takes a while.

Numba keeps what it compiled beside the package, or in the user's cache folder where that cannot be written. By itself
it compiles a kernel anew when the kernel's own file has changed, but not when that of a kernel called by it has; here
the text of all of them counts.
"""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import event
from numba.core.caching import FunctionCache

__all__ = ["REORDERED", "kernel"]

REORDERED = frozenset({"reassoc", "contract"})
"""Sums in any order, so that they are vectorised; NaN and infinity are still seen."""

_SOURCES = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()


class _KernelCache(FunctionCache):
    def _index_key(self, signature: Any, codegen: Any) -> Any:
        key: Any = super()._index_key(signature, codegen)  # type: ignore[no-untyped-call]
        return (*key, _SOURCES)


class _Announcer(event.Listener):
    def __init__(self) -> None:
        self._said = False

    def on_start(self, event: Any) -> None:
        if not self._said and event.data["dispatcher"].py_func.__module__.startswith("serfast."):
            self._said = True
            print("serfast: compiling feature kernels, once for this machine ...", file=sys.stderr, flush=True)

    def on_end(self, event: Any) -> None:
        pass


def kernel(*, fastmath: frozenset[str] = frozenset()) -> Callable[[Callable[..., Any]], Any]:
    """Compile the function with Numba; ``fastmath`` names what the compiler may take for granted."""

    def compile_lazily(function: Callable[..., Any]) -> Any:
        dispatcher: Any = njit(nogil=True, fastmath=set(fastmath))(function)
        dispatcher._cache = _KernelCache(function)  # type: ignore[no-untyped-call]
        return dispatcher

    return compile_lazily


event.register("numba:compile", _Announcer())

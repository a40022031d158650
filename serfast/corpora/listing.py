"""How messages and notes name many things: the first five, and how many more there are."""

from collections.abc import Sequence

__all__ = ["listed"]

_N_LISTED = 5


def listed(names: Sequence[str], separator: str = ", ") -> str:
    """The first names, joined by ``separator``, and the number of the others."""
    more = f"{separator}and {len(names) - _N_LISTED} more" if len(names) > _N_LISTED else ""
    return separator.join(names[:_N_LISTED]) + more

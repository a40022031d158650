"""Checks of option values: types first, so that "no" is no flag and 2.5 no count, then ranges."""

import math
import numbers

__all__ = ["flag", "integer", "number", "require"]


def integer(name: str, value: object) -> int:
    """``value`` as an int.

    Raises:
        TypeError: if it is no whole number, or a truth value.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    return int(value)


def number(name: str, value: object) -> float:
    """``value`` as a float.

    Raises:
        TypeError: if it is no number, or a truth value.
        ValueError: if it is not finite.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    require(name, "be finite", value, math.isfinite(value))
    return float(value)


def flag(name: str, value: object) -> bool:
    """``value``, True or False.

    Raises:
        TypeError: if it is anything else.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def require(name: str, rule: str, value: object, holds: bool) -> None:
    """Raise ``ValueError`` naming argument, rule and value unless the rule holds."""
    if not holds:
        raise ValueError(f"{name} must {rule}, got {value!r}")

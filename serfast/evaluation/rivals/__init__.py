"""Systems that the paper builds on or competes with, and the classical yardstick."""

from serfast.evaluation.rivals.functionals_svm import FunctionalsSvm
from serfast.evaluation.rivals.han import HanSegments

__all__ = ["FunctionalsSvm", "HanSegments"]

"""Systems that the paper builds on or competes with, and the classical yardstick."""

from serfast.evaluation.rivals.functionals_svm import FunctionalsSvm
from serfast.evaluation.rivals.ghosh import GhoshBottleneck
from serfast.evaluation.rivals.han import HanSegments
from serfast.evaluation.rivals.lee import LeeCtc

__all__ = ["FunctionalsSvm", "GhoshBottleneck", "HanSegments", "LeeCtc"]

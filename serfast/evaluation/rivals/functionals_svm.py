"""The classical yardstick: statistics of the descriptors over an utterance, and a linear support vector machine."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serfast.checks import number, require
from serfast.evaluation.rivals.selection import select_by_validation
from serfast.evaluation.system import FoldContext, FoldOutcome
from serfast.features import NORMALISATIONS, FeatureOptions, functionals
from serfast.models import LinearSvm
from serfast.training.classification import standardise

__all__ = ["FunctionalsSvm"]


@dataclass(frozen=True)
class FunctionalsSvm:
    """Functionals of the 28 descriptors, standardised with the training part, and a linear support vector machine.

    Attributes:
        costs: costs of an utterance on the wrong side to choose from. The highest UA on the validation part decides,
            the smallest among equals.
        normalisation: whose statistics standardise the descriptors before the functionals: those of the fold's
            "training" part, or each "speaker"'s own (which uses unlabelled recordings of test speakers: transductive).

    Raises:
        ValueError: if a value is out of range.

    Source: the functionals of :mod:`serfast.features.functionals` and the classifier of Schuller, Steidl and Batliner
    (2009), "The Interspeech 2009 emotion challenge"; their cost is fixed.
    """

    costs: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    normalisation: str = "training"

    def __post_init__(self) -> None:
        positive = bool(self.costs) and all(number("costs", cost) > 0 for cost in self.costs)
        require("costs", "be one or more numbers above 0", self.costs, positive)
        known = self.normalisation in NORMALISATIONS
        require("normalisation", f"be one of {', '.join(NORMALISATIONS)}", self.normalisation, known)

    @property
    def features(self) -> FeatureOptions:
        """The 28 descriptors."""
        return FeatureOptions()

    @property
    def base(self) -> None:
        """None: it builds on no other system."""

    @property
    def fit_side_by_side(self) -> None:
        """None: its folds are learned one after another."""

    def to_dict(self) -> dict[str, Any]:
        """Every choice by name, JSON-safe."""
        return {"system": "functionals_svm", **asdict(self), "costs": list(self.costs)}

    def fit(self, context: FoldContext) -> FoldOutcome:
        """Learn on the functionals of the training part; probabilities are a softmax of distances from the planes."""
        started = time.monotonic()
        _, source = standardise(context.store, context.fold, self.normalisation)
        emotions = np.array(context.store.corpus.labels(), dtype=np.int64)
        n_emotions = len(context.store.corpus.emotions)

        def statistics(part: Sequence[int]) -> NDArray[np.float64]:
            return np.stack([functionals(source.gather(np.array([index]))).ravel() for index in part])

        train, labels = statistics(context.fold.train), emotions[list(context.fold.train)]
        cost, machine = select_by_validation(
            lambda cost: LinearSvm.fit(train, labels, n_emotions=n_emotions, cost=cost),
            self.costs,
            statistics(context.fold.validation),
            emotions[list(context.fold.validation)],
        )
        seconds = time.monotonic() - started
        probabilities = machine.probabilities(statistics(context.scored))
        return FoldOutcome(probabilities, 0, 0, seconds, {"cost": cost})

"""What an experiment compares: systems, which learn on the training part of a fold and answer its test part."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from serfast.corpora import Fold
from serfast.features import FeatureOptions, FeatureStore
from serfast.training import EpochRecord

__all__ = ["FoldContext", "FoldOutcome", "System"]


@dataclass(frozen=True)
class FoldContext:
    """One fold to learn: ``store`` holds the features that the system asked for.

    ``folder`` is the system's own, and keeps what makes it resumable; ``base_folder`` holds the finished fold of its
    base system, if it has one. ``title`` is what messages call the fold.
    """

    store: FeatureStore
    fold: Fold
    folder: Path
    base_folder: Path
    device: torch.device
    on_epoch: Callable[[EpochRecord], None]
    title: str

    @property
    def scored(self) -> tuple[int, ...]:
        """The utterances to answer: the test part, or the validation part of a fold without one."""
        return self.fold.test or self.fold.validation


@dataclass(frozen=True)
class FoldOutcome:
    """Class probabilities (utterance, emotion) of the scored part, in its order, and how they came about.

    ``n_epochs`` and ``best_epoch`` are those of the last stage, 0 where nothing is trained in epochs; of several models
    the epochs of all, and 0 for the best. ``choices`` are
    what the fold's validation part decided beyond the epoch, ``seconds`` the time of training, the base's included, and
    ``validation_ua`` the score that it selected by, if any.
    """

    probabilities: NDArray[np.float64]
    n_epochs: int
    best_epoch: int
    seconds: float
    choices: dict[str, Any] = field(default_factory=dict)
    validation_ua: float | None = None


class System(Protocol):
    """A way to get from a fold's training part to answers for its test part; equal systems give equal answers."""

    @property
    def features(self) -> FeatureOptions:
        """What it reads."""

    @property
    def base(self) -> "System | None":
        """The system whose fold must be finished first, with the same features; None for most."""

    def to_dict(self) -> dict[str, Any]:
        """Every choice by name, JSON-safe: it names the system in a run's folder."""

    def fit(self, context: FoldContext) -> FoldOutcome:
        """Learn on the training part, select on the validation part, answer the scored part."""

    @property
    def fit_side_by_side(self) -> "Callable[[Sequence[tuple[Any, FoldContext]]], list[FoldOutcome]] | None":
        """What does as :meth:`fit` of each of several systems on a fold of one store, all in the same steps.

        The systems are of one kind and differ in the seed only. None for a kind that cannot; the base of one that can,
        can.
        """

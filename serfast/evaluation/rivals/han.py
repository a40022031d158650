"""Segments, a deep network and an extreme learning machine."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from serfast.checks import integer, number, require
from serfast.evaluation.rivals.selection import select_by_validation
from serfast.evaluation.system import FoldContext, FoldOutcome
from serfast.features import ColumnSource, FeatureOptions, SegmentSource, feature_names
from serfast.models import ExtremeLearningMachine, SegmentNetwork, posterior_statistics
from serfast.training import EpochRecord, TrainingOptions
from serfast.training.classification import standardise
from serfast.training.loop import Run, run_in_turn
from serfast.training.objective import Objective
from serfast.training.row_steps import run_rows_side_by_side
from serfast.training.segments import SegmentTask, segment_posteriors

__all__ = ["HanSegments"]

_NETWORK = "network"


@dataclass(frozen=True)
class HanSegments:
    """A network classifies the loudest segments of an utterance; an extreme learning machine reads its posteriors.

    Segments hold consecutive frames of the 28 descriptors, standardised. The published system has pitch and the
    harmonics-to-noise ratio beside its 24 cepstral columns. An utterance shorter than a segment is one segment, filled
    up with its last frame. The network minimises cross entropy with AdamW; a step takes the segments of
    ``training.batch_size`` utterances.

    Attributes:
        n_frames: frames of a segment; 25 of them span 265 ms.
        share: share of an utterance's segments, those with the most energy, that is learned from and answered with.
        n_layers: hidden layers of the network.
        n_units: rectified units of each.
        threshold: posterior that a segment must exceed to count for an emotion.
        n_hidden: sigmoid units of the extreme learning machine.
        ridges: strengths of its ridge to choose from; the publication gives none. The highest UA on the validation part
            decides, the strongest among equals.
        training: of the network. Its seed also fixes the random layer of the extreme learning machine. Published is a
            gradient descent in mini-batches of cross entropy, and no more.

    Raises:
        ValueError: if a value is out of range, or ``training`` asks for augmentation or a greedy scheme.

    Source: Han, Yu and Tashev (2014), "Speech emotion recognition using deep neural network and extreme learning
    machine".
    """

    n_frames: int = 25
    share: float = 0.1
    n_layers: int = 3
    n_units: int = 256
    threshold: float = 0.2
    n_hidden: int = 120
    ridges: tuple[float, ...] = (100.0, 10.0, 1.0, 0.1, 0.01)
    training: TrainingOptions = field(default_factory=TrainingOptions)

    def __post_init__(self) -> None:
        for name in ("n_frames", "n_layers", "n_units", "n_hidden"):
            require(name, "be at least 1", getattr(self, name), integer(name, getattr(self, name)) >= 1)
        require("share", "be above 0 and at most 1", self.share, 0 < number("share", self.share) <= 1)
        require("threshold", "be in [0, 1)", self.threshold, 0 <= number("threshold", self.threshold) < 1)
        positive = bool(self.ridges) and all(number("ridges", ridge) > 0 for ridge in self.ridges)
        require("ridges", "be one or more numbers above 0", self.ridges, positive)
        for name in ("scheme", "tempo_change", "noise", "offset", "n_masked"):
            asked, default = getattr(self.training, name), getattr(TrainingOptions(), name)
            require(f"training.{name}", f"be {default!r} for segments", asked, asked == default)

    @property
    def features(self) -> FeatureOptions:
        """The 28 descriptors, the energy that decides between segments, and the voicing that other rivals read."""
        return FeatureOptions(log_energy=True, voiced=True)

    @property
    def base(self) -> None:
        """None: it builds on no other system."""

    def to_dict(self) -> dict[str, Any]:
        """Every choice by name, JSON-safe."""
        return {"system": "han_segments", **asdict(self), "ridges": list(self.ridges)}

    def fit(self, context: FoldContext) -> FoldOutcome:
        """Train the network, then the extreme learning machine on what it says of the training part."""
        return _fit([(self, context)], partial(run_in_turn, on_epochs=[context.on_epoch]))[0]

    @staticmethod
    def fit_side_by_side(members: "Sequence[tuple[HanSegments, FoldContext]]") -> list[FoldOutcome]:
        """As :meth:`fit` of systems that differ in the seed only, each on a fold of one store, in the same steps.

        Raises:
            ValueError: if the loss of a fold is not finite.
        """
        names = [context.title for _, context in members]
        on_epochs = [context.on_epoch for _, context in members]
        return _fit(members, partial(run_rows_side_by_side, names=names, on_epochs=on_epochs))

    def _task(self, context: FoldContext) -> SegmentTask:
        objective = Objective(context.store, context.fold, self.training, context.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.training.seed)
            n_inputs = self.n_frames * len(feature_names())
            network = SegmentNetwork(n_inputs, objective.n_emotions, n_layers=self.n_layers, n_units=self.n_units)
        network.to(context.device)
        return SegmentTask(network, self._segments(context), context.fold, objective, self.training, context.device)

    def _outcome(self, context: FoldContext, task: SegmentTask, history: Sequence[EpochRecord]) -> FoldOutcome:
        fold, objective, source = task.fold, task.objective, task.source

        def statistics(part: Sequence[int]) -> NDArray[np.float64]:
            size = self.training.batch_size
            posteriors = segment_posteriors(task.model, source, part, batch_size=size, device=task.device)
            return posterior_statistics(posteriors, source.lengths[list(part)], threshold=self.threshold)

        def fit_machine(ridge: float) -> ExtremeLearningMachine:
            sizes = {"n_emotions": objective.n_emotions, "n_hidden": self.n_hidden}
            return ExtremeLearningMachine.fit(train, labels, **sizes, ridge=ridge, seed=self.training.seed)

        started = time.monotonic()
        train, labels = statistics(fold.train), objective.labels[list(fold.train)]
        truth = objective.labels[list(fold.validation)]
        ridge, machine = select_by_validation(fit_machine, self.ridges, statistics(fold.validation), truth)
        seconds = sum(record.seconds for record in history) + time.monotonic() - started
        best_epoch = max(record.epoch for record in history if record.best)
        probabilities = machine.probabilities(statistics(context.scored))
        return FoldOutcome(probabilities, len(history), best_epoch, seconds, {"ridge": ridge})

    def _segments(self, context: FoldContext) -> SegmentSource:
        store = context.store
        _, standardised = standardise(store, context.fold, self.training.normalisation)
        return SegmentSource(
            ColumnSource(standardised, store.feature_names, feature_names()),
            ColumnSource(store, store.feature_names, ["log_energy"]),
            n_frames=self.n_frames,
            share=self.share,
        )


def _fit(members: Sequence[tuple[HanSegments, FoldContext]], run: Run[SegmentTask]) -> list[FoldOutcome]:
    tasks = [system._task(context) for system, context in members]
    folders = [context.folder / _NETWORK for _, context in members]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    learned = zip(members, tasks, run(tasks, folders), strict=True)
    return [system._outcome(context, task, history) for (system, context), task, history in learned]

"""A recurrent network trained on label sequences, and an extreme learning machine."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serfast.checks import integer, number, require
from serfast.evaluation.rivals.selection import select_by_validation
from serfast.evaluation.system import FoldContext, FoldOutcome
from serfast.features import ColumnSource, FeatureOptions, FeatureStore, feature_names
from serfast.models import ExtremeLearningMachine, FrameClassifier, posterior_statistics, softmax
from serfast.training import EpochRecord, TrainingOptions
from serfast.training.classification import standardise
from serfast.training.ctc import CtcTask, count_regions, frame_log_posteriors, run_ctc_side_by_side
from serfast.training.loop import Run, run_in_turn
from serfast.training.objective import Objective

__all__ = ["LeeCtc"]

_NETWORK = "network"


@dataclass(frozen=True)
class LeeCtc:
    """A BLSTM learns when an emotion is heard and when none; an extreme learning machine reads its frame posteriors.

    The frames of the 28 descriptors, standardised, are classified as an emotion or as Null. An utterance is taken to
    bear its emotion once for each voiced region and Null in between, and connectionist temporal classification learns
    from that sequence without being told which frames bear what. The publication describes the label of a frame as
    random in the same way; its inputs are 32 descriptors. How posteriors are summarised is that of Han, Yu and Tashev
    (2014). The statistics are of the posteriors of the emotions given that a frame is not Null, which sum to 1.

    Attributes:
        n_layers: bidirectional LSTM layers; this and ``n_units`` are those of the models of Huang and Narayanan (2016).
        n_units: LSTM units per direction.
        n_voiced: frames at least of a run of voiced frames that counts as a region, 100 ms by default; the choice is
            ours. An utterance without such a run has one region.
        threshold: posterior that a frame must exceed to count for an emotion.
        n_hidden: numbers of sigmoid units of the extreme learning machine to choose from.
        ridges: strengths of its ridge to choose from. The highest UA on the validation part decides over both; among
            equals the fewest units, and of those the strongest ridge.
        training: of the network, whose epoch is selected by the UA of the mean posteriors of the validation part. The
            seed also fixes the random layer of the extreme learning machine.

    Raises:
        ValueError: if a value is out of range, or ``training`` asks for weights of emotions, label smoothing or a
            greedy scheme.

    Source: Lee and Tashev (2015), "High-level feature representation using recurrent neural network for speech emotion
    recognition".
    """

    n_layers: int = 2
    n_units: int = 128
    n_voiced: int = 10
    threshold: float = 0.2
    n_hidden: tuple[int, ...] = (30, 60, 120, 240)
    ridges: tuple[float, ...] = (100.0, 10.0, 1.0, 0.1, 0.01)
    training: TrainingOptions = field(default_factory=TrainingOptions)

    def __post_init__(self) -> None:
        for name in ("n_layers", "n_units", "n_voiced"):
            require(name, "be at least 1", getattr(self, name), integer(name, getattr(self, name)) >= 1)
        require("threshold", "be in [0, 1)", self.threshold, 0 <= number("threshold", self.threshold) < 1)
        counted = bool(self.n_hidden) and all(integer("n_hidden", size) >= 1 for size in self.n_hidden)
        require("n_hidden", "be one or more numbers of at least 1", self.n_hidden, counted)
        positive = bool(self.ridges) and all(number("ridges", ridge) > 0 for ridge in self.ridges)
        require("ridges", "be one or more numbers above 0", self.ridges, positive)
        for name in ("scheme", "class_weights", "label_smoothing"):
            asked, default = getattr(self.training, name), getattr(TrainingOptions(), name)
            require(f"training.{name}", f"be {default!r} for label sequences", asked, asked == default)

    @property
    def features(self) -> FeatureOptions:
        """The 28 descriptors, the voicing that bounds the regions, and the energy that other rivals read."""
        return FeatureOptions(log_energy=True, voiced=True)

    @property
    def base(self) -> None:
        """None: it builds on no other system."""

    def to_dict(self) -> dict[str, Any]:
        """Every choice by name, JSON-safe."""
        return {"system": "lee_ctc", **asdict(self), "n_hidden": list(self.n_hidden), "ridges": list(self.ridges)}

    def fit(self, context: FoldContext) -> FoldOutcome:
        """Train the network, then the extreme learning machine on what it says of the training part."""
        return _fit([(self, context)], partial(run_in_turn, on_epochs=[context.on_epoch]))[0]

    @staticmethod
    def fit_side_by_side(members: "Sequence[tuple[LeeCtc, FoldContext]]") -> list[FoldOutcome]:
        """As :meth:`fit` of systems that differ in the seed only, each on a fold of one store, in the same steps.

        Raises:
            ValueError: if the loss of a fold is not finite.
        """
        names = [context.title for _, context in members]
        on_epochs = [context.on_epoch for _, context in members]
        return _fit(members, partial(run_ctc_side_by_side, names=names, on_epochs=on_epochs))

    def _n_regions(self, store: FeatureStore) -> Tensor:
        """How often each utterance bears its emotion, (utterance,)."""
        voiced = store.feature_names.index("voiced")
        flags = (store.utterance_rows(index)[:, voiced] for index in range(len(store.lengths)))
        return torch.tensor([count_regions(frames, n_least=self.n_voiced) for frames in flags])

    def _task(self, context: FoldContext, n_regions: Tensor) -> CtcTask:
        store, fold, training = context.store, context.fold, self.training
        objective = Objective(store, fold, training, context.device)
        standardised = standardise(store, fold, training.normalisation)[1]
        source = ColumnSource(standardised, store.feature_names, feature_names())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(training.seed)
            n_classes = objective.n_emotions + 1  # and Null
            n_inputs = len(feature_names())
            network = FrameClassifier(n_inputs, n_classes, n_units=self.n_units, n_layers=self.n_layers)
        return CtcTask(network.to(context.device), source, fold, n_regions, objective, training, context.device)

    def _outcome(self, context: FoldContext, task: CtcTask, history: Sequence[EpochRecord]) -> FoldOutcome:
        fold, objective, source = task.fold, task.objective, task.source

        def statistics(part: Sequence[int]) -> NDArray[np.float64]:
            size = self.training.batch_size
            found = frame_log_posteriors(task.model, source, part, batch_size=size, device=task.device)
            posteriors = softmax(np.concatenate(found)[:, :-1])
            return posterior_statistics(posteriors, source.lengths[list(part)], threshold=self.threshold)

        def fit_machine(choice: tuple[int, float]) -> ExtremeLearningMachine:
            n_hidden, ridge = choice
            sizes = {"n_emotions": objective.n_emotions, "n_hidden": n_hidden}
            return ExtremeLearningMachine.fit(train, labels, **sizes, ridge=ridge, seed=self.training.seed)

        started = time.monotonic()
        train, labels = statistics(fold.train), objective.labels[list(fold.train)]
        truth = objective.labels[list(fold.validation)]
        grid = list(product(self.n_hidden, self.ridges))
        (n_hidden, ridge), machine = select_by_validation(fit_machine, grid, statistics(fold.validation), truth)
        seconds = sum(record.seconds for record in history) + time.monotonic() - started
        best_epoch = max(record.epoch for record in history if record.best)
        probabilities = machine.probabilities(statistics(context.scored))
        return FoldOutcome(probabilities, len(history), best_epoch, seconds, {"n_hidden": n_hidden, "ridge": ridge})


def _fit(members: Sequence[tuple[LeeCtc, FoldContext]], run: Run[CtcTask]) -> list[FoldOutcome]:
    first, context = members[0]
    n_regions = first._n_regions(context.store)
    tasks = [system._task(context, n_regions) for system, context in members]
    folders = [context.folder / _NETWORK for _, context in members]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    learned = zip(members, tasks, run(tasks, folders), strict=True)
    return [system._outcome(context, task, history) for (system, context), task, history in learned]

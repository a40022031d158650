"""Training of an emotion classifier on one fold: all at once, or its head on a frozen encoder."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from serfast.corpora import Fold
from serfast.features import FeatureStore, FrameSource, Normaliser, StandardisedSource, speaker_source
from serfast.models import EmotionClassifier, ModelOptions
from serfast.training.augmentation import augment
from serfast.training.batches import StepInputs, dropout_seeds, shuffled_batches
from serfast.training.distributed import ALONE, Ranks, together
from serfast.training.greedy import HeadTask, head_task, train_heads
from serfast.training.inference import answer_loaded
from serfast.training.loading import BatchLoader, batch_loader
from serfast.training.loop import EpochRecord, Validation, run_epochs, run_in_turn
from serfast.training.objective import Objective
from serfast.training.options import TrainingOptions

__all__ = ["ClassificationTask", "TrainedModel", "base_options", "check_base", "new_task", "standardise", "train_model"]


@dataclass(frozen=True)
class TrainedModel:
    """The selected epoch's model in evaluation mode, what standardises its features, and the epochs that ran.

    ``normaliser`` is None where each speaker has one; ``source`` holds the utterances of the store, standardised.
    ``history`` is that of the last stage, and ``seconds`` the time of all stages that were trained here.
    """

    model: EmotionClassifier
    normaliser: Normaliser | None
    source: FrameSource
    history: tuple[EpochRecord, ...]
    seconds: float

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights were kept, counted from 1."""
        return max(record.epoch for record in self.history if record.best)


def base_options(model: ModelOptions, training: TrainingOptions) -> tuple[ModelOptions, TrainingOptions] | None:
    """Options of the model whose encoder a greedy scheme freezes: the mean and a linear decoder; None for "joint"."""
    if training.scheme == "joint":
        return None
    base = replace(model, pooling="mean", n_attention=0, n_decoder=0, pooling_dropout=0.0, decoder_dropout=0.0)
    return base, replace(training, scheme="joint")


def train_model(
    store: FeatureStore,
    fold: Fold,
    model_options: ModelOptions,
    options: TrainingOptions,
    *,
    folder: Path,
    device: torch.device,
    base: EmotionClassifier | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> TrainedModel:
    """Train on the training part of ``fold`` and select the epoch with the best UA on its validation part.

    ``base`` is the model of :func:`base_options`, trained on the same fold, for a greedy scheme. Stopping and
    resuming are those of :func:`serfast.training.loop.run_epochs`.

    Raises:
        ValueError: if the scheme is greedy and there is no ``base``, or the loss is not finite.
    """
    check_base("base", base, options)
    if base is None:
        return together(_train_whole, store, fold, model_options, options, folder, device, on_epoch=on_epoch)
    task, normaliser = new_task(store, fold, model_options, options, device)
    run = partial(run_in_turn, on_epochs=[on_epoch])
    with task.head_task(base, folder) as head:
        ((history, seconds),) = train_heads([head], model_options, options, folders=[folder], run=run)
    return TrainedModel(task.model.eval(), normaliser, task.source, history, seconds)


def check_base(name: str, base: object, options: TrainingOptions) -> None:
    """Raise ValueError if ``base``, the argument called ``name``, is not given where the scheme wants it."""
    if (base is None) != (options.scheme == "joint"):
        raise ValueError(f"{name} must be given for a greedy scheme and for no other, got scheme {options.scheme!r}")


def _train_whole(
    store: FeatureStore,
    fold: Fold,
    model_options: ModelOptions,
    options: TrainingOptions,
    folder: Path,
    device: torch.device,
    *,
    ranks: Ranks,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> TrainedModel:
    task, normaliser = new_task(store, fold, model_options, options, device, ranks)
    history = run_epochs(task, options, folder=folder, device=device, ranks=ranks, on_epoch=on_epoch)
    seconds = sum(record.seconds for record in history)
    return TrainedModel(task.model.eval(), normaliser, task.source, history, seconds)


def new_task(
    store: FeatureStore,
    fold: Fold,
    model_options: ModelOptions,
    options: TrainingOptions,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> tuple["ClassificationTask", Normaliser | None]:
    """The task of a fold with a new classifier, and the normaliser of its source if that has just one."""
    normaliser, source = standardise(store, fold, options.normalisation)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = EmotionClassifier(len(store.feature_names), len(store.corpus.emotions), model_options)
    objective = Objective(store, fold, options, device)
    return ClassificationTask(model.to(device), source, fold, objective, options, device, ranks), normaliser


def standardise(store: FeatureStore, fold: Fold, normalisation: str) -> tuple[Normaliser | None, FrameSource]:
    """The utterances of ``store``, standardised by "training" or "speaker" statistics, and the one normaliser if any.

    Raises:
        ValueError: if the statistics are to be each speaker's and an utterance has no speaker.
    """
    if normalisation == "speaker":
        return None, speaker_source(store)
    normaliser = Normaliser.fit(store, fold.train)
    return normaliser, StandardisedSource(store, [normaliser])


@dataclass(frozen=True)
class ClassificationTask:
    """A whole classifier, trained on the utterances of a source by one process or by several."""

    model: EmotionClassifier
    source: FrameSource
    fold: Fold
    objective: Objective
    options: TrainingOptions
    device: torch.device
    ranks: Ranks = ALONE

    @cached_property
    def network(self) -> nn.Module:
        """The classifier, as training calls it."""
        return self.ranks.network(self.model)

    @cached_property
    def loader(self) -> BatchLoader:
        """What loads batches of the source."""
        return batch_loader(self.source, self.device)

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        """Utterances of like length, in an order of the epoch's own."""
        options = self.options
        batches = shuffled_batches(
            self.fold.train, self.source.lengths, options.batch_size, seed=options.seed, epoch=epoch
        )
        self.loader.expect([self._part(batch)[0] for batch in batches])
        return batches

    def loss(self, batch: NDArray[np.int64], epoch: int) -> Tensor:
        """Mean loss of the utterances ``batch``, augmented; with several processes, their mean is that."""
        part, factor = self._part(batch)
        return factor * self.loss_of(self.inputs(part, epoch))

    def inputs(self, batch: NDArray[np.int64], epoch: int) -> StepInputs:
        """What a step on the utterances ``batch`` reads: features (row, feature), augmented."""
        features, lengths = augment(self.loader.load(batch), self.options)
        seeds = dropout_seeds(self.options.seed, epoch, batch)
        return StepInputs(features, lengths, seeds.to(self.device, non_blocking=True), self.objective.truth(batch))

    def loss_of(self, inputs: StepInputs) -> Tensor:
        """Mean loss of the utterances of ``inputs``."""
        logits, _ = self.network(inputs.rows, inputs.lengths, inputs.seeds)
        return self.objective.loss(logits, inputs.truth)

    def head_task(self, base: EmotionClassifier, folder: Path) -> AbstractContextManager[HeadTask]:
        """The task of the model's head alone, on the encoder of ``base``, whose answers are cached in ``folder``."""
        self.model.encoder.load_state_dict(base.encoder.state_dict())
        return head_task(
            self.model, self.source, self.fold, self.objective, self.options, folder=folder, device=self.device
        )

    def validate(self) -> Validation:
        """Loss and confusion of the validation part."""
        part, size = self.fold.validation, self.options.batch_size
        answers = answer_loaded(self.model, self.loader, part, batch_size=size)
        return self.objective.validate(answers, part)

    def _part(self, batch: NDArray[np.int64]) -> tuple[NDArray[np.int64], float]:
        return self.ranks.part(batch, self.objective.weights(batch))

"""Codes of spectra from an autoencoder, and a recurrent network over them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch

from serfast.checks import integer, number, require
from serfast.evaluation.system import FoldContext, FoldOutcome
from serfast.features import ColumnSource, FeatureOptions, FrameSource, Normaliser, StandardisedSource
from serfast.models import EmotionClassifier, ModelOptions, StackedAutoencoder
from serfast.training import EpochRecord, TrainingOptions, answer
from serfast.training.autoencoding import EncodedSource, LayerTask, train_autoencoders
from serfast.training.classification import ClassificationTask, standardise
from serfast.training.loop import Run, run_in_turn
from serfast.training.objective import Objective
from serfast.training.row_steps import run_rows_side_by_side
from serfast.training.side_by_side import run_classifiers_side_by_side

__all__ = ["GhoshBottleneck"]

_AUTOENCODER, _CLASSIFIER = "autoencoder", "classifier"
_NOT_FOR_PRETRAINING = ("scheme", "class_weights", "label_smoothing", "tempo_change", "noise", "offset", "n_masked")
_FOR_BOTH_STAGES = ("normalisation", "seed")


@dataclass(frozen=True)
class GhoshBottleneck:
    """A stacked denoising autoencoder compresses spectra; a BLSTM with mean pooling and a decoder reads the codes.

    The autoencoder sees single frames of the logarithmic power spectrum, standardised, and no labels. It is trained
    layer by layer on the training part, each layer selected by its error on the validation part, and then frozen. The
    codes of its bottleneck are standardised with the training part. The values of all attributes but the kinds of layer
    are ours.

    Attributes:
        n_units: units of the autoencoder's layers, of which the last is the bottleneck: from 257 bins to about as many
            numbers as the paper has descriptors.
        corruption: share of the elements of each layer's input that is dropped in training.
        pretraining: of each layer of the autoencoder, with the seed and the normalisation of ``training``.
        model: the network over the codes.
        training: of that network.

    Raises:
        ValueError: if a value is out of range, ``pretraining`` asks for what needs labels, for augmentation, or for a
            seed or a normalisation of its own, or ``training`` for a greedy scheme.

    Source: Ghosh, Laksana, Morency and Scherer (2016), "Representation learning for speech emotion recognition".
    """

    n_units: tuple[int, ...] = (128, 64, 32)
    corruption: float = 0.2
    pretraining: TrainingOptions = field(default_factory=lambda: TrainingOptions(batch_size=4, learning_rate=1e-3))
    model: ModelOptions = field(default_factory=lambda: ModelOptions(pooling="mean", n_decoder=128))
    training: TrainingOptions = field(default_factory=TrainingOptions)

    def __post_init__(self) -> None:
        counted = bool(self.n_units) and all(integer("n_units", size) >= 1 for size in self.n_units)
        require("n_units", "be one or more numbers of at least 1", self.n_units, counted)
        require("corruption", "be in [0, 1)", self.corruption, 0 <= number("corruption", self.corruption) < 1)
        for name in _NOT_FOR_PRETRAINING:
            asked, default = getattr(self.pretraining, name), getattr(TrainingOptions(), name)
            require(f"pretraining.{name}", f"be {default!r} for an autoencoder", asked, asked == default)
        for name in _FOR_BOTH_STAGES:
            asked, default = getattr(self.pretraining, name), getattr(TrainingOptions(), name)
            require(f"pretraining.{name}", f"be {default!r}, for that of training counts", asked, asked == default)
        scheme = self.training.scheme
        require("training.scheme", "be 'joint' over frozen codes", scheme, scheme == "joint")

    @property
    def features(self) -> FeatureOptions:
        """The logarithmic power spectrum, beside the descriptors, which it does not read."""
        return FeatureOptions(log_power=True)

    @property
    def base(self) -> None:
        """None: it builds on no other system."""

    def to_dict(self) -> dict[str, Any]:
        """Every choice by name, JSON-safe."""
        pretraining = {f"pretraining_{name}": value for name, value in asdict(self.pretraining).items()}
        return {
            "system": "ghosh_bottleneck",
            "autoencoder": {"autoencoder_n_units": list(self.n_units), "corruption": self.corruption, **pretraining},
            "model": asdict(self.model),
            "training": asdict(self.training),
        }

    def fit(self, context: FoldContext) -> FoldOutcome:
        """Train the autoencoder on the frames of the training part, then the network on their codes."""
        run = partial(run_in_turn, on_epochs=[context.on_epoch])
        return _fit([(self, context)], run, run)[0]

    @staticmethod
    def fit_side_by_side(members: "Sequence[tuple[GhoshBottleneck, FoldContext]]") -> list[FoldOutcome]:
        """As :meth:`fit` of systems that differ in the seed only, each on a fold of one store, in the same steps.

        A layer of all autoencoders takes its steps together, and then the networks of all. On a GPU corruption and
        dropout draw other random numbers than in :meth:`fit`.

        Raises:
            ValueError: if the loss of a fold is not finite.
        """
        names = [context.title for _, context in members]
        on_epochs = [context.on_epoch for _, context in members]
        return _fit(
            members,
            partial(run_rows_side_by_side, names=names, on_epochs=on_epochs),
            partial(run_classifiers_side_by_side, names=names, on_epochs=on_epochs),
        )

    def _pretraining(self) -> TrainingOptions:
        return replace(self.pretraining, **{name: getattr(self.training, name) for name in _FOR_BOTH_STAGES})

    def _autoencoder(self, context: FoldContext) -> tuple[StackedAutoencoder, FrameSource]:
        """A new autoencoder, and the standardised spectra that it is to learn."""
        store, options = context.store, self._pretraining()
        bins = [name for name in store.feature_names if name.startswith("log_power_")]
        standardised = standardise(store, context.fold, options.normalisation)[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            autoencoder = StackedAutoencoder(len(bins), self.n_units, self.corruption)
        return autoencoder.to(context.device), ColumnSource(standardised, store.feature_names, bins)

    def _task(self, context: FoldContext, codes: FrameSource) -> ClassificationTask:
        objective = Objective(context.store, context.fold, self.training, context.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.training.seed)
            model = EmotionClassifier(self.n_units[-1], objective.n_emotions, self.model)
        return ClassificationTask(
            model.to(context.device), codes, context.fold, objective, self.training, context.device
        )

    def _outcome(
        self, context: FoldContext, task: ClassificationTask, history: Sequence[EpochRecord], seconds: float
    ) -> FoldOutcome:
        best_epoch = max(record.epoch for record in history if record.best)
        size = self.training.batch_size
        answers = answer(task.model, task.source, context.scored, batch_size=size, device=task.device)
        seconds += sum(record.seconds for record in history)
        return FoldOutcome(answers.probabilities, len(history), best_epoch, seconds)


def _fit(
    members: Sequence[tuple[GhoshBottleneck, FoldContext]], run_layers: Run[LayerTask], run: Run[ClassificationTask]
) -> list[FoldOutcome]:
    encoded = _encode(members, run_layers)
    tasks = [system._task(context, codes) for (system, context), (codes, _) in zip(members, encoded, strict=True)]
    folders = [context.folder / _CLASSIFIER for _, context in members]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    learned = zip(members, tasks, run(tasks, folders), encoded, strict=True)
    return [
        system._outcome(context, task, history, seconds) for (system, context), task, history, (_, seconds) in learned
    ]


def _encode(
    members: Sequence[tuple[GhoshBottleneck, FoldContext]], run: Run[LayerTask]
) -> list[tuple[FrameSource, float]]:
    """For each member the codes of the store's frames, standardised, and the seconds that training took."""
    begun = [system._autoencoder(context) for system, context in members]
    device = members[0][1].device
    seconds = train_autoencoders(
        [autoencoder for autoencoder, _ in begun],
        [spectra for _, spectra in begun],
        [context.fold for _, context in members],
        [system._pretraining() for system, _ in members],
        folders=[context.folder / _AUTOENCODER for _, context in members],
        device=device,
        run=run,
    )
    encoded: list[tuple[FrameSource, float]] = []
    for (_, context), (autoencoder, spectra), took in zip(members, begun, seconds, strict=True):
        codes = EncodedSource(spectra, autoencoder, device)
        encoded.append((StandardisedSource(codes, [Normaliser.fit(codes, context.fold.train)]), took))
    return encoded

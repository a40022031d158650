"""Codes of spectra from an autoencoder, and a recurrent network over them."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from serfast.checks import integer, number, require
from serfast.evaluation.system import FoldContext, FoldOutcome
from serfast.features import ColumnSource, FeatureOptions, FrameSource, Normaliser, StandardisedSource
from serfast.models import EmotionClassifier, ModelOptions, StackedAutoencoder
from serfast.training import TrainingOptions, answer, run_epochs
from serfast.training.autoencoding import EncodedSource, train_autoencoder
from serfast.training.classification import ClassificationTask, standardise
from serfast.training.objective import Objective

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

    @property
    def fit_side_by_side(self) -> None:
        """None: its folds are learned one after another."""

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
        codes, seconds = self._encode(context)
        objective = Objective(context.store, context.fold, self.training, context.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.training.seed)
            model = EmotionClassifier(self.n_units[-1], objective.n_emotions, self.model)
        model.to(context.device)
        folder = context.folder / _CLASSIFIER
        folder.mkdir(exist_ok=True)
        task = ClassificationTask(model, codes, context.fold, objective, self.training, context.device)
        history = run_epochs(task, self.training, folder=folder, device=context.device, on_epoch=context.on_epoch)
        seconds += sum(record.seconds for record in history)
        best_epoch = max(record.epoch for record in history if record.best)
        answers = answer(model, codes, context.scored, batch_size=self.training.batch_size, device=context.device)
        return FoldOutcome(answers.probabilities, len(history), best_epoch, seconds)

    def _encode(self, context: FoldContext) -> tuple[FrameSource, float]:
        """The codes of the store's frames, standardised, and the seconds that training took."""
        store, fold, device = context.store, context.fold, context.device
        options = replace(self.pretraining, **{name: getattr(self.training, name) for name in _FOR_BOTH_STAGES})
        bins = [name for name in store.feature_names if name.startswith("log_power_")]
        standardised = standardise(store, fold, options.normalisation)[1]
        spectra = ColumnSource(standardised, store.feature_names, bins)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            autoencoder = StackedAutoencoder(len(bins), self.n_units, self.corruption)
        seconds = train_autoencoder(
            autoencoder.to(device),
            spectra,
            fold,
            options,
            folder=context.folder / _AUTOENCODER,
            device=device,
            on_epoch=context.on_epoch,
        )
        codes = EncodedSource(spectra, autoencoder, device)
        return StandardisedSource(codes, [Normaliser.fit(codes, fold.train)]), seconds

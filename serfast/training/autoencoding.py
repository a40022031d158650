"""Training of a stacked denoising autoencoder, layer by layer, and frames seen through it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serfast.corpora import Fold
from serfast.features import FrameSource
from serfast.models import DenoisingLayer, StackedAutoencoder
from serfast.training.batches import NO_EMOTION, Batch, StepInputs, ordered_batches, shuffled_batches
from serfast.training.loading import BatchLoader, batch_loader
from serfast.training.loop import Run, Validation
from serfast.training.options import TrainingOptions
from serfast.training.row_steps import mean_loss_of_rows

__all__ = ["EncodedSource", "LayerTask", "train_autoencoders"]


class EncodedSource:
    """The utterances of ``source``, each frame replaced by its bottleneck code; no code depends on other frames."""

    def __init__(self, source: FrameSource, autoencoder: StackedAutoencoder, device: torch.device) -> None:
        self._source, self._autoencoder, self._device = source, autoencoder.eval(), device

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Frames of each utterance, (utterance,)."""
        return self._source.lengths

    @torch.inference_mode()
    def gather(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Codes of the utterances ``indices`` end to end, (row, unit)."""
        rows = torch.from_numpy(self._source.gather(indices)).to(self._device)
        return np.asarray(self._autoencoder.encode(rows).cpu().numpy())


def train_autoencoders(
    autoencoders: Sequence[StackedAutoencoder],
    sources: Sequence[FrameSource],
    folds: Sequence[Fold],
    options: Sequence[TrainingOptions],
    *,
    folders: Sequence[Path],
    device: torch.device,
    run: Run["LayerTask"],
) -> list[float]:
    """Train each layer on what the finished ones below it make of the training part of its fold.

    A layer learns to restore its whole input from what is left of it, and keeps the epoch with the least squared error
    on the validation part. Each has a folder of its own, so that a stopped run does no layer again.

    Args:
        autoencoders: of one depth, one for each fold, as they were initialised, on ``device``; left in evaluation mode
            with the selected weights.
        sources: standardised frames for each, (row, feature).
        folds: the utterances whose frames train and validate each; labels are not used.
        options: of every layer of each, which differ in the seed only; ``batch_size`` counts utterances.
        folders: where the folders of the layers of each are.
        device: where training runs.
        run: trains a layer of all.

    Returns:
        For each fold the seconds of all layers.
    """
    seconds = [0.0] * len(folds)
    for autoencoder in autoencoders:
        autoencoder.eval()
    for depth in range(len(autoencoders[0].layers)):
        stages = [folder / f"layer_{depth + 1}" for folder in folders]
        for stage in stages:
            stage.mkdir(parents=True, exist_ok=True)
        tasks = [
            LayerTask(autoencoder.layers[depth], autoencoder, depth, source, fold, own, device)
            for autoencoder, source, fold, own in zip(autoencoders, sources, folds, options, strict=True)
        ]
        for place, history in enumerate(run(tasks, stages)):
            seconds[place] += sum(record.seconds for record in history)
    return seconds


@dataclass(frozen=True)
class LayerTask:
    """The layer ``model`` of an autoencoder, trained on what the ``depth`` layers below it make of a source."""

    model: DenoisingLayer
    autoencoder: StackedAutoencoder
    depth: int
    source: FrameSource
    fold: Fold
    options: TrainingOptions
    device: torch.device

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
        self.loader.expect(batches)
        return batches

    def loss(self, batch: NDArray[np.int64], epoch: int) -> Tensor:
        """Mean squared error of the frames of the utterances ``batch``."""
        return self.loss_of(self.inputs(batch, epoch))

    def inputs(self, batch: NDArray[np.int64], epoch: int) -> StepInputs:
        """What the layers below make of the frames of the utterances ``batch``, all of which bear the label 0."""
        frames = self.loader.load(batch)
        zeros = torch.zeros_like(frames.lengths.on_device)
        return StepInputs(self._codes(frames), frames.lengths, zeros, zeros)

    def loss_of(self, inputs: StepInputs) -> Tensor:
        """Mean squared error of the rows of ``inputs``."""
        return mean_loss_of_rows(self, inputs)

    def rows_loss(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Mean squared error of rows (row, feature), without those that bear no label."""
        counts = labels != NO_EMOTION
        errors: Tensor = (self.model(rows) - rows).square().mean(dim=1)
        return (errors * counts).sum() / counts.sum()

    @torch.inference_mode()
    def validate(self) -> Validation:
        """Mean squared error of the frames of the validation part."""
        squares, n_elements = 0.0, 0
        for batch in ordered_batches(self.fold.validation, self.source.lengths, self.options.batch_size):
            rows = self._codes(self.loader.load(batch))
            squares += float((self.model(rows) - rows).square().sum(dtype=torch.float64))
            n_elements += rows.numel()
        return Validation(squares / n_elements)

    @torch.no_grad()
    def _codes(self, frames: Batch) -> Tensor:
        return self.autoencoder.encode(frames.features, depth=self.depth)

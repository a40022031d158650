"""Training of a stacked denoising autoencoder, layer by layer, and frames seen through it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (torch's own name)

from serfast.corpora import Fold
from serfast.features import FrameSource
from serfast.models import DenoisingLayer, StackedAutoencoder
from serfast.training.batches import ordered_batches, shuffled_batches
from serfast.training.loading import BatchLoader, batch_loader
from serfast.training.loop import EpochRecord, Validation, run_epochs
from serfast.training.options import TrainingOptions

__all__ = ["EncodedSource", "train_autoencoder"]


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


def train_autoencoder(
    autoencoder: StackedAutoencoder,
    source: FrameSource,
    fold: Fold,
    options: TrainingOptions,
    *,
    folder: Path,
    device: torch.device,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> float:
    """Train each layer on what the finished ones below it make of the training part of ``fold``.

    A layer learns to restore its whole input from what is left of it, and keeps the epoch with the least squared error
    on the validation part. Each has a folder of its own in ``folder``, so that a stopped run does no layer again.

    Args:
        autoencoder: as it was initialised, on ``device``; left in evaluation mode with the selected weights.
        source: standardised frames, (row, feature).
        fold: the utterances whose frames train and validate; labels are not used.
        options: of every layer; ``batch_size`` counts utterances.
        folder: where checkpoints are kept.
        device: where training runs.
        on_epoch: told of every epoch of every layer.

    Returns:
        The seconds of all layers.

    Raises:
        ValueError: if the loss is not finite.
    """
    seconds = 0.0
    autoencoder.eval()
    for depth, layer in enumerate(autoencoder.layers):
        stage = folder / f"layer_{depth + 1}"
        stage.mkdir(parents=True, exist_ok=True)
        task = _LayerTask(layer, autoencoder, depth, source, fold, options, device)
        history = run_epochs(task, options, folder=stage, device=device, on_epoch=on_epoch)
        seconds += sum(record.seconds for record in history)
    return seconds


@dataclass(frozen=True)
class _LayerTask:
    model: DenoisingLayer
    autoencoder: StackedAutoencoder
    depth: int
    source: FrameSource
    fold: Fold
    options: TrainingOptions
    device: torch.device

    @cached_property
    def loader(self) -> BatchLoader:
        return batch_loader(self.source, self.device)

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        options = self.options
        batches = shuffled_batches(
            self.fold.train, self.source.lengths, options.batch_size, seed=options.seed, epoch=epoch
        )
        self.loader.expect(batches)
        return batches

    def loss(self, batch: NDArray[np.int64], epoch: int) -> Tensor:
        rows = self._inputs(batch)
        return F.mse_loss(self.model(rows), rows)

    @torch.inference_mode()
    def validate(self) -> Validation:
        squares, n_elements = 0.0, 0
        for batch in ordered_batches(self.fold.validation, self.source.lengths, self.options.batch_size):
            rows = self._inputs(batch)
            squares += float((self.model(rows) - rows).square().sum(dtype=torch.float64))
            n_elements += rows.numel()
        return Validation(squares / n_elements)

    @torch.no_grad()
    def _inputs(self, batch: NDArray[np.int64]) -> Tensor:
        return self.autoencoder.encode(self.loader.load(batch).features, depth=self.depth)

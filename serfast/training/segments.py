"""Training of a segment network: every segment carries the emotion of its utterance."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serfast.corpora import Fold
from serfast.features import SegmentSource
from serfast.models import SegmentNetwork, softmax
from serfast.training.batches import StepInputs, load_batch
from serfast.training.inference import Answers
from serfast.training.loading import BatchLoader, batch_loader
from serfast.training.loop import Validation
from serfast.training.objective import Objective
from serfast.training.options import TrainingOptions
from serfast.training.row_steps import mean_loss_of_rows

__all__ = ["SegmentTask", "segment_posteriors"]


@torch.inference_mode()
def segment_posteriors(
    model: SegmentNetwork, source: SegmentSource, indices: Sequence[int], *, batch_size: int, device: torch.device
) -> NDArray[np.float64]:
    """Class posteriors (row, emotion) of the segments of the utterances ``indices``, end to end, by ``model`` in
    evaluation mode.
    """
    chosen = np.asarray(indices, dtype=np.int64)
    batches = np.split(chosen, range(batch_size, len(chosen), batch_size))
    logits = [model(load_batch(source, batch, device).features).cpu().numpy() for batch in batches]
    return softmax(np.concatenate(logits))


@dataclass(frozen=True)
class SegmentTask:
    """A segment network, trained on the segments of the training part; a step takes those of ``batch_size`` utterances.

    The epoch is selected by what the mean posterior of an utterance's segments says of the validation part.
    """

    model: SegmentNetwork
    source: SegmentSource
    fold: Fold
    objective: Objective
    options: TrainingOptions
    device: torch.device

    @cached_property
    def loader(self) -> BatchLoader:
        """What loads batches of the source."""
        return batch_loader(self.source, self.device)

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        """Utterances of any length, in an order of the epoch's own."""
        order = np.random.default_rng([self.options.seed, epoch]).permutation(np.asarray(self.fold.train))
        batches = np.split(order, range(self.options.batch_size, len(order), self.options.batch_size))
        self.loader.expect(batches)
        return batches

    def loss(self, batch: NDArray[np.int64], epoch: int) -> Tensor:
        """Mean loss of the segments of the utterances ``batch``."""
        return self.loss_of(self.inputs(batch, epoch))

    def inputs(self, batch: NDArray[np.int64], epoch: int) -> StepInputs:
        """Segments (row, input) of the utterances ``batch``, and their emotions."""
        segments = self.loader.load(batch)
        no_seeds = torch.zeros_like(segments.lengths.on_device)
        return StepInputs(segments.features, segments.lengths, no_seeds, self.objective.truth(batch))

    def loss_of(self, inputs: StepInputs) -> Tensor:
        """Mean loss of the segments of ``inputs``."""
        return mean_loss_of_rows(self, inputs)

    def rows_loss(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of segments (row, input) of utterances with the emotions ``labels`` (row,)."""
        return self.objective.loss(self.model(rows), labels)

    def validate(self) -> Validation:
        """Loss and confusion of the mean posteriors of the validation part."""
        part = self.fold.validation
        posteriors = segment_posteriors(
            self.model, self.source, part, batch_size=self.options.batch_size, device=self.device
        )
        limits = np.cumsum(self.source.lengths[list(part)])[:-1]
        means = np.stack([rows.mean(axis=0) for rows in np.split(posteriors, limits)])
        logits = np.log(np.maximum(means, np.finfo(np.float64).tiny)).astype(np.float32)
        return self.objective.validate(Answers(logits, []), part)

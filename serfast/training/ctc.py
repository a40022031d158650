"""Training of a frame classifier on label sequences of which only the order, not the frames, is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (torch's own name)
from torch.nn.utils.rnn import pad_sequence

from serfast.corpora import Fold
from serfast.features import FrameSource
from serfast.models import FrameClassifier
from serfast.ops import Lengths
from serfast.training.augmentation import augment
from serfast.training.batches import load_batch, ordered_batches, shuffled_batches
from serfast.training.inference import Answers
from serfast.training.loading import BatchLoader, batch_loader
from serfast.training.loop import EpochRecord, Validation, run_epochs
from serfast.training.objective import Objective
from serfast.training.options import TrainingOptions

__all__ = ["count_regions", "ctc_loss", "frame_log_posteriors", "train_frame_classifier"]


def count_regions(voiced: NDArray[np.float32], *, n_least: int) -> int:
    """Runs of at least ``n_least`` neighbouring voiced frames of an utterance, and 1 where there is none.

    Args:
        voiced: 0 in an unvoiced frame and another number in a voiced one, shape (frame,).
        n_least: frames of a run that counts, at least 1.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], voiced != 0, [False]])))
    return max(1, int(np.count_nonzero(edges[1::2] - edges[::2] >= n_least)))


def ctc_loss(log_posteriors: Tensor, lengths: Lengths, emotions: Tensor, n_labels: Tensor) -> Tensor:
    r"""Connectionist temporal classification of utterances whose labels are one emotion, several times over.

    .. math:: -\frac{1}{U} \sum_u \frac{1}{K_u} \log \sum_{\pi \to (e_u)^{K_u}} \prod_t P_t(\pi_t)

    A path :math:`\pi` names a class for every frame. It leads to the label sequence that is left when repetitions are
    merged and then Null, the last class, is taken out: emotions that follow each other need Null between them.

    Args:
        log_posteriors: :math:`\log P_t`, packed, shape (row, emotion + 1), Null last.
        lengths: frames of each utterance, packed.
        emotions: :math:`e_u`, shape (batch,), int64, on the device of the posteriors.
        n_labels: :math:`K_u`, shape (batch,), int64, at least 1, on the CPU. Of more labels than an utterance has
            room for, :math:`(T_u + 1) / 2`, the rest is left out.

    Source: Graves, Fernández, Gomez and Schmidhuber (2006), "Connectionist temporal classification".
    """
    n_labels = torch.minimum(n_labels, (lengths.lengths + 1) // 2)
    padded = pad_sequence(log_posteriors.split(lengths.lengths.tolist()))  # (time, batch, class)
    counts = n_labels.to(emotions.device, non_blocking=True)
    labels = emotions.repeat_interleave(counts, output_size=int(n_labels.sum()))
    return F.ctc_loss(padded, labels, lengths.lengths, n_labels, blank=log_posteriors.shape[1] - 1)


@torch.inference_mode()
def frame_log_posteriors(
    model: FrameClassifier, source: FrameSource, indices: Sequence[int], *, batch_size: int, device: torch.device
) -> list[NDArray[np.float32]]:
    """Log posteriors (frame, class) that ``model``, in evaluation mode, gives for utterances of a source, in order."""
    chosen = np.asarray(indices, dtype=np.int64)
    lengths = source.lengths[chosen]
    found: dict[int, NDArray[np.float32]] = {}
    for places in ordered_batches(range(len(chosen)), lengths, batch_size):
        batch = load_batch(source, chosen[places], device)
        rows = model(batch.features, batch.lengths).cpu().numpy()
        found.update(zip(places.tolist(), np.split(rows, np.cumsum(lengths[places])[:-1]), strict=True))
    return [found[place] for place in range(len(chosen))]


def train_frame_classifier(
    model: FrameClassifier,
    source: FrameSource,
    fold: Fold,
    n_labels: NDArray[np.int64],
    objective: Objective,
    options: TrainingOptions,
    *,
    folder: Path,
    device: torch.device,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> tuple[EpochRecord, ...]:
    """Train ``model`` with :func:`ctc_loss` on the training part of ``fold``; its last class is Null.

    The epoch is kept that has the best UA on the validation part when each utterance is given the emotion with the
    largest mean posterior over its frames. Stopping and resuming are those of
    :func:`serfast.training.loop.run_epochs`; on CUDA, torch's gradient of this loss is the same to rounding only.

    Args:
        model: as it was initialised, on ``device``; left in evaluation mode with the selected weights.
        source: standardised frames, (row, feature).
        fold: what trains and validates.
        n_labels: how often each utterance of the source bears its emotion, (utterance,), at least 1.
        objective: whose emotions these are, and how the validation is scored.
        options: of the training. Weights of emotions and label smoothing are not used.
        folder: where the checkpoint is kept.
        device: where training runs.
        on_epoch: told of every epoch.

    Raises:
        ValueError: if the loss is not finite.
    """
    task = _CtcTask(model, source, fold, torch.from_numpy(n_labels), objective, options, device)
    return run_epochs(task, options, folder=folder, device=device, on_epoch=on_epoch)


@dataclass(frozen=True)
class _CtcTask:
    model: FrameClassifier
    source: FrameSource
    fold: Fold
    n_labels: Tensor
    objective: Objective
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
        features, lengths = augment(self.loader.load(batch), self.options)
        emotions = torch.from_numpy(self.objective.labels[batch]).to(self.device, non_blocking=True)
        return ctc_loss(self.model(features, lengths), lengths, emotions, self.n_labels[batch])

    def validate(self) -> Validation:
        part, size = self.fold.validation, self.options.batch_size
        found = frame_log_posteriors(self.model, self.source, part, batch_size=size, device=self.device)
        means = [torch.from_numpy(rows[:, :-1]).double().logsumexp(0) for rows in found]
        return self.objective.validate(Answers(torch.stack(means).float().numpy(), []), part)

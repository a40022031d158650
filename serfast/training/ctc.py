"""Training of a frame classifier on label sequences of which only the order, not the frames, is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (torch's own name)
from torch.nn.utils.rnn import pad_sequence

from serfast.corpora import Fold
from serfast.features import FrameSource
from serfast.models import BLSTM, FrameClassifier
from serfast.ops import Lengths
from serfast.training.augmentation import augment
from serfast.training.batches import load_batch, ordered_batches, shuffled_batches
from serfast.training.inference import Answers
from serfast.training.joint_steps import encode, join_rows, plain_steps, run_side_by_side
from serfast.training.loading import BatchLoader, batch_loader
from serfast.training.loop import EpochRecord, Step, Validation
from serfast.training.objective import Objective
from serfast.training.options import TrainingOptions

__all__ = ["CtcTask", "count_regions", "ctc_loss", "frame_log_posteriors", "run_ctc_side_by_side"]


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


@dataclass(frozen=True)
class CtcTask:
    """A frame classifier, trained with :func:`ctc_loss` on the training part of ``fold``; its last class is Null.

    The epoch is kept that has the best UA on the validation part when each utterance is given the emotion with the
    largest mean posterior over its frames. On CUDA, torch's gradient of this loss is the same to rounding only.

    Attributes:
        model: as it was initialised, on ``device``.
        source: standardised frames, (row, feature).
        fold: what trains and validates.
        n_labels: how often each utterance of the source bears its emotion, (utterance,), int64, at least 1, on the CPU.
        objective: whose emotions these are, and how the validation is scored.
        options: of the training. Weights of emotions and label smoothing are not used.
        device: where training runs.
    """

    model: FrameClassifier
    source: FrameSource
    fold: Fold
    n_labels: Tensor
    objective: Objective
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
        """Mean loss of the utterances ``batch``, augmented."""
        features, lengths = self.features(batch)
        return self.sequence_loss(self.model(features, lengths), lengths, batch)

    def features(self, batch: NDArray[np.int64]) -> tuple[Tensor, Lengths]:
        """Features (row, feature) and lengths of the utterances ``batch``, augmented."""
        return augment(self.loader.load(batch), self.options)

    def sequence_loss(self, log_posteriors: Tensor, lengths: Lengths, batch: NDArray[np.int64]) -> Tensor:
        """Mean loss of the utterances ``batch``, from the log posteriors (row, class) of their frames."""
        return ctc_loss(log_posteriors, lengths, self.objective.truth(batch), self.n_labels[batch])

    def validate(self) -> Validation:
        """Loss and confusion of the mean posteriors of the validation part."""
        part, size = self.fold.validation, self.options.batch_size
        found = frame_log_posteriors(self.model, self.source, part, batch_size=size, device=self.device)
        means = [torch.from_numpy(rows[:, :-1]).double().logsumexp(0) for rows in found]
        return self.objective.validate(Answers(torch.stack(means).float().numpy(), []), part)


def run_ctc_side_by_side(
    tasks: Sequence[CtcTask],
    folders: Sequence[Path],
    *,
    names: Sequence[str],
    on_epochs: Sequence[Callable[[EpochRecord], None]],
) -> list[tuple[EpochRecord, ...]]:
    """As :func:`serfast.training.joint_steps.run_side_by_side`, with one pass of the encoder for all in a step.

    The models are of one shape.
    """
    with torch.device("meta"):  # its parameters are never its own
        layer = BLSTM(1, 1, n_layers=1)
    make = plain_steps(partial(_joint_losses, layer))
    return run_side_by_side(tasks, folders, make, names=names, on_epochs=on_epochs)


def _joint_losses(layer: BLSTM, tasks: Sequence[CtcTask], steps: Sequence[Step]) -> list[Tensor]:
    parts = []
    for task, step in zip(tasks, steps, strict=True):
        with step.stream:
            parts.append(task.features(step.batch))
    inputs = join_rows(parts, [step.stream for step in steps])
    hidden = encode(layer, [task.model.encoder for task in tasks], inputs).split(inputs.n_rows)
    losses = []
    for task, step, own, (_, lengths) in zip(tasks, steps, hidden, parts, strict=True):
        with step.stream:
            log_posteriors = task.model.classify(own)
        losses.append(task.sequence_loss(log_posteriors, lengths, step.batch))
    return losses

"""Training steps of tasks that learn row by row: the loss of a row depends on no other row."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from serfast.ops import Lengths
from serfast.training.batches import StepInputs
from serfast.training.joint_steps import JointInputs, packed_steps, run_side_by_side
from serfast.training.loop import EpochRecord, PackedTask

__all__ = ["RowTask", "mean_loss_of_rows", "run_rows_side_by_side"]


class RowTask(PackedTask, Protocol):
    """A packed task, every row of which bears the label of its utterance."""

    def rows_loss(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of rows (row, ...) with labels (row,), with its graph; those of NO_EMOTION count for nothing."""


def mean_loss_of_rows(task: RowTask, inputs: StepInputs) -> Tensor:
    """What :meth:`PackedTask.loss_of` is for a task of rows."""
    return task.rows_loss(inputs.rows, _labels(inputs.truth, inputs.lengths))


def run_rows_side_by_side(
    tasks: Sequence[RowTask],
    folders: Sequence[Path],
    *,
    names: Sequence[str],
    on_epochs: Sequence[Callable[[EpochRecord], None]],
) -> list[tuple[EpochRecord, ...]]:
    """As :func:`serfast.training.joint_steps.run_side_by_side`; each task computes its own loss."""
    make = packed_steps(_joint_losses, tasks[0].device)
    return run_side_by_side(tasks, folders, make, names=names, on_epochs=on_epochs)


def _joint_losses(tasks: Sequence[RowTask], inputs: JointInputs) -> list[Tensor]:
    rows = inputs.rows.split(inputs.n_rows)
    labels = _labels(torch.cat(list(inputs.truths)), inputs.lengths).split(inputs.n_rows)
    losses = []
    for task, stream, own_rows, own_labels in zip(tasks, inputs.streams, rows, labels, strict=True):
        with stream:
            losses.append(task.rows_loss(own_rows, own_labels))
    return losses


def _labels(truth: Tensor, lengths: Lengths) -> Tensor:
    return truth.repeat_interleave(lengths.on_device, output_size=lengths.n_rows)

"""Training of several tasks in the same steps of one process.

Each task has its own steps, as :func:`serfast.training.loop.training_steps` yields them. What is made together are the
losses of one step of every task, their gradients and the updates; on CUDA that is one graph where the tasks are packed.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.func import functional_call

from serfast.models import BLSTM, LSTM
from serfast.ops import Groups, Lengths
from serfast.training.batches import StepInputs
from serfast.training.captured_step import CapturedSteps, CudaGraphs, Graphs
from serfast.training.loop import AnyTask, EpochRecord, PackedTask, Step, training_steps

__all__ = [
    "CapturedJointSteps",
    "JointInputs",
    "JointRows",
    "encode",
    "join_rows",
    "packed_steps",
    "plain_steps",
    "run_side_by_side",
]

AnyPackedTask = TypeVar("AnyPackedTask", bound=PackedTask)


def run_side_by_side(
    tasks: Sequence[AnyTask],
    folders: Sequence[Path],
    make: Callable[[Sequence[AnyTask], Sequence[Step]], Tensor],
    *,
    names: Sequence[str],
    on_epochs: Sequence[Callable[[EpochRecord], None]],
) -> list[tuple[EpochRecord, ...]]:
    """Train all tasks in the same steps and return their epochs.

    ``make(tasks, steps)`` makes one step of each of those tasks that are not finished, and returns the losses (task,).
    A task that stops early leaves the steps of the others; the seconds of a step are shared out evenly.

    Raises:
        ValueError: if the loss of a task is not finite, with its name of ``names``.
    """
    trainings = [
        training_steps(task, task.options, folder=folder, device=task.device, on_epoch=on_epoch)
        for task, folder, on_epoch in zip(tasks, folders, on_epochs, strict=True)
    ]
    wanted: dict[int, Step] = {}
    histories: dict[int, tuple[EpochRecord, ...]] = {}

    def advance(place: int, next_step: Callable[[], Step]) -> None:
        try:
            wanted[place] = next_step()
        except StopIteration as end:
            wanted.pop(place, None)
            histories[place] = end.value
        except ValueError as error:
            raise ValueError(f"fold {names[place]}: {error}") from error

    for place, training in enumerate(trainings):
        advance(place, training.__next__)
    while wanted:
        started = time.monotonic()
        places = list(wanted)
        losses = make([tasks[place] for place in places], list(wanted.values()))
        seconds = (time.monotonic() - started) / len(places)
        for place, loss in zip(places, losses, strict=True):
            advance(place, partial(trainings[place].send, (loss, seconds)))
    return [histories[place] for place in range(len(tasks))]


def plain_steps(
    losses_of: Callable[[Sequence[AnyTask], Sequence[Step]], list[Tensor]],
) -> Callable[[Sequence[AnyTask], Sequence[Step]], Tensor]:
    """What makes joint steps as they come; ``losses_of(tasks, steps)`` are their losses, each with its graph."""

    def make(tasks: Sequence[AnyTask], steps: Sequence[Step]) -> Tensor:
        return _learn(losses_of(tasks, steps), steps)

    return make


@dataclass(frozen=True)
class JointRows:
    """Utterances of several tasks end to end.

    Attributes:
        rows: of all, (row, ...).
        lengths: of the utterances.
        groups: the task of each utterance.
        n_rows: rows of each task.
        streams: of random numbers, one of each task.
    """

    rows: Tensor
    lengths: Lengths
    groups: Groups
    n_rows: list[int]
    streams: Sequence[AbstractContextManager[None]]


@dataclass(frozen=True)
class JointInputs(JointRows):
    """What the steps of several packed tasks read: also seeds of dropout masks (batch,), and each task's emotions."""

    seeds: Tensor
    truths: Sequence[Tensor]


def join_rows(parts: Sequence[tuple[Tensor, Lengths]], streams: Sequence[AbstractContextManager[None]]) -> JointRows:
    """The rows (row, ...) and lengths of the utterances of each task, put together."""
    rows = torch.cat([own for own, _ in parts])
    lengths = Lengths.packed(torch.cat([own.lengths for _, own in parts]), device=rows.device)
    groups = _groups([len(own.lengths) for _, own in parts], rows.device)
    return JointRows(rows, lengths, groups, [len(own) for own, _ in parts], streams)


def packed_steps(
    losses_of: Callable[[Sequence[AnyPackedTask], JointInputs], list[Tensor]], device: torch.device
) -> Callable[[Sequence[AnyPackedTask], Sequence[Step]], Tensor]:
    """What makes joint steps of packed tasks: on CUDA as graphs. ``losses_of(tasks, inputs)`` reads nothing else."""
    if device.type == "cuda":
        return CapturedJointSteps(losses_of, partial(CudaGraphs, device))

    def losses(tasks: Sequence[AnyPackedTask], steps: Sequence[Step]) -> list[Tensor]:
        return losses_of(tasks, _joint(_inputs(tasks, steps), [step.stream for step in steps]))

    return plain_steps(losses)


class CapturedJointSteps(Generic[AnyPackedTask]):
    """Makes joint steps of packed tasks as ``graphs()``: new ones whenever a task has left.

    Every task gets as many utterances and rows as any, so that nothing but what tensors hold differs from step to step.
    All random numbers of a graph are drawn from the stream of the first task.
    """

    def __init__(
        self, losses_of: Callable[[Sequence[AnyPackedTask], JointInputs], list[Tensor]], graphs: Callable[[], Graphs]
    ) -> None:
        self._losses_of, self._graphs = losses_of, graphs
        self._made: tuple[CapturedSteps, Groups] | None = None

    def __call__(self, tasks: Sequence[AnyPackedTask], steps: Sequence[Step]) -> Tensor:
        """The losses (task,) of ``steps``, which are made."""
        if self._made is None or self._made[1].n_groups != len(tasks):
            captured = CapturedSteps(tasks[0].options.batch_size, self._graphs())
            self._made = captured, _groups([captured.n_utterances] * len(tasks), tasks[0].device)
        captured, groups = self._made

        def whole(room: StepInputs) -> Tensor:
            return _learn(self._losses_of(tasks, _shared_out(room, groups)), steps)

        inputs = _inputs(tasks, steps)
        with steps[0].stream:
            return captured.make(inputs, whole)


def encode(layer: BLSTM | LSTM, encoders: Sequence[BLSTM | LSTM], inputs: JointRows) -> Tensor:
    """Hidden vectors (row, unit) of ``inputs``, each task's by its own of ``encoders``, in one pass.

    ``layer`` is an encoder of one layer, which computes each layer with the parameters that it is lent.
    """
    hidden = inputs.rows
    for depth in range(encoders[0].n_layers):
        if depth > 0:
            parts = []
            for encoder, stream, own in zip(encoders, inputs.streams, hidden.split(inputs.n_rows), strict=True):
                with stream:
                    parts.append(encoder.dropout(own))
            hidden = torch.cat(parts)
        names = {name: name.replace("_l0", f"_l{depth}") for name, _ in layer.named_parameters()}
        stacked = {
            name: torch.stack([encoder.get_parameter(own) for encoder in encoders]) for name, own in names.items()
        }
        hidden = functional_call(layer, stacked, (hidden, inputs.lengths, inputs.groups))
    return hidden


def _learn(losses: Sequence[Tensor], steps: Sequence[Step]) -> Tensor:
    joint = torch.stack(list(losses))
    joint.sum().backward()
    for step in steps:
        step.update()
    return joint.detach()


def _inputs(tasks: Sequence[PackedTask], steps: Sequence[Step]) -> list[StepInputs]:
    parts = []
    for task, step in zip(tasks, steps, strict=True):
        with step.stream:
            parts.append(task.inputs(step.batch, step.epoch))
    return parts


def _joint(parts: Sequence[StepInputs], streams: Sequence[AbstractContextManager[None]]) -> JointInputs:
    joint = join_rows([(own.rows, own.lengths) for own in parts], streams)
    seeds = torch.cat([own.seeds for own in parts])
    return JointInputs(**vars(joint), seeds=seeds, truths=[own.truth for own in parts])


def _shared_out(room: StepInputs, groups: Groups) -> JointInputs:
    """What the utterances of ``room``, as many of each task, are to their tasks."""
    n_tasks = groups.n_groups
    return JointInputs(
        room.rows,
        room.lengths,
        groups,
        [room.lengths.n_rows // n_tasks] * n_tasks,
        [nullcontext()] * n_tasks,
        room.seeds,
        room.truth.chunk(n_tasks),
    )


def _groups(n_utterances: Sequence[int], device: torch.device) -> Groups:
    of_utterance = torch.repeat_interleave(torch.arange(len(n_utterances)), torch.tensor(n_utterances))
    return Groups.of(of_utterance, len(of_utterance), len(n_utterances), device)

"""The training loop: epochs of a task, model selection, checkpoints, resumption."""

import json
import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from serfast import atomic, metrics
from serfast.training.batches import StepInputs
from serfast.training.captured_step import CapturedSteps, CudaGraphs
from serfast.training.checkpoint import load_tensors, merge_tensors, save_tensors, select_tensors
from serfast.training.distributed import ALONE, Ranks
from serfast.training.options import TrainingOptions
from serfast.training.random_stream import RandomStream

__all__ = [
    "CHECKPOINT",
    "AnyTask",
    "EpochRecord",
    "FoldTask",
    "PackedTask",
    "Run",
    "Step",
    "Task",
    "TrainingSteps",
    "Validation",
    "captured",
    "make_steps",
    "run_epochs",
    "run_in_turn",
    "training_steps",
]

CHECKPOINT, METRICS = "checkpoint.safetensors", "metrics.jsonl"

_WARM_UP = 0.3  # of all steps, in one cycle
_FIRST_RATE, _LAST_RATE = 1 / 25, 1e-4  # of the largest


@dataclass(frozen=True)
class Validation:
    """Loss on the validation part and, where the task classifies, its confusion matrix (truth, prediction)."""

    loss: float
    confusion: NDArray[np.int64] | None = None


class Task(Protocol):
    """What the loop trains: the parameters of ``model`` that require a gradient."""

    @property
    def model(self) -> nn.Module:
        """All that is trained, selected and saved."""

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        """The numbers of the utterances of each step of an epoch, counted from 1."""

    def loss(self, batch: NDArray[np.int64], epoch: int) -> Tensor:
        """Mean loss of a batch, with its graph."""

    def validate(self) -> Validation:
        """How well the model, in evaluation mode, does on the validation part."""


class FoldTask(Task, Protocol):
    """A task that holds how it is to be trained, and where."""

    @property
    def options(self) -> TrainingOptions:
        """Of the training."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""


@runtime_checkable
class PackedTask(FoldTask, Protocol):
    """A task whose loss is computed from inputs on the device alone."""

    def inputs(self, batch: NDArray[np.int64], epoch: int) -> StepInputs:
        """What the loss of a batch is computed from."""

    def loss_of(self, inputs: StepInputs) -> Tensor:
        """Mean loss of the utterances of ``inputs``, with its graph. It reads no value of them on the host."""


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch brought: mean training loss, scores on the validation part, and the time it took.

    The scores are None for a task that does not classify; ``n_epochs`` is how many epochs there can be.
    """

    epoch: int
    n_epochs: int
    loss: float
    validation_loss: float
    validation_ua: float | None
    validation_wa: float | None
    validation_macro_f1: float | None
    best: bool
    seconds: float


@dataclass(frozen=True)
class Step:
    """One step that training wants: the loss of ``batch``, whose random numbers come from ``stream``.

    ``update``, the same in all steps, is to be called when the parameters hold the gradients.
    """

    batch: NDArray[np.int64]
    epoch: int
    stream: RandomStream
    update: Callable[[], None]


AnyTask = TypeVar("AnyTask", bound=FoldTask)

Run: TypeAlias = Callable[[Sequence[AnyTask], Sequence[Path]], Sequence[tuple[EpochRecord, ...]]]
"""What trains tasks of several folds, with checkpoints in the folders given, and returns the epochs of each."""

TrainingSteps: TypeAlias = Generator[Step, tuple[Tensor, float], tuple[EpochRecord, ...]]


@dataclass
class _State:
    model: nn.Module
    optimizer: torch.optim.AdamW
    average: dict[str, Tensor]
    share: Tensor  # of the last weights in their average
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[EpochRecord] = field(default_factory=list)

    @property
    def best_epoch(self) -> int:
        return max((record.epoch for record in self.history if record.best), default=0)

    def finished(self, options: TrainingOptions) -> bool:
        n_epochs = len(self.history)
        return n_epochs >= options.n_epochs or n_epochs - self.best_epoch >= options.patience


def run_epochs(
    task: Task,
    options: TrainingOptions,
    *,
    folder: Path,
    device: torch.device,
    ranks: Ranks = ALONE,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> tuple[EpochRecord, ...]:
    """Train the task's model and leave in it the weights of the selected epoch, in evaluation mode.

    The best epoch is that of the highest validation UA; ties go to the lower validation loss. After every epoch the
    whole state is written to ``folder``; called again with the same arguments, training goes on behind the last
    complete epoch and, on the CPU, ends with the same bits as a run that was never interrupted.

    All of ``ranks`` call this together; the first validates and writes, and ``folder`` is the same to all. One process
    alone makes the steps of a :class:`PackedTask` on CUDA as graphs, from the loss to the average of the weights.

    Raises:
        ValueError: if the loss is not finite, or ``folder`` is not the same to all.
    """
    training = training_steps(task, options, folder=folder, device=device, ranks=ranks, on_epoch=on_epoch)
    make = partial(_plain, task)
    if device.type == "cuda" and ranks.size == 1 and isinstance(task, PackedTask):
        make = partial(captured, task, CapturedSteps(options.batch_size, CudaGraphs(device)))
    return make_steps(training, make)


def run_in_turn(
    tasks: Sequence[FoldTask], folders: Sequence[Path], *, on_epochs: Sequence[Callable[[EpochRecord], None] | None]
) -> list[tuple[EpochRecord, ...]]:
    """What :func:`run_epochs` returns for each of ``tasks``, which are trained one after another in this process."""
    return [
        run_epochs(task, task.options, folder=folder, device=task.device, on_epoch=on_epoch)
        for task, folder, on_epoch in zip(tasks, folders, on_epochs, strict=True)
    ]


def make_steps(training: TrainingSteps, make: Callable[[Step], Tensor]) -> tuple[EpochRecord, ...]:
    """Have ``make`` make every step that ``training`` wants, and return the epochs. It returns the step's loss."""
    try:
        step = next(training)
        while True:
            started = time.monotonic()
            loss = make(step)
            step = training.send((loss, time.monotonic() - started))
    except StopIteration as end:
        history: tuple[EpochRecord, ...] = end.value
        return history


def _plain(task: Task, step: Step) -> Tensor:
    with step.stream:
        loss = task.loss(step.batch, step.epoch)
    loss.backward()
    step.update()
    return loss.detach()


def captured(task: PackedTask, steps: CapturedSteps, step: Step) -> Tensor:
    """Make ``step`` by one of ``steps`` and return its loss. What its inputs are is not captured."""

    def whole(inputs: StepInputs) -> Tensor:
        loss = task.loss_of(inputs)
        loss.backward()
        step.update()
        return loss.detach()

    with step.stream:
        return steps.make([task.inputs(step.batch, step.epoch)], whole)


def training_steps(
    task: Task,
    options: TrainingOptions,
    *,
    folder: Path,
    device: torch.device,
    ranks: Ranks = ALONE,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> TrainingSteps:
    """The steps of :func:`run_epochs`, which somebody else makes.

    Yields each step that is to be made, and wants to be sent its loss, when its update was made, and the seconds it
    took. Returns the epochs.
    """
    trained = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
    on_cuda = device.type == "cuda"
    optimizer = torch.optim.AdamW(
        trained,
        lr=torch.tensor(options.learning_rate, device=device) if on_cuda else options.learning_rate,
        weight_decay=options.weight_decay,
        fused=True,
        capturable=on_cuda,
    )
    average = _copy(task.model) if options.averaging else {}
    state = _State(task.model, optimizer, average, torch.zeros((), device=device))
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists():
        _restore(state, checkpoint)
    if ranks.mean(len(state.history)) != len(state.history):
        raise ValueError(f"folder must be the same to all processes, got {folder}")
    while not state.finished(options):
        own_loss, seconds = yield from _train_epoch(state, task, options, device, ranks.rank)
        loss = ranks.mean(own_loss)
        if not np.isfinite(loss):
            raise ValueError(
                f"learning_rate must keep the loss finite, got loss {loss} at rate {options.learning_rate}"
            )
        record = _validate(state, task, options, ranks, loss=loss, seconds=seconds)
        state.history.append(record)
        if ranks.rank == 0:
            _save(state, checkpoint)
        if on_epoch is not None:
            on_epoch(record)
    state.model.load_state_dict(state.best)
    state.model.eval()
    return tuple(state.history)


def _train_epoch(
    state: _State, task: Task, options: TrainingOptions, device: torch.device, rank: int
) -> Generator[Step, tuple[Tensor, float], tuple[float, float]]:
    epoch = len(state.history) + 1
    batches = task.batches(epoch)
    total, n_trained, seconds = torch.zeros((), device=device), 0, 0.0
    update = partial(_update, state, options)
    stream = RandomStream([options.seed, epoch, rank], device)
    state.model.train()
    for place, batch in enumerate(batches):
        _prepare(state, options, (epoch - 1) * len(batches) + place, options.n_epochs * len(batches))
        loss, took = yield Step(batch, epoch, stream, update)
        total += loss * len(batch)
        n_trained += len(batch)
        seconds += took
    started = time.monotonic()
    mean = float(total) / n_trained  # waits for a GPU that is still at work
    return mean, seconds + time.monotonic() - started


def _prepare(state: _State, options: TrainingOptions, n_steps: int, n_all: int) -> None:
    """Set what the update that follows ``n_steps`` of ``n_all`` needs, without waiting for the device."""
    group, rate = state.optimizer.param_groups[0], _rate(options, n_steps / n_all)
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate
    # The first steps weigh more than the decay says, so that the random initial weights are soon forgotten.
    state.share.fill_(1 - min(options.averaging, (1 + n_steps) / (10 + n_steps)))
    state.optimizer.zero_grad()


def _update(state: _State, options: TrainingOptions) -> None:
    # A graph captures this: what changes from step to step is in tensors.
    torch.nn.utils.clip_grad_norm_(state.optimizer.param_groups[0]["params"], options.gradient_clip)
    state.optimizer.step()
    for name, tensor in state.model.state_dict().items() if state.average else ():
        state.average[name].lerp_(tensor, state.share)


def _rate(options: TrainingOptions, progress: float) -> float:
    """Step size when ``progress`` of all steps, 0 to 1, have been made."""
    if options.schedule == "constant":
        return options.learning_rate
    if progress < _WARM_UP:
        share, first, last = progress / _WARM_UP, _FIRST_RATE, 1.0
    else:
        share, first, last = (progress - _WARM_UP) / (1 - _WARM_UP), 1.0, _LAST_RATE
    return options.learning_rate * (last + (first - last) * (1 + math.cos(math.pi * share)) / 2)


def _validate(
    state: _State, task: Task, options: TrainingOptions, ranks: Ranks, *, loss: float, seconds: float
) -> EpochRecord:
    started = time.monotonic()
    last = _copy(state.model) if state.average else {}
    if state.average:
        state.model.load_state_dict(state.average)
    state.model.eval()
    found = ranks.first(task.validate)
    ua, wa, macro_f1 = (None, None, None) if found.confusion is None else _scores(found.confusion)
    former = [_rank(record.validation_ua, record.validation_loss) for record in state.history]
    best = options.selection == "last" or not former or _rank(ua, found.loss) > max(former)
    if best:
        state.best = _copy(state.model)
    if state.average:
        state.model.load_state_dict(last)
    seconds += time.monotonic() - started
    return EpochRecord(len(state.history) + 1, options.n_epochs, loss, found.loss, ua, wa, macro_f1, best, seconds)


def _scores(confusion: NDArray[np.int64]) -> tuple[float, float, float]:
    return float(metrics.ua(confusion)), float(metrics.wa(confusion)), float(metrics.macro_f1(confusion))


def _rank(validation_ua: float | None, validation_loss: float) -> tuple[float, float]:
    return validation_ua or 0.0, -validation_loss


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _save(state: _State, checkpoint: Path) -> None:
    moments = {
        f"{index}.{name}": tensor
        for index, slots in state.optimizer.state_dict()["state"].items()
        for name, tensor in slots.items()
    }
    tensors = merge_tensors(model=state.model.state_dict(), best=state.best, average=state.average, optimizer=moments)
    history = [asdict(record) for record in state.history]
    # The metrics first: a stop in between repeats the epoch and its line, and loses neither.
    lines = "".join(json.dumps(record) + "\n" for record in history)
    atomic.write_bytes(checkpoint.with_name(METRICS), lines.encode())
    save_tensors(checkpoint, tensors, {"history": history})


def _restore(state: _State, checkpoint: Path) -> None:
    tensors, facts = load_tensors(checkpoint)
    state.model.load_state_dict(select_tensors(tensors, "model"))
    state.best = select_tensors(tensors, "best")
    for name, tensor in select_tensors(tensors, "average").items():
        state.average[name].copy_(tensor)
    state.history = [EpochRecord(**record) for record in facts["history"]]
    slots: dict[int, dict[str, Any]] = {}
    for name, tensor in select_tensors(tensors, "optimizer").items():
        index, slot = name.split(".")
        slots.setdefault(int(index), {})[slot] = tensor
    state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": slots})

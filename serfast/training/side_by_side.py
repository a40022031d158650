"""Training of the models of several folds in the same steps, each as it would train alone.

Encoder and pooling of classifiers, which cost the time, run once for the utterances of all folds, each utterance with
the weights of its own fold. All else a fold has for itself: normaliser, random numbers, decoder, loss, optimiser,
epochs, checkpoint.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch.func import functional_call

from serfast.corpora import Fold
from serfast.features import FeatureStore
from serfast.models import BLSTM, LSTM, AttentionPool, EmotionClassifier, EmotionHead, LastPool, ModelOptions
from serfast.models.classifier import make_encoder
from serfast.ops import Lengths
from serfast.training.classification import ClassificationTask, TrainedModel, check_base, new_task
from serfast.training.greedy import HeadTask, train_heads
from serfast.training.loop import AnyTask, EpochRecord, Step, Task, training_steps
from serfast.training.options import TrainingOptions

__all__ = [
    "JointRows",
    "encode",
    "join_rows",
    "own_losses",
    "run_classifiers_side_by_side",
    "run_side_by_side",
    "train_side_by_side",
]

DecodedTask = TypeVar("DecodedTask", ClassificationTask, HeadTask)


def train_side_by_side(
    store: FeatureStore,
    folds: Sequence[Fold],
    model_options: ModelOptions,
    options: TrainingOptions,
    *,
    folders: Sequence[Path],
    device: torch.device,
    on_epochs: Sequence[Callable[[EpochRecord], None]],
    bases: Sequence[EmotionClassifier] | None = None,
) -> list[TrainedModel]:
    """Train a classifier on each of ``folds``, as :func:`serfast.training.train_model` does on one.

    A fold that stops early leaves the steps of the others. ``folders``, ``on_epochs`` and, for a greedy scheme,
    ``bases`` are those of each fold; the seconds of a step are shared out evenly. The hidden vectors that a greedy
    scheme caches are those of all folds at a time.

    Raises:
        ValueError: if there are no ``bases`` for a greedy scheme, or the loss of a fold is not finite.
    """
    check_base("bases", bases, options)
    begun = [new_task(store, fold, model_options, options, device) for fold in folds]
    tasks = [task for task, _ in begun]
    names = [fold.name for fold in folds]
    if bases is None:
        histories = run_classifiers_side_by_side(tasks, folders, names=names, on_epochs=on_epochs)
        found = [(history, sum(record.seconds for record in history)) for history in histories]
    else:
        run = partial(run_side_by_side, losses_of=_head_losses, names=names, on_epochs=on_epochs)
        with ExitStack() as stack:
            heads = [
                stack.enter_context(task.head_task(base, folder))
                for task, base, folder in zip(tasks, bases, folders, strict=True)
            ]
            found = train_heads(heads, model_options, options, folders=folders, run=run)
    return [
        TrainedModel(task.model.eval(), normaliser, task.source, history, seconds)
        for (task, normaliser), (history, seconds) in zip(begun, found, strict=True)
    ]


def run_classifiers_side_by_side(
    tasks: Sequence[ClassificationTask],
    folders: Sequence[Path],
    *,
    names: Sequence[str],
    on_epochs: Sequence[Callable[[EpochRecord], None]],
) -> list[tuple[EpochRecord, ...]]:
    """As :func:`run_side_by_side`, for classifiers of one shape: one pass of encoder and pooling for all in a step."""
    with torch.device("meta"):  # its parameters are never its own
        layer = make_encoder(1, replace(tasks[0].model.options, n_layers=1))
    return run_side_by_side(tasks, folders, partial(_classifier_losses, layer), names=names, on_epochs=on_epochs)


def run_side_by_side(
    tasks: Sequence[AnyTask],
    folders: Sequence[Path],
    losses_of: Callable[[Sequence[AnyTask], Sequence[Step]], list[Tensor]],
    *,
    names: Sequence[str],
    on_epochs: Sequence[Callable[[EpochRecord], None]],
) -> list[tuple[EpochRecord, ...]]:
    """Train all tasks in the same steps, whose losses are ``losses_of(tasks, steps)``, and return their epochs.

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
        losses = torch.stack(losses_of([tasks[place] for place in places], list(wanted.values())))
        losses.sum().backward()
        for place in places:
            wanted[place].update()
        seconds = (time.monotonic() - started) / len(places)
        for place, loss in zip(places, losses.detach(), strict=True):
            advance(place, partial(trainings[place].send, (loss, seconds)))
    return [histories[place] for place in range(len(tasks))]


def own_losses(tasks: Sequence[Task], steps: Sequence[Step]) -> list[Tensor]:
    """The loss of each task's step, computed for itself."""
    losses = []
    for task, step in zip(tasks, steps, strict=True):
        with step.stream:
            losses.append(task.loss(step.batch, step.epoch))
    return losses


@dataclass(frozen=True)
class JointRows:
    """Utterances of several tasks end to end: rows (row, ...), and the task of each utterance, ``group`` (batch,)."""

    rows: Tensor
    lengths: Lengths
    group: Tensor
    n_rows: list[int]


def join_rows(parts: Sequence[tuple[Tensor, Lengths]]) -> JointRows:
    """The rows (row, ...) and lengths of the utterances of each task, put together."""
    rows = torch.cat([own for own, _ in parts])
    lengths = Lengths.packed(torch.cat([own.lengths for _, own in parts]), device=rows.device)
    n_utterances = torch.tensor([len(own.lengths) for _, own in parts])
    group = torch.repeat_interleave(torch.arange(len(parts)), n_utterances)
    return JointRows(rows, lengths, group, [len(own) for own, _ in parts])


@dataclass(frozen=True)
class _Inputs(JointRows):
    """What the steps of several tasks read: rows, seeds of the pooling's masks (batch,) and each task's emotions."""

    seeds: Tensor
    truths: list[Tensor]


def _inputs(tasks: Sequence[DecodedTask], steps: Sequence[Step]) -> _Inputs:
    parts = []
    for task, step in zip(tasks, steps, strict=True):
        with step.stream:
            parts.append(task.inputs(step.batch, step.epoch))
    joint = join_rows([(own.rows, own.lengths) for own in parts])
    seeds = torch.cat([own.seeds for own in parts])
    return _Inputs(**vars(joint), seeds=seeds, truths=[own.truth for own in parts])


def _classifier_losses(layer: BLSTM | LSTM, tasks: Sequence[ClassificationTask], steps: Sequence[Step]) -> list[Tensor]:
    """The loss of each task's step, from one pass of encoder and pooling over the utterances of all."""
    inputs = _inputs(tasks, steps)
    hidden = encode(layer, [task.model.encoder for task in tasks], steps, inputs)
    return _decoded_losses(tasks, [task.model.head for task in tasks], steps, hidden, inputs)


def _head_losses(tasks: Sequence[HeadTask], steps: Sequence[Step]) -> list[Tensor]:
    """The loss of each task's step, from one pass of the pooling over the cached hidden vectors of all."""
    inputs = _inputs(tasks, steps)
    return _decoded_losses(tasks, [task.model for task in tasks], steps, inputs.rows, inputs)


def _decoded_losses(
    tasks: Sequence[DecodedTask], heads: Sequence[EmotionHead], steps: Sequence[Step], hidden: Tensor, inputs: _Inputs
) -> list[Tensor]:
    context = _pool([head.pooling for head in heads], hidden, inputs)
    contexts = context.split([len(step.batch) for step in steps])
    losses = []
    for task, head, step, own, truth in zip(tasks, heads, steps, contexts, inputs.truths, strict=True):
        with step.stream:
            logits = head.decoder(own)
        losses.append(task.objective.loss(logits, truth))
    return losses


def encode(layer: BLSTM | LSTM, encoders: Sequence[BLSTM | LSTM], steps: Sequence[Step], inputs: JointRows) -> Tensor:
    """Hidden vectors (row, unit) of ``inputs``, each task's by its own of ``encoders``, in one pass.

    ``layer`` is an encoder of one layer, which computes each layer with the parameters that it is lent.
    """
    hidden = inputs.rows
    for depth in range(encoders[0].n_layers):
        if depth > 0:
            parts = []
            for encoder, step, own in zip(encoders, steps, hidden.split(inputs.n_rows), strict=True):
                with step.stream:
                    parts.append(encoder.dropout(own))
            hidden = torch.cat(parts)
        names = {name: name.replace("_l0", f"_l{depth}") for name, _ in layer.named_parameters()}
        stacked = {
            name: torch.stack([encoder.get_parameter(own) for encoder in encoders]) for name, own in names.items()
        }
        hidden = functional_call(layer, stacked, (hidden, inputs.lengths, inputs.group))
    return hidden


def _pool(poolings: Sequence[AttentionPool | LastPool], hidden: Tensor, inputs: _Inputs) -> Tensor:
    weights = [dict(pooling.named_parameters()) for pooling in poolings]
    stacked = {name: torch.stack([own[name] for own in weights]) for name in weights[0]}
    of_group = (inputs.group,) if stacked else ()
    pooled = functional_call(poolings[0], stacked, (hidden, inputs.lengths, inputs.seeds, *of_group))
    context: Tensor = pooled[0]
    return context

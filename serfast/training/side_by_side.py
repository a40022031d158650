"""Training of the classifiers of several folds in the same steps, each as it would train alone.

Encoder and pooling, which cost the time, run once for the utterances of all folds, each utterance with the weights of
its own fold. All else a fold has for itself: normaliser, random numbers, decoder, loss, optimiser, epochs, checkpoint.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.func import functional_call

from serfast.corpora import Fold
from serfast.features import FeatureStore
from serfast.models import BLSTM, AttentionPool, LastPool, ModelOptions
from serfast.ops import Lengths, blstm
from serfast.training.classification import ClassificationTask, TrainedModel, new_task
from serfast.training.loop import EpochRecord, Step, TrainingSteps, training_steps
from serfast.training.options import TrainingOptions

__all__ = ["train_side_by_side"]


def train_side_by_side(
    store: FeatureStore,
    folds: Sequence[Fold],
    model_options: ModelOptions,
    options: TrainingOptions,
    *,
    folders: Sequence[Path],
    device: torch.device,
    on_epochs: Sequence[Callable[[EpochRecord], None]],
) -> list[TrainedModel]:
    """Train a whole classifier on each of ``folds``, as :func:`serfast.training.train_model` does on one.

    A fold that stops early leaves the steps of the others. ``folders`` and ``on_epochs`` are those of each fold; the
    seconds of a step are shared out evenly.

    Raises:
        ValueError: if the scheme is not "joint" or the encoder reads in one direction only, or the loss of a fold is
            not finite.
    """
    if options.scheme != "joint":
        raise ValueError(f"scheme must be joint for training side by side, got {options.scheme!r}")
    if model_options.direction != "both":
        raise ValueError(f"direction must be both for training side by side, got {model_options.direction!r}")
    begun = [new_task(store, fold, model_options, options, device) for fold in folds]
    tasks = [task for task, _ in begun]
    trainings = [
        training_steps(task, options, folder=folder, device=device, on_epoch=on_epoch)
        for task, folder, on_epoch in zip(tasks, folders, on_epochs, strict=True)
    ]
    trained = []
    for (task, normaliser), history in zip(begun, _run(tasks, trainings), strict=True):
        seconds = sum(record.seconds for record in history)
        trained.append(TrainedModel(task.model.eval(), normaliser, task.source, history, seconds))
    return trained


def _run(tasks: Sequence[ClassificationTask], trainings: Sequence[TrainingSteps]) -> list[tuple[EpochRecord, ...]]:
    wanted: dict[int, Step] = {}
    histories: dict[int, tuple[EpochRecord, ...]] = {}

    def advance(place: int, next_step: Callable[[], Step]) -> None:
        try:
            wanted[place] = next_step()
        except StopIteration as end:
            wanted.pop(place, None)
            histories[place] = end.value
        except ValueError as error:
            raise ValueError(f"fold {tasks[place].fold.name}: {error}") from error

    for place, training in enumerate(trainings):
        advance(place, training.__next__)
    while wanted:
        started = time.monotonic()
        places = list(wanted)
        losses = torch.stack(_losses([tasks[place] for place in places], list(wanted.values())))
        losses.sum().backward()
        seconds = (time.monotonic() - started) / len(places)
        for place, loss in zip(places, losses.detach(), strict=True):
            advance(place, partial(trainings[place].send, (loss, seconds)))
    return [histories[place] for place in range(len(tasks))]


def _losses(tasks: Sequence[ClassificationTask], steps: Sequence[Step]) -> list[Tensor]:
    """The loss of each task's step, from one pass of encoder and pooling over the utterances of all."""
    inputs = []
    for task, step in zip(tasks, steps, strict=True):
        with step.stream:
            inputs.append(task.inputs(step.batch, step.epoch))
    features = [rows for rows, _, _ in inputs]
    counts = [len(step.batch) for step in steps]
    lengths = Lengths.packed(torch.cat([own.lengths for _, own, _ in inputs]), device=features[0].device)
    group = torch.repeat_interleave(torch.arange(len(tasks)), torch.tensor(counts))
    hidden = _encode([cast(BLSTM, task.model.encoder) for task in tasks], steps, features, lengths, group)
    seeds = torch.cat([own for _, _, own in inputs])
    context = _pool([task.model.head.pooling for task in tasks], hidden, lengths, seeds, group)
    losses = []
    for task, step, own in zip(tasks, steps, context.split(counts), strict=True):
        with step.stream:
            logits = task.model.head.decoder(own)
        losses.append(task.objective.loss(logits, step.batch))
    return losses


def _encode(
    encoders: Sequence[BLSTM], steps: Sequence[Step], features: Sequence[Tensor], lengths: Lengths, group: Tensor
) -> Tensor:
    hidden = torch.cat(list(features))
    n_rows = [len(rows) for rows in features]
    for depth in range(encoders[0].n_layers):
        if depth > 0:
            parts = []
            for encoder, step, own in zip(encoders, steps, hidden.split(n_rows), strict=True):
                with step.stream:
                    parts.append(encoder.dropout(own))
            hidden = torch.cat(parts)
        layers = [encoder.layer_weights(depth) for encoder in encoders]
        weights = {name: torch.stack([layer[name] for layer in layers]) for name in layers[0]}
        hidden = blstm(hidden, lengths, weights, group=group)
    return hidden


def _pool(
    poolings: Sequence[AttentionPool | LastPool], hidden: Tensor, lengths: Lengths, seeds: Tensor, group: Tensor
) -> Tensor:
    weights = [dict(pooling.named_parameters()) for pooling in poolings]
    stacked = {name: torch.stack([own[name] for own in weights]) for name in weights[0]}
    of_group = (group,) if stacked else ()
    context: Tensor = functional_call(poolings[0], stacked, (hidden, lengths, seeds, *of_group))[0]
    return context

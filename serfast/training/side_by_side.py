"""Training of the models of several folds in the same steps, each as it would train alone.

Encoder and pooling of classifiers, which cost the time, run once for the utterances of all folds, each utterance with
the weights of its own fold. All else a fold has for itself: normaliser, random numbers, decoder, loss, optimiser,
epochs, checkpoint.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
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
from serfast.training.classification import ClassificationTask, TrainedModel, check_base, new_task
from serfast.training.greedy import HeadTask, train_heads
from serfast.training.joint_steps import JointInputs, encode, packed_steps, run_side_by_side
from serfast.training.loop import EpochRecord
from serfast.training.options import TrainingOptions

__all__ = ["run_classifiers_side_by_side", "train_side_by_side"]

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
    names: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> list[TrainedModel]:
    """Train a classifier on each of ``folds``, as :func:`serfast.training.train_model` does on one.

    A fold that stops early leaves the steps of the others. ``folders``, ``on_epochs`` and, for a greedy scheme,
    ``bases`` are those of each fold, and ``seeds``, where one fold may come with several, in the place of that of
    ``options``; errors call the folds by ``names``, if they are not their own. The seconds of a step are shared out
    evenly. The hidden vectors that a greedy scheme caches are those of all folds at a time.

    Raises:
        ValueError: if there are no ``bases`` for a greedy scheme, or the loss of a fold is not finite.
    """
    check_base("bases", bases, options)
    own_options = [replace(options, seed=seed) for seed in seeds or [options.seed] * len(folds)]
    begun = [new_task(store, fold, model_options, own, device) for fold, own in zip(folds, own_options, strict=True)]
    tasks = [task for task, _ in begun]
    names = names or [fold.name for fold in folds]
    if bases is None:
        histories = run_classifiers_side_by_side(tasks, folders, names=names, on_epochs=on_epochs)
        found = [(history, sum(record.seconds for record in history)) for history in histories]
    else:
        run = partial(_run_heads, names=names, on_epochs=on_epochs)
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
    make = packed_steps(partial(_classifier_losses, layer), tasks[0].device)
    return run_side_by_side(tasks, folders, make, names=names, on_epochs=on_epochs)


def _run_heads(
    tasks: Sequence[HeadTask],
    folders: Sequence[Path],
    *,
    names: Sequence[str],
    on_epochs: Sequence[Callable[[EpochRecord], None]],
) -> list[tuple[EpochRecord, ...]]:
    make = packed_steps(_head_losses, tasks[0].device)  # anew: a graph is of the tasks it was made with
    return run_side_by_side(tasks, folders, make, names=names, on_epochs=on_epochs)


def _classifier_losses(layer: BLSTM | LSTM, tasks: Sequence[ClassificationTask], inputs: JointInputs) -> list[Tensor]:
    """The loss of each task, from one pass of encoder and pooling over the utterances of all."""
    hidden = encode(layer, [task.model.encoder for task in tasks], inputs)
    return _decoded_losses(tasks, [task.model.head for task in tasks], hidden, inputs)


def _head_losses(tasks: Sequence[HeadTask], inputs: JointInputs) -> list[Tensor]:
    """The loss of each task, from one pass of the pooling over the cached hidden vectors of all."""
    return _decoded_losses(tasks, [task.model for task in tasks], inputs.rows, inputs)


def _decoded_losses(
    tasks: Sequence[DecodedTask], heads: Sequence[EmotionHead], hidden: Tensor, inputs: JointInputs
) -> list[Tensor]:
    context = _pool([head.pooling for head in heads], hidden, inputs)
    contexts = context.split([len(truth) for truth in inputs.truths])
    losses = []
    for task, head, stream, own, truth in zip(tasks, heads, inputs.streams, contexts, inputs.truths, strict=True):
        with stream:
            logits = head.decoder(own)
        losses.append(task.objective.loss(logits, truth))
    return losses


def _pool(poolings: Sequence[AttentionPool | LastPool], hidden: Tensor, inputs: JointInputs) -> Tensor:
    weights = [dict(pooling.named_parameters()) for pooling in poolings]
    stacked = {name: torch.stack([own[name] for own in weights]) for name in weights[0]}
    of_group = (inputs.groups,) if stacked else ()
    pooled = functional_call(poolings[0], stacked, (hidden, inputs.lengths, inputs.seeds, *of_group))
    context: Tensor = pooled[0]
    return context

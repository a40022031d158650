"""Greedy training: pooling and decoder on the cached hidden vectors of a frozen encoder.

Source: Huang and Narayanan (2016), section 3.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from serfast.corpora import Fold
from serfast.features import FrameSource
from serfast.models import EmotionClassifier, EmotionHead, ModelOptions
from serfast.ops import Lengths
from serfast.training.batches import StepInputs, dropout_seeds
from serfast.training.inference import Answers
from serfast.training.loading import batch_loader
from serfast.training.loop import EpochRecord, Run, Validation
from serfast.training.memory import fits
from serfast.training.objective import Objective
from serfast.training.options import TrainingOptions

__all__ = ["HeadTask", "HiddenCache", "cached_hidden", "head_task", "train_heads"]

_SCRATCH = ".hidden-"


class HiddenCache:
    """Hidden vectors of some utterances, end to end.

    Args:
        rows: (row, unit), on the device of training where they fit, else memory-mapped on the CPU.
        indices: which utterances of their source these are, in this order, (utterance,).
        lengths: frames of each, (utterance,).
    """

    def __init__(self, rows: Tensor, indices: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        self.rows, self.indices, self._lengths = rows, indices, torch.from_numpy(lengths)
        self._limits = np.concatenate([[0], lengths.cumsum()])

    def batch(self, first: int, last: int, device: torch.device) -> tuple[Tensor, Lengths]:
        """The utterances at places ``first`` to ``last`` of the cache; a view of it, unless the device is another."""
        rows = self.rows[self._limits[first] : self._limits[last]]
        return rows.to(device, non_blocking=True), Lengths.packed(self._lengths[first:last], device=device)


@contextmanager
def cached_hidden(
    encoder: nn.Module,
    source: FrameSource,
    indices: NDArray[np.int64],
    *,
    n_units: int,
    batch_size: int,
    folder: Path,
    device: torch.device,
) -> Iterator[HiddenCache]:
    """Run the frozen encoder once over the utterances ``indices`` and keep its answers while the context lasts."""
    lengths = source.lengths[indices]
    shape = (int(lengths.sum()), n_units)
    for left_behind in folder.glob(f"{_SCRATCH}*"):  # by a run that was killed
        shutil.rmtree(left_behind)
    with tempfile.TemporaryDirectory(dir=folder, prefix=_SCRATCH) as scratch:
        if fits(4 * shape[0] * shape[1], device):
            rows = torch.empty(shape, device=device)
        else:
            mapped = np.lib.format.open_memmap(Path(scratch) / "rows.npy", mode="w+", dtype=np.float32, shape=shape)
            rows = torch.from_numpy(mapped)
        cache = HiddenCache(rows, indices, lengths)
        encoder.eval()
        with torch.no_grad():
            loader = batch_loader(source, device, once=True)
            batches = np.split(indices, range(batch_size, len(indices), batch_size))
            loader.expect(batches)
            first = 0
            for wanted in batches:
                batch = loader.load(wanted)
                own, _ = cache.batch(first, first + len(wanted), rows.device)
                own.copy_(encoder(batch.features, batch.lengths))
                first += len(wanted)
        yield cache


@contextmanager
def head_task(
    model: EmotionClassifier,
    source: FrameSource,
    fold: Fold,
    objective: Objective,
    options: TrainingOptions,
    *,
    folder: Path,
    device: torch.device,
) -> Iterator["HeadTask"]:
    """The head of ``model``, to be trained on what the encoder, as it is, makes of the fold's utterances.

    The batches of an epoch are runs of neighbours in one order that the seed fixes, so that no row is copied.
    """
    order = np.random.default_rng([options.seed, 0]).permutation(np.asarray(fold.train, dtype=np.int64))
    indices = np.concatenate([order, np.asarray(fold.validation, dtype=np.int64)])
    n_units, size = model.encoder.n_outputs, options.batch_size
    with cached_hidden(
        model.encoder, source, indices, n_units=n_units, batch_size=size, folder=folder, device=device
    ) as cache:
        yield HeadTask(model.head, cache, len(order), objective, options, device)


def train_heads(
    tasks: Sequence["HeadTask"],
    model_options: ModelOptions,
    options: TrainingOptions,
    *,
    folders: Sequence[Path],
    run: Run["HeadTask"],
) -> list[tuple[tuple[EpochRecord, ...], float]]:
    """Train pooling and decoder of each of ``tasks``, stage by stage as the scheme says.

    Args:
        tasks: one for each fold.
        model_options: of the classifiers that the heads are of.
        options: of the training; each task has a seed of its own.
        folders: of the folds; each keeps the checkpoint of the last stage.
        run: trains a stage of all.

    Returns:
        For each fold the epochs of the last stage, and the seconds of all.
    """
    seconds = [0.0] * len(tasks)
    if options.scheme == "one_by_one":
        first = [replace(task, model=_attention_head(task, model_options)) for task in tasks]
        stages = [folder / "attention" for folder in folders]
        for stage in stages:
            stage.mkdir(exist_ok=True)
        seconds = [_seconds(history) for history in run(first, stages)]
        for task, trained in zip(tasks, first, strict=True):
            task.model.pooling.load_state_dict(trained.model.pooling.state_dict())
            task.model.pooling.requires_grad_(False)
    histories = run(tasks, folders)
    for task in tasks:
        task.model.requires_grad_(True)
    return [(history, before + _seconds(history)) for history, before in zip(histories, seconds, strict=True)]


def _attention_head(task: "HeadTask", options: ModelOptions) -> EmotionHead:
    """A new head with the pooling of ``options`` and a linear decoder."""
    linear = replace(options, n_decoder=0, decoder_dropout=0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.options.seed)
        return EmotionHead(task.cache.rows.shape[1], task.objective.n_emotions, linear).to(task.device)


def _seconds(history: Sequence[EpochRecord]) -> float:
    return sum(record.seconds for record in history)


@dataclass(frozen=True)
class HeadTask:
    """Pooling and decoder, trained on the first ``n_train`` utterances of a cache and validated on the others."""

    model: EmotionHead
    cache: HiddenCache
    n_train: int
    objective: Objective
    options: TrainingOptions
    device: torch.device

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        """Places in the cache, each batch a run of neighbours."""
        generator = np.random.default_rng([self.options.seed, epoch])
        cuts = np.arange(generator.integers(1, self.options.batch_size + 1), self.n_train, self.options.batch_size)
        batches = np.split(np.arange(self.n_train), cuts)
        return [batches[place] for place in generator.permutation(len(batches))]

    def loss(self, batch: NDArray[np.int64], epoch: int) -> Tensor:
        """Mean loss of the utterances at the places ``batch``."""
        return self.loss_of(self.inputs(batch, epoch))

    def inputs(self, batch: NDArray[np.int64], epoch: int) -> StepInputs:
        """What a step on the utterances at the places ``batch`` reads: hidden vectors (row, unit)."""
        hidden, lengths = self.cache.batch(batch[0], batch[-1] + 1, self.device)
        indices = self.cache.indices[batch]
        seeds = dropout_seeds(self.options.seed, epoch, indices)
        return StepInputs(hidden, lengths, seeds.to(self.device, non_blocking=True), self.objective.truth(indices))

    def loss_of(self, inputs: StepInputs) -> Tensor:
        """Mean loss of the utterances of ``inputs``."""
        logits, _ = self.model(inputs.rows, inputs.lengths, inputs.seeds)
        return self.objective.loss(logits, inputs.truth)

    @torch.no_grad()
    def validate(self) -> Validation:
        """Loss and confusion of the utterances behind the training part."""
        n_utterances, size = len(self.cache.indices), self.options.batch_size
        logits = []
        for first in range(self.n_train, n_utterances, size):
            hidden, lengths = self.cache.batch(first, min(first + size, n_utterances), self.device)
            logits.append(self.model(hidden, lengths)[0].cpu())
        answers = Answers(torch.cat(logits).numpy(), [])
        return self.objective.validate(answers, self.cache.indices[self.n_train :].tolist())

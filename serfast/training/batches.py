"""Batches of utterances of like length, packed end to end and put on the device."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serfast.features import FrameSource
from serfast.ops import Lengths

__all__ = ["NO_EMOTION", "Batch", "StepInputs", "dropout_seeds", "load_batch", "ordered_batches", "shuffled_batches"]

LENGTH_JITTER = 0.1
NO_EMOTION = -1  # the label of an utterance that weighs nothing in the loss


@dataclass(frozen=True)
class Batch:
    """Packed standardised features (row, feature) of the utterances ``indices`` (batch,) of a source."""

    features: Tensor
    lengths: Lengths
    indices: NDArray[np.int64]


@dataclass(frozen=True)
class StepInputs:
    """What a training step reads, on one device.

    Rows are (row, ...). ``seeds`` of dropout masks and emotions ``truth`` are those of the utterances, (batch,), int64.
    """

    rows: Tensor
    lengths: Lengths
    seeds: Tensor
    truth: Tensor


def shuffled_batches(
    indices: Sequence[int], lengths: NDArray[np.int64], batch_size: int, *, seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """Cut the utterances ``indices`` into batches of like length, in a random order that ``seed`` and ``epoch`` fix.

    ``lengths`` are those of the whole store. Lengths are jittered by 10 % before sorting, so that batches differ
    between epochs.
    """
    generator = np.random.default_rng([seed, epoch])
    chosen = np.asarray(indices, dtype=np.int64)
    jitter = generator.uniform(1 - LENGTH_JITTER, 1 + LENGTH_JITTER, len(chosen))
    batches = _cut(chosen[np.argsort(lengths[chosen] * jitter, kind="stable")], batch_size)
    return [batches[place] for place in generator.permutation(len(batches))]


def ordered_batches(indices: Sequence[int], lengths: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Cut the utterances ``indices`` into batches by length, shortest first."""
    chosen = np.asarray(indices, dtype=np.int64)
    return _cut(chosen[np.argsort(lengths[chosen], kind="stable")], batch_size)


def load_batch(source: FrameSource, indices: NDArray[np.int64], device: torch.device) -> Batch:
    """Read and pack the features of the utterances ``indices`` of a standardised source and put them on ``device``."""
    rows = torch.from_numpy(source.gather(indices))
    lengths = Lengths.packed(torch.from_numpy(source.lengths[indices]), device=device)
    return Batch(rows.to(device, non_blocking=True), lengths, indices)


def dropout_seeds(seed: int, epoch: int, indices: NDArray[np.int64]) -> Tensor:
    """Seeds of the pooling's dropout masks, (batch,) int64, from run seed, epoch and utterance alone.

    The mask of an utterance thus depends neither on its batch nor on a restart.
    """
    mixed = indices.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + _epoch_state(seed, epoch)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return torch.from_numpy((mixed ^ (mixed >> np.uint64(31))).view(np.int64))


@lru_cache(maxsize=1024)  # asked for at every step, by every fold side by side
def _epoch_state(seed: int, epoch: int) -> np.uint64:
    state: np.uint64 = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]
    return state


def _cut(ordered: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    return [ordered[first : first + batch_size] for first in range(0, len(ordered), batch_size)]

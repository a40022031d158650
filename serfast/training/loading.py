"""How batches get to the device of training: from its own memory, or read ahead, or at once where that is the CPU."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serfast.features import FrameSource
from serfast.ops import Lengths
from serfast.training.batches import Batch, load_batch
from serfast.training.memory import fits

__all__ = ["BatchLoader", "HeldRows", "ReadAhead", "batch_loader"]

_FILLED_AT_A_TIME = 256  # utterances


class BatchLoader:
    """Loads batches of the standardised ``source`` onto ``device``, each when it is wanted."""

    def __init__(self, source: FrameSource, device: torch.device) -> None:
        self._source, self._device = source, device

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Frames of each utterance of the source, (utterance,)."""
        return self._source.lengths

    def expect(self, batches: Sequence[NDArray[np.int64]]) -> None:
        """Hear which batches will be loaded next, in this order. They need not be."""

    def load(self, indices: NDArray[np.int64]) -> Batch:
        """The features of the utterances ``indices``, packed."""
        return load_batch(self._source, indices, self._device)


class HeldRows(BatchLoader):
    """Keeps all rows of the source on the device; a batch is selected from them there."""

    def __init__(self, source: FrameSource, device: torch.device) -> None:
        super().__init__(source, device)
        lengths = torch.tensor(source.lengths)
        self._first_rows = lengths.cumsum(0) - lengths
        self._rows = torch.empty(int(lengths.sum()), _n_features(source), device=device)
        everyone, n_filled = np.arange(len(lengths)), 0
        for piece in np.split(everyone, everyone[_FILLED_AT_A_TIME::_FILLED_AT_A_TIME]):
            rows = torch.from_numpy(source.gather(piece))
            self._rows[n_filled : n_filled + len(rows)] = rows
            n_filled += len(rows)

    def load(self, indices: NDArray[np.int64]) -> Batch:
        """The features of the utterances ``indices``, packed."""
        lengths = Lengths.packed(torch.from_numpy(self.lengths[indices]), device=self._device)
        moves = self._first_rows[indices].to(self._device, non_blocking=True) - lengths.first_rows
        of_row = torch.repeat_interleave(moves, lengths.on_device, output_size=lengths.n_rows)
        rows = torch.arange(lengths.n_rows, device=self._device) + of_row
        return Batch(self._rows.index_select(0, rows), lengths, indices)


class ReadAhead(BatchLoader):
    """Reads the next expected batch in a thread while this one is trained on, into memory that the device copies from.

    Rows are read from the source as ever; only the time differs.
    """

    def __init__(self, source: FrameSource, device: torch.device) -> None:
        super().__init__(source, device)
        self._reader = ThreadPoolExecutor(1, "batches")
        self._expected: deque[NDArray[np.int64]] = deque()
        self._next: tuple[NDArray[np.int64], Future[Tensor]] | None = None

    def expect(self, batches: Sequence[NDArray[np.int64]]) -> None:
        """Begin to read the first of ``batches``, and forget what was expected before."""
        self._expected = deque(batches)
        self._begin()

    def load(self, indices: NDArray[np.int64]) -> Batch:
        """The features of the utterances ``indices``, packed; if they come next, they were read already."""
        if self._next is not None and np.array_equal(self._next[0], indices):
            rows = self._next[1].result()
            self._begin()
        else:
            rows = self._read(indices)
        lengths = Lengths.packed(torch.from_numpy(self.lengths[indices]), device=self._device)
        return Batch(rows.to(self._device, non_blocking=True), lengths, indices)

    def _begin(self) -> None:
        self._next = None
        if self._expected:
            indices = self._expected.popleft()
            self._next = indices, self._reader.submit(self._read, indices)

    def _read(self, indices: NDArray[np.int64]) -> Tensor:
        rows = torch.from_numpy(self._source.gather(indices))
        return rows.pin_memory() if self._device.type == "cuda" else rows


def batch_loader(source: FrameSource, device: torch.device, *, once: bool = False) -> BatchLoader:
    """What loads batches of a standardised source onto ``device``: all bring the same bits.

    On the CPU each batch is read when it is wanted. A GPU holds the rows that fit into half of its free memory; other
    rows, and those that are read ``once``, are read ahead.
    """
    if device.type == "cpu":
        return BatchLoader(source, device)
    n_bytes = 4 * _n_features(source) * int(source.lengths.sum())
    return ReadAhead(source, device) if once or not fits(n_bytes, device) else HeldRows(source, device)


def _n_features(source: FrameSource) -> int:
    return int(source.gather(np.arange(1)).shape[1])

"""Training steps as CUDA graphs: one for each bucket of like shapes, captured once and replayed for all its batches.

A bucket is a number of utterances and a number of rows. Idle utterances of zeros, which weigh nothing in the loss, fill
a batch up to it: what they add to any gradient is exactly 0. Batches of several models side by side have equal shares.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from serfast.ops import Lengths
from serfast.training.batches import NO_EMOTION, StepInputs

__all__ = ["CapturedSteps", "CudaGraphs", "Graphs", "fill", "room_for"]

_WARM_UPS = 2  # plain calls of each bucket before the capture, in which libraries make their plans
_STEPS_OF_DOUBLING = 4  # of rows: at most a quarter is spare, about a tenth on average
_BUSY_PER_IDLE = 4  # utterances: then no idle one is much longer than the mean of a full batch


class Graphs(Protocol):
    """How the calls of a bucket are made."""

    def run(self, function: Callable[[], Tensor]) -> Tensor:
        """Call ``function`` where it will be captured."""

    def capture(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """What does the work of ``function``, on the same memory, and returns its result."""


class CudaGraphs:
    """Captures on a stream of ``device``. All graphs share memory: a result is to be read before the next replay."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, function: Callable[[], Tensor]) -> Tensor:
        """Call ``function`` on the stream, in turn with the caller's."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = function()
        current.wait_stream(self._stream)
        return result

    def capture(self, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """A replay of what ``function`` does now, without doing it."""
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on: one reads the next batch into pinned memory meanwhile.
        capture = torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local")
        with torch.cuda.stream(self._stream), capture:
            result = function()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


class CapturedSteps:
    """Steps on batches of up to ``batch_size`` utterances, captured by ``graphs`` at the third use of a bucket.

    Steps that are not captured yet work on batches filled up alike: no result depends on which of them are captured.
    """

    def __init__(self, batch_size: int, graphs: Graphs) -> None:
        self.n_utterances = batch_size + -(-batch_size // _BUSY_PER_IDLE)
        self._graphs = graphs
        self._buckets: dict[int, _Bucket] = {}

    def make(self, parts: Sequence[StepInputs], step: Callable[[StepInputs], Tensor]) -> Tensor:
        """What ``step`` returns for the batches ``parts``, each filled up to the shape of the largest.

        It must be the same step each time, of as many parts, but for what tensors hold.
        """
        n_rows = _bucket_rows(
            max(part.lengths.n_rows + self.n_utterances - len(part.lengths.lengths) for part in parts)
        )
        if n_rows not in self._buckets:
            room = room_for(parts[0], len(parts) * self.n_utterances, len(parts) * n_rows)
            self._buckets[n_rows] = _Bucket(room, self._graphs)
        return self._buckets[n_rows].make(parts, step)


class _Bucket:
    def __init__(self, room: StepInputs, graphs: Graphs) -> None:
        self._room, self._graphs = room, graphs
        self._n_uses = 0
        self._replay: Callable[[], Tensor] | None = None

    def make(self, parts: Sequence[StepInputs], step: Callable[[StepInputs], Tensor]) -> Tensor:
        fill(self._room, parts)
        if self._n_uses < _WARM_UPS:
            self._n_uses += 1
            return self._graphs.run(lambda: step(self._room))
        if self._replay is None:
            self._replay = self._graphs.capture(lambda: step(self._room))
        return self._replay()


def room_for(inputs: StepInputs, n_utterances: int, n_rows: int) -> StepInputs:
    """Memory for batches like ``inputs``, with ``n_utterances`` that have ``n_rows`` together: all idle so far."""
    lengths = Lengths.packed(_even(n_rows, n_utterances), device=inputs.rows.device)
    return StepInputs(
        inputs.rows.new_zeros(n_rows, inputs.rows.shape[1]),
        lengths,
        inputs.seeds.new_zeros(n_utterances),
        inputs.truth.new_full((n_utterances,), NO_EMOTION),
    )


def fill(room: StepInputs, parts: Sequence[StepInputs]) -> None:
    """Write each of ``parts`` into its even share of ``room``, and idle utterances of like lengths behind it.

    Each share has room for at least a row of each idle utterance. Nothing waits for the device, and no tensor of
    ``room`` moves.
    """
    n_utterances, n_rows = len(room.lengths.lengths) // len(parts), room.lengths.n_rows // len(parts)
    lengths = []
    for place, part in enumerate(parts):
        n_busy, n_read = len(part.lengths.lengths), part.lengths.n_rows
        lengths += [part.lengths.lengths, _even(n_rows - n_read, n_utterances - n_busy)]
        rows = room.rows[place * n_rows : (place + 1) * n_rows]
        rows[:n_read].copy_(part.rows)
        rows[n_read:].zero_()
        own = slice(place * n_utterances, (place + 1) * n_utterances)
        room.seeds[own][:n_busy].copy_(part.seeds)
        room.seeds[own][n_busy:].zero_()
        room.truth[own][:n_busy].copy_(part.truth)
        room.truth[own][n_busy:].fill_(NO_EMOTION)
    filled = Lengths.packed(torch.cat(lengths), device=room.rows.device)
    room.lengths.lengths.copy_(filled.lengths)
    room.lengths.on_device.copy_(filled.on_device)
    room.lengths.first_rows.copy_(filled.first_rows)


def _even(n_rows: int, n_utterances: int) -> Tensor:
    """Lengths (utterance,) of ``n_rows`` shared out evenly."""
    places = torch.arange(n_utterances)
    return (places + 1) * n_rows // n_utterances - places * n_rows // n_utterances


def _bucket_rows(n_rows: int) -> int:
    """The next number that starts a doubling or one of its even steps."""
    step = max(1, (1 << (n_rows.bit_length() - 1)) // _STEPS_OF_DOUBLING)
    return -(-n_rows // step) * step

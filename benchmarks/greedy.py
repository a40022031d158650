"""An epoch of greedy training on cached hidden vectors: 4,444 utterances of 450 frames, 256 units, float32, CPU.

Beside the epoch of eq. 9 stands what its bytes cost, reading the cache twice; beside that of eq. 8 its own matrix
products, of every row with the projection forward and of the projection's gradient backward. Nothing else is in an
epoch by necessity: the encoder is frozen, so no gradient of a hidden vector is made. A step costs some 0.5 ms besides
its rows, in Python and the optimiser, which larger batches spread over more of them. Run::

    pytest benchmarks/greedy.py --benchmark-columns=median,iqr,rounds
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from serfast.models import EmotionHead, ModelOptions
from serfast.ops import linear
from serfast.ops.linear import weight_gradient
from serfast.training import TrainingOptions
from serfast.training.greedy import HeadTask, HiddenCache
from serfast.training.loop import run_epochs
from serfast.training.objective import Objective

N_UTTERANCES, N_FRAMES, N_UNITS, N_EMOTIONS = 4444, 450, 256, 4
CPU = torch.device("cpu")


class MadeUpObjective(Objective):
    """Labels without a corpus."""

    def __init__(self) -> None:
        self.labels = np.random.default_rng(0).integers(N_EMOTIONS, size=N_UTTERANCES + 1)
        self.n_emotions = N_EMOTIONS
        self._device, self._smoothing, self._weights = CPU, 0.0, None


@pytest.fixture(scope="module")
def hidden() -> Tensor:
    return torch.empty((N_UTTERANCES + 1) * N_FRAMES, N_UNITS).uniform_(-1, 1)


def read_twice(hidden: Tensor) -> float:
    """Largest numbers of the cache, read twice in pieces of a batch's size."""
    rows = 32 * N_FRAMES
    return sum(float(piece.max()) for _ in range(2) for piece in hidden.split(rows))


def products(hidden: Tensor, projection: Tensor) -> float:
    """What eq. 8 multiplies: hidden vectors with the projection, and slopes with hidden vectors."""
    total = 0.0
    for piece in hidden.split(32 * N_FRAMES):
        projected = linear(piece, projection)
        total += float(weight_gradient(projected, piece)[0, 0])
    return total


@pytest.mark.benchmark(group="one epoch of eq. 9 on 2 million cached rows")
def test_reading_twice(benchmark: BenchmarkFixture, hidden: Tensor) -> None:
    assert benchmark.pedantic(read_twice, args=(hidden,), rounds=3, warmup_rounds=1) > 0


@pytest.mark.benchmark(group="one epoch of eq. 8 on 2 million cached rows")
def test_matrix_products(benchmark: BenchmarkFixture, hidden: Tensor) -> None:
    projection = torch.randn(N_UNITS, N_UNITS)
    assert np.isfinite(benchmark.pedantic(products, args=(hidden, projection), rounds=3, warmup_rounds=1))


@pytest.mark.parametrize("batch_size", [32, 128])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("pooling", ["eq9", "eq8"])
def test_epoch(
    benchmark: BenchmarkFixture, hidden: Tensor, tmp_path: Path, pooling: str, dropout: float, batch_size: int
) -> None:
    benchmark.group = f"one epoch of {pooling.replace('eq', 'eq. ')} on 2 million cached rows"
    head = EmotionHead(N_UNITS, N_EMOTIONS, ModelOptions(pooling=pooling, pooling_dropout=dropout))
    indices = np.arange(N_UTTERANCES + 1)
    cache = HiddenCache(hidden, indices, np.full(N_UTTERANCES + 1, N_FRAMES))
    options = TrainingOptions(n_epochs=1, batch_size=batch_size, scheme="greedy")
    task = HeadTask(head, cache, N_UTTERANCES, MadeUpObjective(), options, CPU)
    seconds = []

    def epoch() -> None:
        folder = tmp_path / str(len(seconds))
        folder.mkdir()
        seconds.append(run_epochs(task, options, folder=folder, device=CPU)[0].seconds)

    benchmark.pedantic(epoch, rounds=3, warmup_rounds=1)
    assert hidden.grad is None
    assert len(seconds) == 4

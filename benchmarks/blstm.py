"""Two bidirectional LSTM layers over 32 utterances of EmoDB's lengths (1.2 to 9 s), 28 inputs, float32, CPU.

Peers: torch.nn.LSTM on packed sequences, which is right, and on padded ones, whose reverse direction starts inside the
padding; each with its batch made outside the timer, random or of neighbouring lengths as a careful trainer groups them.
``useful GFLOP/s`` counts the matrix products of valid frames only, three times for forward and backward, and stands
beside the rate of a large matrix product measured in the same process. Run::

    pytest benchmarks/blstm.py --benchmark-columns=median,iqr,rounds
"""

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence, pad_sequence

from serfast.models import BLSTM
from serfast.ops import Lengths

N_FEATURES = 28
Layer = Callable[[], Tensor]


def batch_lengths(batch: str) -> list[int]:
    """32 lengths of a corpus of 535 utterances: drawn at random, or neighbours when sorted."""
    generator = np.random.default_rng(0)
    corpus = np.clip(generator.lognormal(np.log(258), 0.37, 535), 120, 900).astype(int)
    chosen = np.sort(corpus)[250:282] if batch == "grouped" else corpus[:32]
    return [int(length) for length in chosen]


def flops(lengths: list[int], n_units: int) -> float:
    """Of the matrix products of both layers and directions, forward."""
    inputs = N_FEATURES + 2 * n_units  # of the first and of the second layer
    return 2.0 * sum(lengths) * 2 * 4 * n_units * (inputs + 2 * n_units)


def sgemm_gflops() -> float:
    """Rate of a large matrix product, the best of ten."""
    left, right = torch.randn(2000, 1024), torch.randn(1024, 1024)
    seconds = []
    for _ in range(10):
        started = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - started)
    return 2e-9 * 2000 * 1024 * 1024 / min(seconds)


def make_layer(peer: str, utterances: list[Tensor], lstm: nn.LSTM) -> tuple[Layer, nn.Module]:
    if peer == "serfast":
        ours = BLSTM(N_FEATURES, lstm.hidden_size)
        ours.load_state_dict(lstm.state_dict())
        rows, lengths = torch.cat(utterances), Lengths.packed(torch.tensor([len(frames) for frames in utterances]))
        return lambda: ours(rows, lengths), ours
    if peer == "torch padded":
        padded = pad_sequence(utterances, batch_first=True)
        return lambda: lstm(padded)[0], lstm
    packed = pack_sequence(utterances, enforce_sorted=False)
    return lambda: lstm(packed)[0].data, lstm


def forward(layer: Layer) -> Tensor:
    with torch.no_grad():
        return layer()


def forward_and_backward(layer: Layer) -> Tensor:
    hidden = layer()
    hidden.sum().backward()
    return hidden


PASSES = {"forward": (forward, 1), "forward+backward": (forward_and_backward, 3)}


@pytest.mark.parametrize("peer", ["serfast", "torch padded", "torch packed"])
@pytest.mark.parametrize("direction", PASSES)
@pytest.mark.parametrize("n_units", [128, 256])
@pytest.mark.parametrize("batch", ["grouped", "random"])
def test_blstm(benchmark: BenchmarkFixture, batch: str, n_units: int, direction: str, peer: str) -> None:
    torch.manual_seed(0)
    lengths = batch_lengths(batch)
    utterances = [torch.randn(length, N_FEATURES) for length in lengths]
    lstm = nn.LSTM(N_FEATURES, n_units, 2, batch_first=True, bidirectional=True)
    layer, module = make_layer(peer, utterances, lstm)
    if peer == "serfast":
        truth = pad_packed_sequence(lstm(pack_sequence(utterances, enforce_sorted=False))[0], batch_first=True)[0]
        rows = torch.cat([truth[place, :length] for place, length in enumerate(lengths)])
        torch.testing.assert_close(forward(layer), rows, rtol=1e-4, atol=1e-5)
    run, factor = PASSES[direction]
    benchmark.group = f"{direction}, {n_units} units, {batch} batch"
    rounds = 1 if peer == "torch packed" and direction != "forward" else 5
    benchmark.pedantic(run, (layer,), rounds=rounds, warmup_rounds=1)
    module.zero_grad()
    rate = 1e-9 * factor * flops(lengths, n_units) / benchmark.stats.stats.median
    benchmark.extra_info.update({"useful GFLOP/s": round(rate, 1), "sgemm GFLOP/s": round(sgemm_gflops(), 1)})

"""A training step of the paper's model (2 x 128 units, eq. 9) on 32 utterances of EmoDB's lengths (1.2 to 9 s, 2.8 s).

Peers: the same model with torch.nn.LSTM on packed sequences, which is right but slow, and on padded ones, which is fast
but lets the reverse direction start inside the padding. Attention is a masked softmax in both. Run with::

    pytest benchmarks/training_step.py --benchmark-columns=median,iqr,rounds
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (torch's own name)
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from serfast.models import EmotionClassifier, ModelOptions
from serfast.ops import Lengths

N_FEATURES, N_EMOTIONS, N_UNITS = 28, 7, 128

Step = Callable[[], Tensor]


class _TorchModel(nn.Module):
    def __init__(self, *, packed: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(N_FEATURES, N_UNITS, 2, batch_first=True, bidirectional=True)
        self.query = nn.Parameter(torch.zeros(2 * N_UNITS))
        self.output = nn.Linear(2 * N_UNITS, N_EMOTIONS)
        self.packed = packed

    def forward(self, padded: Tensor, lengths: Tensor, is_padding: Tensor) -> Tensor:
        if self.packed:
            sequence = pack_padded_sequence(padded, lengths, batch_first=True, enforce_sorted=False)
            hidden, _ = pad_packed_sequence(self.lstm(sequence)[0], batch_first=True)
        else:
            hidden = self.lstm(padded)[0]
        scores = (hidden @ self.query).masked_fill(is_padding, float("-inf"))
        context = torch.einsum("bt,btu->bu", scores.softmax(dim=1), hidden)
        logits: Tensor = self.output(context)
        return logits


def _utterances() -> list[Tensor]:
    generator = np.random.default_rng(0)
    lengths = np.clip(generator.lognormal(np.log(258), 0.37, 32), 120, 900).astype(int)
    lengths.sort()  # a length-grouped batch of a bigger corpus would be more even: this favours no one
    return [torch.from_numpy(generator.standard_normal((n, N_FEATURES)).astype(np.float32)) for n in lengths]


def _step(model: nn.Module, logits_of: Callable[[], Tensor]) -> Step:
    optimizer = torch.optim.Adam(model.parameters())
    truth = torch.arange(32) % N_EMOTIONS

    def step() -> Tensor:
        optimizer.zero_grad()
        logits = logits_of()
        F.cross_entropy(logits, truth).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return logits

    return step


def _make_step(peer: str) -> Step:
    torch.manual_seed(0)
    utterances = _utterances()
    lengths = torch.tensor([len(utterance) for utterance in utterances])
    if peer == "serfast":
        model = EmotionClassifier(N_FEATURES, N_EMOTIONS, ModelOptions(n_units=N_UNITS))
        rows, packed_lengths = torch.cat(utterances), Lengths.packed(lengths)
        return _step(model, lambda: model(rows, packed_lengths)[0])
    torch_model = _TorchModel(packed=peer == "torch_packed")
    padded = pad_sequence(utterances, batch_first=True)
    is_padding = torch.arange(padded.shape[1]) >= lengths[:, None]
    return _step(torch_model, lambda: torch_model(padded, lengths, is_padding))


@pytest.mark.benchmark(group="training step, 32 utterances")
@pytest.mark.parametrize("peer", ["serfast", "torch_packed", "torch_padded"])
def test_training_step(benchmark: BenchmarkFixture, peer: str) -> None:
    step = _make_step(peer)
    logits = benchmark.pedantic(step, rounds=3, warmup_rounds=1)
    assert logits.shape == (32, N_EMOTIONS)
    assert logits.isfinite().all()

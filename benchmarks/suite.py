"""The short suite: attention pooling and features beside plain PyTorch and librosa, in a minute.

Attention pooling: 32 utterances of IEMOCAP-like lengths and 256 units, grouped by length. Features: 3 s of a gliding
voice in noise. Each group is one workload; the figures in brackets are ratios to its fastest. Run::

    pytest benchmarks/suite.py --benchmark-columns=median,iqr,rounds
"""

from collections.abc import Callable

import librosa
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture
from torch.nn import functional

from benchmarks.attention_pool import DIRECTIONS, batch_lengths, check, eager, fused, padded
from serfast.features import FeatureOptions, extract

RATE, HOP = 16000, 160


@pytest.mark.parametrize("peer", ["serfast", "eager", "compile"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_attention_pool(benchmark: BenchmarkFixture, direction: str, dropout: float, peer: str) -> None:
    lengths, generator = batch_lengths("grouped", 32), torch.Generator().manual_seed(1)
    rows = torch.randn(int(lengths.sum()), 256, generator=generator, requires_grad=True)
    query = (torch.randn(256, generator=generator) / 16).requires_grad_()
    batch = padded(rows.detach(), lengths).requires_grad_()
    check(rows, batch, query, lengths, dropout, direction)
    plain = eager(lengths, (lambda scaled: functional.dropout(scaled, dropout)) if dropout > 0 else None)
    pool = {"serfast": fused(lengths, dropout), "eager": plain, "compile": torch.compile(plain)}[peer]
    benchmark.group = f"attention_pool, {direction}, dropout {dropout}"
    benchmark.pedantic(
        DIRECTIONS[direction], (pool, rows if peer == "serfast" else batch, query), rounds=10, warmup_rounds=2
    )


def voice() -> NDArray[np.float32]:
    time_s = np.arange(3 * RATE) / RATE
    phase = 2 * np.pi * np.cumsum(140 * 2 ** (0.4 * np.sin(2 * np.pi * 0.7 * time_s))) / RATE
    harmonics = sum(np.sin(order * phase) / order for order in range(1, 20))
    return (0.1 * harmonics + 0.003 * np.random.default_rng(0).standard_normal(len(time_s))).astype(np.float32)


def librosa_features(waveform: NDArray[np.float32], *, tracker: str) -> NDArray[np.float32]:
    mfcc = librosa.feature.mfcc(
        y=waveform, sr=RATE, n_mfcc=13, n_fft=512, win_length=400, hop_length=HOP, window="hamming", n_mels=40, fmin=20
    )
    limits = {"fmin": 60, "fmax": 500, "sr": RATE, "frame_length": 1024, "hop_length": HOP}
    f0_hz = librosa.yin(waveform, **limits) if tracker == "yin" else librosa.pyin(waveform, fill_na=1.0, **limits)[0]
    columns = np.vstack([mfcc, np.log(f0_hz)])
    return np.vstack([columns, librosa.feature.delta(columns, width=5, mode="nearest")]).T.astype(np.float32)


OPTIONS = FeatureOptions(top_db=80.0)  # librosa's default
EXTRACTORS: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "serfast": lambda waveform: extract(waveform, RATE, OPTIONS),
    "librosa with yin": lambda waveform: librosa_features(waveform, tracker="yin"),
    "librosa with pyin": lambda waveform: librosa_features(waveform, tracker="pyin"),
}


@pytest.mark.parametrize("peer", EXTRACTORS)
def test_features(benchmark: BenchmarkFixture, peer: str) -> None:
    waveform = voice()
    benchmark.group = "28 descriptors of 3 s"
    features = benchmark.pedantic(EXTRACTORS[peer], (waveform,), rounds=3, warmup_rounds=1)
    np.testing.assert_allclose(features[:, :13], EXTRACTORS["serfast"](waveform)[:, :13], atol=1e-3)

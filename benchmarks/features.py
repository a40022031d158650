r"""28 descriptors of 8 utterances of 1 to 4.5 s (22 s) on one core, and of 20 EmoDB recordings if SERFAST_EMODB is set.

Peers: librosa's mfcc and delta with its yin (which decides no voicing) and with its pyin, at the frame length that
suits 16 kHz. Run with::

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 taskset -c 0 \
        pytest benchmarks/features.py --benchmark-columns=median,iqr,rounds
"""

import os
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from serfast.features import FeatureOptions, extract

RATE = 16000
OPTIONS = FeatureOptions(top_db=80.0)  # librosa's default, so that its one-line call is the peer
PITCH_FRAME = 1024

Waveform = NDArray[np.float32]
Features = NDArray[np.float32]


def _utterance(seed: int) -> Waveform:
    """Gliding voiced stretches with formants, noise and pauses between them."""
    generator = np.random.default_rng(seed)
    count = int(RATE * (1 + seed / 2))
    time_s = np.arange(count) / RATE
    f0_hz = generator.uniform(90, 250) * 2 ** (0.3 * np.sin(2 * np.pi * generator.uniform(0.3, 1) * time_s))
    phase = 2 * np.pi * np.cumsum(f0_hz) / RATE
    voice = np.zeros(count)
    for order in range(1, 25):
        gain = sum(1 / (1 + ((order * f0_hz - formant) / 150) ** 2) for formant in (500, 1500, 2500))
        voice += gain * np.sin(order * phase)
    syllable = np.sin(2 * np.pi * 2 * time_s)
    noise = generator.standard_normal(count)
    waveform = 0.1 * np.where(syllable > -0.3, voice, 0) + np.where(syllable < -0.7, 0.02, 1e-4) * noise
    return np.asarray(waveform, dtype=np.float32)


def _synthetic() -> list[Waveform]:
    return [_utterance(seed) for seed in range(8)]


def _emodb() -> list[Waveform]:
    root = os.environ.get("SERFAST_EMODB")
    if not root:
        pytest.skip("needs the EmoDB recordings: set SERFAST_EMODB to the folder that holds wav/")
    return [soundfile.read(path, dtype="float32")[0] for path in sorted((Path(root) / "wav").glob("*.wav"))[::27]]


def _serfast(waveform: Waveform) -> Features:
    return extract(waveform, RATE, OPTIONS)


def _librosa_features(waveform: Waveform, f0_hz: NDArray[np.float64]) -> Features:
    coefficients = librosa.feature.mfcc(
        y=waveform,
        sr=RATE,
        n_mfcc=13,
        n_fft=512,
        win_length=400,
        hop_length=160,
        window="hamming",
        n_mels=40,
        fmin=20,
    )
    static = np.vstack([coefficients, np.log(f0_hz)])
    return np.vstack([static, librosa.feature.delta(static, width=5, mode="nearest")]).T


def _librosa_yin(waveform: Waveform) -> Features:
    f0_hz = librosa.yin(waveform, fmin=60, fmax=500, sr=RATE, frame_length=PITCH_FRAME, hop_length=160)
    return _librosa_features(waveform, f0_hz)


def _librosa_pyin(waveform: Waveform) -> Features:
    f0_hz, _, _ = librosa.pyin(
        waveform, fmin=60, fmax=500, sr=RATE, frame_length=PITCH_FRAME, hop_length=160, fill_na=173.2
    )
    return _librosa_features(waveform, f0_hz)


@pytest.mark.parametrize("corpus", [_synthetic, _emodb], ids=["synthetic", "emodb"])
@pytest.mark.parametrize(
    ("features_of", "rounds"),
    [(_serfast, 30), (_librosa_yin, 7), (_librosa_pyin, 2)],
    ids=["serfast", "librosa_yin", "librosa_pyin"],
)
def test_28_descriptors(
    benchmark: BenchmarkFixture,
    features_of: Callable[[Waveform], Features],
    rounds: int,
    corpus: Callable[[], list[Waveform]],
) -> None:
    waveforms = corpus()
    benchmark.group = f"28 descriptors, {corpus.__name__[1:]}"
    features = benchmark.pedantic(
        lambda: [features_of(waveform) for waveform in waveforms], rounds=rounds, warmup_rounds=1
    )
    audio_s = sum(len(waveform) for waveform in waveforms) / RATE
    benchmark.extra_info["times_real_time"] = round(audio_s / benchmark.stats["median"], 1)
    for waveform, rows in zip(waveforms, features, strict=True):
        np.testing.assert_allclose(rows[:, :13], _serfast(waveform)[:, :13], atol=1e-3)
        assert rows.shape[1] == 28

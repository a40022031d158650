"""Pitch trackers to compare with: each takes a waveform at 16 kHz and gives its frames' times and F0, 0 if unvoiced."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import librosa
import numpy as np
import parselmouth
import pyreaper
import pysptk
from kaldi_native_fbank import PitchExtractionOptions, ProcessPitchOptions, compute_and_process_kaldi_pitch
from numpy.typing import NDArray

from benchmarks.pitch_errors import Track
from serfast.features import track_pitch

__all__ = ["TRACKERS"]

RATE, HOP = 16000, 160
LOW_HZ, HIGH_HZ = 60.0, 500.0
KALDI_VOICED_NCCF = 0.5  # Kaldi gives no decision; this threshold served it best on the development set

Waveform = NDArray[np.float32]


def _serfast(waveform: Waveform) -> Track:
    pitch = track_pitch(waveform, RATE)
    return pitch.times_s, pitch.f0_hz.astype(np.float64)


def _praat(waveform: Waveform) -> Track:
    pitch = parselmouth.Sound(waveform.astype(np.float64), RATE).to_pitch_ac(
        time_step=HOP / RATE, pitch_floor=LOW_HZ, pitch_ceiling=HIGH_HZ
    )
    return pitch.xs(), pitch.selected_array["frequency"]


def _rapt(waveform: Waveform) -> Track:
    f0_hz = pysptk.rapt(waveform * 32768, RATE, HOP, min=LOW_HZ, max=HIGH_HZ, otype="f0").astype(np.float64)
    return np.arange(len(f0_hz)) * HOP / RATE, f0_hz


@contextmanager
def _output_dropped() -> Iterator[None]:
    """REAPER's library writes to the process's standard output."""
    kept = os.dup(1)
    with open(os.devnull, "wb") as sink:  # noqa: PTH123
        os.dup2(sink.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _reaper(waveform: Waveform) -> Track:
    pcm = np.clip(waveform * 32768, -32768, 32767).astype(np.int16)
    with _output_dropped():
        _, _, times_s, f0_hz, _ = pyreaper.reaper(pcm, RATE, minf0=LOW_HZ, maxf0=HIGH_HZ, frame_period=HOP / RATE)
    return times_s.astype(np.float64), np.maximum(f0_hz, 0).astype(np.float64)


def _kaldi(waveform: Waveform) -> Track:
    extraction, processing = PitchExtractionOptions(), ProcessPitchOptions()
    extraction.samp_freq, extraction.min_f0, extraction.max_f0 = RATE, LOW_HZ, HIGH_HZ
    processing.add_raw_log_pitch, processing.add_normalized_log_pitch, processing.add_delta_pitch = True, False, False
    evidence, log_f0 = compute_and_process_kaldi_pitch(extraction, processing, (waveform * 32768).tolist()).T
    nccf = 1.0001 - (evidence / processing.pov_scale + 1) ** (1 / 0.15)  # undoes Kaldi's probability of voicing
    return (np.arange(len(nccf)) + 0.5) * HOP / RATE, np.where(nccf > KALDI_VOICED_NCCF, np.exp(log_f0), 0.0)


def _pyin(waveform: Waveform) -> Track:
    f0_hz, voiced, _ = librosa.pyin(
        waveform, fmin=LOW_HZ, fmax=HIGH_HZ, sr=RATE, frame_length=1024, hop_length=HOP, fill_na=0.0
    )
    return np.arange(len(f0_hz)) * HOP / RATE, np.where(voiced, f0_hz, 0)


TRACKERS = {
    "serfast": _serfast,
    "praat_ac": _praat,
    "rapt": _rapt,
    "reaper": _reaper,
    "kaldi": _kaldi,
    "pyin": _pyin,
}

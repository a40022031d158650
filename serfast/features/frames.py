"""Waveforms as the analysis needs them: checked, at one sample rate, cut into frames."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serfast.features.options import FeatureOptions

__all__ = ["analysis_window", "frame_times_s", "n_frames", "prepare_waveform"]

_INT16_SCALE = np.float32(1 / 32768)
_MAX_MAGNITUDE = np.float32(1e12)  # larger values would overflow float32 when squared and summed


def n_frames(n_samples: int, options: FeatureOptions) -> int:
    """Frames of an utterance of ``n_samples`` samples at the options' sample rate."""
    if options.center:
        return 1 + n_samples // options.hop
    return 1 + (n_samples - options.n_fft) // options.hop


def frame_times_s(count: int, options: FeatureOptions) -> NDArray[np.float64]:
    """Centre of each of ``count`` frames in seconds from the first sample, shape (frame,)."""
    first = 0 if options.center else options.n_fft // 2
    return (first + options.hop * np.arange(count)) / options.sample_rate


def prepare_waveform(waveform: ArrayLike, sample_rate: int, options: FeatureOptions) -> NDArray[np.float32]:
    """Check a waveform and bring it to float32 at the options' sample rate.

    Args:
        waveform: mono samples (sample,), floats or int16; int16 is divided by 32768.
        sample_rate: samples per second of ``waveform``. Other rates than ``options.sample_rate`` are resampled.
        options: the analysis that follows.

    Returns:
        Contiguous float32 samples (sample,) at ``options.sample_rate``.

    Raises:
        TypeError: if ``waveform`` holds neither floats nor int16.
        ValueError: if it is not one-dimensional, not finite or shorter than one analysis window, or if
            ``sample_rate`` is not positive.
    """
    samples = np.asarray(waveform)
    if samples.ndim != 1:
        raise ValueError(f"waveform must have shape (sample,), one channel, got shape {samples.shape}")
    if samples.dtype == np.int16:
        samples = samples.astype(np.float32) * _INT16_SCALE
    elif samples.dtype.kind != "f":
        raise TypeError(f"waveform must hold floats or int16, got {samples.dtype}")
    if not sample_rate > 0:
        raise ValueError(f"sample_rate must be positive, got {sample_rate!r}")
    _check_length(len(samples), sample_rate, options)
    with np.errstate(over="ignore"):  # becomes infinite, which is checked next
        samples = np.ascontiguousarray(samples, dtype=np.float32)
    _check_values(samples)
    if sample_rate == options.sample_rate:
        return samples
    from serfast.audio import resample  # here, because only other sample rates need the resampler

    return np.ascontiguousarray(resample(samples, from_rate=sample_rate, to_rate=options.sample_rate), dtype=np.float32)


def analysis_window(options: FeatureOptions) -> NDArray[np.float64]:
    """The window in the middle of ``n_fft`` samples, shape (n_fft,): periodic, zero outside."""
    offset = 0.54 if options.window == "hamming" else 0.5
    phase = 2 * np.pi * np.arange(options.n_window) / options.n_window
    window = np.zeros(options.n_fft)
    first = (options.n_fft - options.n_window) // 2
    window[first : first + options.n_window] = offset - (1 - offset) * np.cos(phase)
    return window


def _check_length(n_samples: int, sample_rate: int, options: FeatureOptions) -> None:
    needed = options.n_window if options.center else options.n_fft
    at_rate = math.ceil(needed * sample_rate / options.sample_rate)
    if n_samples < at_rate:
        raise ValueError(
            f"waveform must hold at least one analysis window ({at_rate} samples at {sample_rate} Hz), got {n_samples}"
        )


def _check_values(samples: NDArray[np.float32]) -> None:
    sound = np.abs(samples) <= _MAX_MAGNITUDE
    if not sound.all():
        first = int(np.argmin(sound))
        rule = f"be finite and at most {_MAX_MAGNITUDE:g} in magnitude"
        raise ValueError(f"waveform must {rule}, got {samples[first]} at sample {first}")

"""Waveforms as the analysis needs them: checked, at one sample rate, cut into frames."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serfast.features.compilation import kernel
from serfast.features.lanes import LANES, zeros
from serfast.features.options import FeatureOptions

__all__ = [
    "Framing",
    "analysis_window",
    "first_centre",
    "frame_times_s",
    "make_framing",
    "n_frames",
    "padded_samples",
    "prepare_waveform",
]

_INT16_SCALE = np.float32(1 / 32768)
_MAX_MAGNITUDE = np.float32(1e12)  # larger values would overflow float32 when squared and summed
_POVEY_EXPONENT = 0.85


class Framing(NamedTuple):
    """Where frames lie, in samples."""

    lead: int  # of the window of frame 0 before the waveform
    hop: int
    window: int
    mirrored: bool


def n_frames(n_samples: int, options: FeatureOptions) -> int:
    """Frames of an utterance of ``n_samples`` samples at the options' sample rate."""
    hop = options.hop
    if options.framing == "centered":
        return 1 + n_samples // hop
    if options.framing == "mirrored":
        return (n_samples + hop // 2) // hop
    return 1 + (n_samples - _shortest(options)) // hop


def frame_times_s(count: int, options: FeatureOptions) -> NDArray[np.float64]:
    """Centre of each of ``count`` frames in seconds from the first sample, shape (frame,)."""
    return (first_centre(options) + options.hop * np.arange(count)) / options.sample_rate


def first_centre(options: FeatureOptions) -> int:
    """The sample on which frame 0 is centred."""
    return {
        "centered": 0,
        "whole_transforms": options.n_fft // 2,
        "whole_windows": options.n_window // 2,
        "mirrored": options.hop // 2,
    }[options.framing]


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
    if samples.dtype.newbyteorder("=") == np.int16:
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


def make_framing(options: FeatureOptions) -> Framing:
    """Where the frames of ``options`` lie."""
    return Framing(-_first_sample(options), options.hop, options.n_window, options.framing == "mirrored")


@kernel()
def padded_samples(samples: NDArray[np.float32], count: int, framing: Framing) -> NDArray[np.float32]:
    """Copy a waveform so that the window of frame t begins at sample ``t * hop``, in whole groups of frames.

    Outside the waveform lie zeros, or its mirror image.
    """
    hop, lead, n_samples = framing.hop, framing.lead, samples.size
    n_groups = (count + LANES - 1) // LANES + ((framing.window - 1) // hop + LANES - 1) // LANES
    padded: NDArray[np.float32] = zeros(n_groups * LANES * hop + LANES)
    behind = (count - 1) * hop + framing.window
    first, last = max(lead, 0), min(behind, lead + n_samples)
    source, target = samples[first - lead :], padded[first:last]
    for index in range(target.size):  # a slice at once would be copied without registers
        target[index] = source[index]
    if framing.mirrored:
        for index in range(behind):
            if index < lead or index >= lead + n_samples:
                place = (index - lead) % (2 * n_samples)
                padded[index] = samples[min(place, 2 * n_samples - 1 - place)]
    return padded


def analysis_window(options: FeatureOptions) -> NDArray[np.float64]:
    """The window that weighs a frame, shape (n_window,)."""
    count = options.n_window
    if options.window == "povey":
        return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(count) / (count - 1))) ** _POVEY_EXPONENT
    offset = 0.54 if options.window == "hamming" else 0.5
    return offset - (1 - offset) * np.cos(2 * np.pi * np.arange(count) / count)


def _first_sample(options: FeatureOptions) -> int:
    # where the window of frame 0 begins; an odd window is centred as librosa or as Kaldi does
    return {
        "centered": -((options.n_window + 1) // 2),
        "whole_transforms": (options.n_fft - options.n_window) // 2,
        "whole_windows": 0,
        "mirrored": options.hop // 2 - options.n_window // 2,
    }[options.framing]


def _shortest(options: FeatureOptions) -> int:
    if options.framing == "whole_transforms":
        return options.n_fft
    if options.framing == "mirrored":
        return max(options.n_window, options.hop - options.hop // 2)
    return options.n_window


def _check_length(n_samples: int, sample_rate: int, options: FeatureOptions) -> None:
    at_rate = math.ceil(_shortest(options) * sample_rate / options.sample_rate)
    if n_samples < at_rate:
        raise ValueError(
            f"waveform must hold at least one analysis window ({at_rate} samples at {sample_rate} Hz), got {n_samples}"
        )


def _check_values(samples: NDArray[np.float32]) -> None:
    if not _within(samples, _MAX_MAGNITUDE):
        first = int(np.argmin(np.abs(samples) <= _MAX_MAGNITUDE))
        rule = f"be finite and at most {_MAX_MAGNITUDE:g} in magnitude"
        raise ValueError(f"waveform must {rule}, got {samples[first]} at sample {first}")


@kernel()
def _within(samples: NDArray[np.float32], limit: np.float32) -> bool:
    # Whether no magnitude is above the limit, and none NaN.
    n_outside = 0
    for index in range(samples.size):  # an iterator would not be vectorised
        n_outside += not abs(samples[index]) <= limit
    return n_outside == 0

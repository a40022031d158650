"""Further descriptors of a frame, each a column by option.

========================  ==========================================================================================
``voiced``                1 where the pitch tracker finds a voice, 0 elsewhere
``log_energy``            natural logarithm of the window's mean square, unweighted, at least log(1e-10)
``zero_crossing_rate``    changes of sign from sample to sample of the window, per pair of samples; 0 counts as positive
``voicing_probability``   1 / (1 + exp(-odds)), the odds of :mod:`serfast.features.voicing`
``harmonics_to_noise``    10 log10(r / (1 - r)) in decibels, r the correlation of two periods with the two behind them,
                          within -20..40; -20 where unvoiced
``jitter``, ``shimmer``   mean magnitude of the change from period to period, of its length and of its peak, relative to
                          the mean, over the 60 ms about the frame; 0 where fewer than three periods are voiced
``spectral_centroid``     mean frequency in hertz, weighted by magnitude; 0 in silence
``spectral_flux``         Euclidean distance of the magnitudes from those of the frame before, each scaled to sum 1;
                          0 in the first frame and beside silence
========================  ==========================================================================================
"""

import numpy as np
from numpy.typing import NDArray

from serfast.features.compilation import REORDERED, kernel
from serfast.features.frames import make_framing, padded_samples
from serfast.features.options import FeatureOptions
from serfast.features.periods import Perturbation, harmonicity, perturbation
from serfast.features.pitch import PitchTrack
from serfast.features.spectrum import by_frame, power_spectra

__all__ = ["descriptors"]

_ENERGY_FLOOR = 1e-10


def descriptors(
    samples: NDArray[np.float32], pitch: PitchTrack, log_mel: NDArray[np.float32], options: FeatureOptions
) -> list[NDArray[np.float32]]:
    """The columns that ``options`` ask for, in its order, each of shape (frame,) or (frame, column)."""
    count = len(pitch.f0_hz)
    columns = []
    if options.voiced:
        columns.append((pitch.f0_hz > 0).astype(np.float32))
    if options.log_energy or options.zero_crossing_rate:
        columns += _window_columns(samples, count, options)
    if options.voicing_probability:
        columns.append(np.float32(0.5) * (1 + np.tanh(pitch.odds / 2)))
    if options.harmonics_to_noise:
        columns.append(harmonicity(samples, pitch.f0_hz, options))
    if options.jitter or options.shimmer:
        found: Perturbation = perturbation(samples, pitch.f0_hz, options)
        columns += [found.jitter] * options.jitter + [found.shimmer] * options.shimmer
    if options.spectral_centroid or options.spectral_flux or options.log_power:
        powers = power_spectra(samples, options)
        columns += _spectral_columns(powers, options)
    if options.log_mel:
        columns.append(by_frame(log_mel, count))
    if options.log_power:
        columns.append(_logarithmic(powers, options))
    return columns


def _window_columns(samples: NDArray[np.float32], count: int, options: FeatureOptions) -> list[NDArray[np.float32]]:
    energy, crossings = np.empty(count, dtype=np.float32), np.empty(count, dtype=np.float32)
    _scan_windows(
        padded_samples(samples, count, make_framing(options)), options.n_window, options.hop, energy, crossings
    )
    columns = []
    if options.log_energy:
        columns.append(np.log(np.maximum(energy, np.float32(_ENERGY_FLOOR))))
    if options.zero_crossing_rate:
        columns.append(crossings)
    return columns


def _spectral_columns(powers: NDArray[np.float32], options: FeatureOptions) -> list[NDArray[np.float32]]:
    magnitudes = np.sqrt(powers)
    total = magnitudes.sum(axis=1, keepdims=True)
    shares = np.divide(magnitudes, total, out=np.zeros_like(magnitudes), where=total > 0)
    columns = []
    if options.spectral_centroid:
        bins_hz = np.arange(powers.shape[1]) * options.sample_rate / options.n_fft
        columns.append((shares * bins_hz.astype(np.float32)).sum(axis=1))  # a product's bits change with the threads
    if options.spectral_flux:
        flux = np.zeros(len(powers), dtype=np.float32)
        both = (total[1:, 0] > 0) & (total[:-1, 0] > 0)
        flux[1:] = np.where(both, np.sqrt(np.square(np.diff(shares, axis=0)).sum(axis=1)), 0)
        columns.append(flux)
    return columns


def _logarithmic(powers: NDArray[np.float32], options: FeatureOptions) -> NDArray[np.float32]:
    logarithm: NDArray[np.float32] = np.log(np.maximum(powers, np.float32(options.log_floor)))
    if options.log_scale == "decibel":
        logarithm *= np.float32(10 / np.log(10))
    return logarithm


@kernel(fastmath=REORDERED)
def _scan_windows(
    padded: NDArray[np.float32],  # (sample)
    window: int,
    hop: int,
    energy: NDArray[np.float32],  # (frame): mean square
    crossings: NDArray[np.float32],  # (frame): per pair of samples
) -> None:
    for frame in range(energy.size):
        values = padded[frame * hop : frame * hop + window]
        total, changes = 0.0, 0
        for index in range(values.size):
            total += np.float64(values[index]) * np.float64(values[index])
        for index in range(1, values.size):
            changes += (values[index] >= 0) != (values[index - 1] >= 0)
        energy[frame] = total / window
        crossings[frame] = changes / (window - 1)

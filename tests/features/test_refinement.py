"""Refined periods: formants, levels, starting points, the ends of an utterance."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import sosfilt

from serfast.features import FeatureOptions, track_pitch
from serfast.features.refinement import make_refiner, refine_periods

RATE = 8000
HOP = 80
REACH = 200


def _voice(n_samples: int, period: float) -> NDArray[np.float32]:
    """Harmonics below 1.5 kHz."""
    orders = range(1, int(1500 * period / RATE) + 1)
    time = np.arange(n_samples)
    waveform = np.sum([np.cos(2 * np.pi * order * time / period + order**2) / order for order in orders], axis=0)
    return waveform.astype(np.float32)


def _refined(waveform: NDArray[np.float32], periods: NDArray[np.float32]) -> NDArray[np.float32]:
    refined = periods.copy()
    refine_periods(waveform, make_refiner(RATE, HOP, REACH, 150), refined)
    return refined


def _cents(estimate: NDArray[np.float32], truth: float) -> NDArray[np.float64]:
    return 1200 * np.log2(estimate.astype(np.float64) / truth)


@pytest.mark.parametrize("period", [17.3, 40.0, 66.6, 120.9])
@pytest.mark.parametrize("offset", [-2.4, 0.0, 2.4])
def test_the_period_is_found_from_an_estimate_beside_it(period: float, offset: float) -> None:
    start = np.full(50, period + offset, dtype=np.float32)
    refined = _refined(_voice(2 * REACH + 50 * HOP, period), start)
    assert np.abs(_cents(refined, period)).max() < 4


@pytest.mark.parametrize("period", [25.3, 40.0, 66.6])
def test_steady_voice_in_noise_is_measured_over_several_periods(period: float) -> None:
    # As much noise as voice. Over one period alone, the mean error is 19 to 34 cents.
    generator = np.random.default_rng(0)
    voice = _voice(2 * REACH + 300 * HOP, period)
    noisy = voice + generator.normal(0, voice.std(), len(voice)).astype(np.float32)
    start = (period + generator.uniform(-2, 2, 300)).astype(np.float32)
    assert np.abs(_cents(_refined(noisy, start), period)).mean() < 10


def test_unvoiced_frames_stay_unvoiced_and_count_for_nothing() -> None:
    waveform = _voice(2 * REACH + 50 * HOP, 57.0)
    periods = np.full(50, 57.0, dtype=np.float32)
    periods[::7] = 0
    refined = _refined(waveform, periods)
    assert not refined[::7].any()
    assert np.abs(_cents(refined[periods > 0], 57.0)).max() < 1
    assert not _refined(waveform, np.zeros(50, dtype=np.float32)).any()


def test_ends_of_a_stretch_that_do_not_repeat_become_unvoiced() -> None:
    waveform = _voice(2 * REACH + 50 * HOP, 57.0)
    noisy = waveform.copy()
    noisy[REACH + 40 * HOP :] = np.random.default_rng(0).standard_normal(len(noisy) - REACH - 40 * HOP)
    periods = np.full(50, 57.0, dtype=np.float32)
    assert _refined(waveform, periods).all()
    refined = _refined(noisy, periods)
    assert refined[:39].all()
    assert not refined[-1]


@pytest.mark.parametrize("decibels_per_second", [-300.0, 300.0])
def test_level_that_rises_or_falls_does_not_move_the_estimate_of_a_glide(decibels_per_second: float) -> None:
    # On an even level, frames tell the pitch at their centres. A slope of 300 dB per second is that of an onset.
    count = 2 * REACH + 50 * HOP
    frequency_hz = np.geomspace(100, 250, count)
    phase = 2 * np.pi * np.cumsum(frequency_hz) / RATE
    waveform = np.sum([np.cos(order * phase + order**2) / order for order in range(1, 7)], axis=0)
    place = REACH + HOP * np.arange(50)
    seconds = (np.arange(count) - count / 2) / RATE
    level = 10 ** (decibels_per_second * seconds / 20)
    periods = (RATE / frequency_hz[place]).astype(np.float32)
    error = np.mean(_cents(RATE / _refined((level * waveform).astype(np.float32), periods), 1.0))
    even = np.mean(_cents(RATE / _refined(waveform.astype(np.float32), periods), 1.0))
    assert abs(error - even) < 3


def _vowel(f0_hz: float, formant_hz: NDArray[np.float64]) -> NDArray[np.float32]:
    """Impulses of exact F0 through one resonance that moves, a filter per 1 ms whose state is carried over."""
    rate = 16000
    pulses = np.sum([np.cos(2 * np.pi * order * f0_hz * np.arange(rate) / rate) for order in range(1, 20)], axis=0)
    state = np.zeros((1, 2))
    blocks = []
    for first in range(0, rate, 16):
        radius, angle = np.exp(-np.pi * 80 / rate), 2 * np.pi * formant_hz[first] / rate
        section = np.array([[1 - radius, 0, 0, 1, -2 * radius * np.cos(angle), radius**2]])
        block, state = sosfilt(section, pulses[first : first + 16], zi=state)
        blocks.append(block)
    return np.concatenate(blocks).astype(np.float32)


@pytest.mark.parametrize("f0_hz", [90.0, 130.0, 210.0])
def test_formant_that_moves_hardly_bends_the_pitch(f0_hz: float) -> None:
    # From 300 to 750 Hz and back in 0.4 s, as between close and open vowels. The correlation of the waveform alone errs
    # by 13 to 17 cents.
    formant_hz = 525 - 225 * np.cos(2 * np.pi * np.arange(16000) / 6400)
    pitch = track_pitch(_vowel(f0_hz, formant_hz), 16000)
    inside = slice(4, -4)
    assert pitch.voiced[inside].all()
    error = 1200 * np.log2(pitch.f0_hz[inside] / f0_hz)
    assert np.abs(error).mean() < 5


@pytest.mark.parametrize("period", [15.0, 74.7, 150.0])
def test_nothing_outside_the_waveform_is_looked_at(period: float) -> None:
    refiner = make_refiner(RATE, HOP, REACH, 150)
    generator = np.random.default_rng(1)
    around = generator.normal(0, 10, refiner.shortest + 2000).astype(np.float32)
    alone = np.zeros_like(around)
    inside = slice(1000, 1000 + refiner.shortest)
    around[inside] = alone[inside] = _voice(refiner.shortest, period) + generator.normal(0, 0.5, refiner.shortest)
    found = np.full((2, 12), period, dtype=np.float32)
    for waveform, periods in zip((around, alone), found, strict=True):
        refine_periods(waveform[inside], refiner, periods)
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize(("sample_rate", "hop_ms"), [(16000, 0.0625), (16000, 1.0), (8000, 0.125), (44100, 20.0)])
def test_any_framing_is_measured_inside_the_utterance(sample_rate: int, hop_ms: float) -> None:
    options = FeatureOptions(
        sample_rate=sample_rate, hop_ms=hop_ms, n_fft=2048, mel_high_hz=sample_rate / 2, pitch_low_hz=20
    )
    waveform = np.sin(2 * np.pi * 80 * np.arange(sample_rate // 10) / sample_rate)
    pitch = track_pitch(waveform, sample_rate, options)
    assert pitch.voiced.any()
    assert np.abs(1200 * np.log2(pitch.f0_hz[pitch.voiced] / 80)).max() < 100

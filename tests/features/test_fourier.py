"""Spectra of frames, against NumPy's in double precision."""

import numpy as np
import pytest

from serfast.features.fourier import make_scratch, make_transform, spectra
from serfast.features.lanes import LANES


@pytest.mark.parametrize("n_fft", [4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize(
    ("pre_emphasis", "remove_mean", "hop_share"),
    [(0.0, False, 0.4), (0.9, False, 1.0), (0.0, True, 1.7), (0.97, True, 0.3)],
)
def test_spectra_equal_numpy(
    n_fft: int, squared: bool, pre_emphasis: float, remove_mean: bool, hop_share: float
) -> None:
    n_window, hop = n_fft - n_fft // 5, max(1, round(hop_share * n_fft))
    generator = np.random.default_rng(n_fft)
    window = generator.uniform(0.1, 1, n_window)
    samples = generator.standard_normal(6 * LANES * n_fft).astype(np.float32)
    transform = make_transform(window, n_fft, hop, pre_emphasis=pre_emphasis, remove_mean=remove_mean, squared=squared)
    scratch = make_scratch(transform)
    for group in range(2):
        spectra(samples, group, transform, scratch)
        first = group * LANES * hop
        frames = np.stack([samples[first + hop * lane :][:n_window] for lane in range(LANES)]).astype(np.float64)
        if remove_mean:
            frames -= frames.mean(axis=1, keepdims=True)
        frames -= pre_emphasis * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
        expected = np.abs(np.fft.rfft(frames * window, n_fft).T) ** (2 if squared else 1)
        found = scratch.spectrum.reshape(-1, LANES)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * expected.max())

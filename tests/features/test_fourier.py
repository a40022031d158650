"""Spectra of frames, against NumPy's in double precision."""

import numpy as np
import pytest

from serfast.features.fourier import make_scratch, make_transform, spectra
from serfast.features.lanes import LANES


@pytest.mark.parametrize("n_fft", [4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096])
@pytest.mark.parametrize("squared", [False, True])
def test_spectra_equal_numpy(n_fft: int, squared: bool) -> None:
    n_window, hop = n_fft - n_fft // 5, n_fft // 3
    generator = np.random.default_rng(n_fft)
    window = generator.uniform(0.1, 1, n_window)
    samples = generator.standard_normal(4 * LANES * n_fft).astype(np.float32)
    transform = make_transform(window, n_fft, hop, pre_emphasis=0.0, remove_mean=False, squared=squared)
    scratch = make_scratch(transform)
    for group in range(2):
        spectra(samples, group, transform, scratch)
        first = group * LANES * hop
        frames = np.stack([samples[first + hop * lane :][:n_window] for lane in range(LANES)]).astype(np.float64)
        expected = np.abs(np.fft.rfft(frames * window, n_fft).T) ** (2 if squared else 1)
        found = scratch.spectrum.reshape(-1, LANES)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * expected.max())

"""Freeze what kaldi-native-fbank and Praat say of the tests' voices.

Made with kaldi-native-fbank 1.23.0 and praat-parselmouth 0.4.7 (Praat 6.1.38), from the repository root::

    python -m tests.features.frozen.make
"""

from pathlib import Path

import numpy as np
import parselmouth
from kaldi_native_fbank import MfccOptions, OnlineMfcc
from numpy.typing import NDArray
from parselmouth.praat import call

from tests.features.voices import PERTURBATIONS, RATE, gliding_voice, pulsed_voice


def kaldi_mfcc(snip_edges: bool) -> NDArray[np.float32]:
    options = MfccOptions()
    options.frame_opts.dither = 0
    options.frame_opts.samp_freq = RATE
    options.frame_opts.snip_edges = snip_edges
    options.use_energy = False
    options.mel_opts.num_bins, options.mel_opts.high_freq, options.num_ceps = 23, RATE / 2, 13
    mfcc = OnlineMfcc(options)
    mfcc.accept_waveform(RATE, gliding_voice().tolist())
    mfcc.input_finished()
    return np.stack([mfcc.get_frame(index) for index in range(mfcc.num_frames_ready)])


def praat_voice(jitter: float, shimmer: float) -> list[float]:
    sound = parselmouth.Sound(pulsed_voice(jitter, shimmer).astype(np.float64), RATE)
    points = call(sound, "To PointProcess (periodic, cc)", 60, 500)
    return [
        call(points, "Get jitter (local)", 0, 0, 1e-4, 0.02, 1.3),
        call([sound, points], "Get shimmer (local)", 0, 0, 1e-4, 0.02, 1.3, 1.6),
    ]


if __name__ == "__main__":
    np.savez_compressed(
        Path(__file__).parent / "frozen.npz",
        kaldi_whole_windows=kaldi_mfcc(True),
        kaldi_mirrored=kaldi_mfcc(False),
        praat_jitter_shimmer=[praat_voice(*changes) for changes in PERTURBATIONS],
    )

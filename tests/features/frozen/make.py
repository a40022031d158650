"""Freeze what kaldi-native-fbank and Praat say of the tests' voices, and Kaldi of EmoDB.

Made with kaldi-native-fbank 1.23.0 (x86-64) and praat-parselmouth 0.4.7 (Praat 6.1.38), from the repository root::

    SERFAST_EMODB=/path/to/emodb python -m tests.features.frozen.make
"""

import os
from pathlib import Path

import numpy as np
import parselmouth
import soundfile
from kaldi_native_fbank import MfccOptions, OnlineMfcc
from numpy.typing import NDArray
from parselmouth.praat import call

from tests.features.voices import PERTURBATIONS, RATE, gliding_voice, pulsed_voice, steep_noise


def kaldi_mfcc(
    samples: NDArray[np.float32], *, snip_edges: bool = True, n_mels: int = 23, n_mfcc: int = 13, high_hz: float = 8000
) -> NDArray[np.float32]:
    options = MfccOptions()
    options.frame_opts.dither = 0
    options.frame_opts.samp_freq = RATE
    options.frame_opts.snip_edges = snip_edges
    options.use_energy = False
    options.mel_opts.num_bins, options.mel_opts.high_freq, options.num_ceps = n_mels, high_hz, n_mfcc
    mfcc = OnlineMfcc(options)
    mfcc.accept_waveform(RATE, samples.tolist())
    mfcc.input_finished()
    return np.stack([mfcc.get_frame(index) for index in range(mfcc.num_frames_ready)])


def kaldi_emodb(root: Path) -> dict[str, NDArray[np.generic]]:
    """Of each recording the frame whose low bands are furthest below the high ones: C1 is least."""
    names, frames, coefficients = [], [], []
    for path in sorted((root / "wav").glob("*.wav")):
        mfcc = kaldi_mfcc(soundfile.read(path, dtype="float32")[0])
        names.append(path.name)
        frames.append(np.argmin(mfcc[:, 1]))
        coefficients.append(mfcc[frames[-1]])
    return {
        "emodb_names": np.array(names),
        "emodb_frames": np.array(frames),
        "emodb_kaldi": np.stack(coefficients),
    }


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
        kaldi=kaldi_mfcc(gliding_voice()),
        kaldi_mirrored=kaldi_mfcc(gliding_voice(), snip_edges=False),
        kaldi_forty_bands=kaldi_mfcc(gliding_voice(), n_mels=40, n_mfcc=40, high_hz=7600),
        kaldi_many_bands=kaldi_mfcc(gliding_voice(), n_mels=64, n_mfcc=40),
        kaldi_steep=kaldi_mfcc(steep_noise()),
        praat_jitter_shimmer=[praat_voice(*changes) for changes in PERTURBATIONS],
        **kaldi_emodb(Path(os.environ["SERFAST_EMODB"])),
    )

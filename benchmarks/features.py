"""Speed of 28 descriptors, of MFCC and of pitch alone, on one core, beside librosa, openSMILE, Kaldi, Praat and RAPT.

Every 13th EmoDB recording, two minutes of speech at 16 kHz, from samples in memory; ``serfast from WAV`` also reads and
decodes the file. One thread, peers in turn in one process, medians over the rounds; slow peers take a part of the set.
``x real time`` is seconds of audio per second of processor time, which other work on the machine changes least. How far
our MFCC are from Kaldi's is taken from all recordings. Run with::

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 SERFAST_EMODB=path/to/emodb taskset -c 0 python -m benchmarks.features
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kaldi_native_fbank as knf
import librosa
import numpy as np
import opensmile
import pyworld
import soundfile
from numpy.typing import NDArray

from benchmarks.machine import machine
from benchmarks.pitch_trackers import TRACKERS
from serfast.features import FeatureOptions, extract, extract_file, track_pitch
from serfast.features.spectrum import mfcc

RATE, HOP = 16000, 160
ROUNDS = 5
EVERY = 13
SLOW_SHARE = 6  # one utterance in six for peers that take longer
OPTIONS = FeatureOptions(top_db=80.0)  # librosa's default, so that its one-line call is the peer

Waveform = NDArray[np.float32]


def _librosa_mfcc(waveform: Waveform) -> NDArray[np.float32]:
    return librosa.feature.mfcc(
        y=waveform,
        sr=RATE,
        n_mfcc=13,
        n_fft=512,
        win_length=400,
        hop_length=HOP,
        window="hamming",
        n_mels=40,
        fmin=20,
    )


def _with_slopes(coefficients: NDArray[np.float32], f0_hz: NDArray[np.float64]) -> NDArray[np.float32]:
    count = min(coefficients.shape[1], len(f0_hz))
    static = np.vstack([coefficients[:, :count], f0_hz[:count]])
    return np.vstack([static, librosa.feature.delta(static, width=5, mode="nearest")]).T


def _librosa_yin(waveform: Waveform) -> NDArray[np.float32]:
    f0_hz = librosa.yin(waveform, fmin=60, fmax=500, sr=RATE, frame_length=1024, hop_length=HOP)
    return _with_slopes(_librosa_mfcc(waveform), f0_hz)


def _librosa_pyin(waveform: Waveform) -> NDArray[np.float32]:
    return _with_slopes(_librosa_mfcc(waveform), TRACKERS["pyin"](waveform)[1])


def _kaldi_mfcc(waveform: Waveform) -> NDArray[np.float32]:
    options = knf.MfccOptions()
    options.frame_opts.dither, options.mel_opts.num_bins, options.use_energy = 0, 40, False
    kaldi = knf.OnlineMfcc(options)
    kaldi.accept_waveform(RATE, waveform.tolist())
    kaldi.input_finished()
    return np.stack([kaldi.get_frame(index) for index in range(kaldi.num_frames_ready)]).T


def _kaldi(waveform: Waveform) -> NDArray[np.float32]:
    return _with_slopes(_kaldi_mfcc(waveform), TRACKERS["kaldi"](waveform)[1])


def _kaldi_praat(waveform: Waveform) -> NDArray[np.float32]:
    return _with_slopes(_kaldi_mfcc(waveform), TRACKERS["praat_ac"](waveform)[1])


_SMILE = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.LowLevelDescriptors)

PEERS: dict[str, dict[str, Callable[[Waveform], object]]] = {
    "28 descriptors": {
        "serfast": lambda waveform: extract(waveform, RATE, OPTIONS),
        "librosa mfcc + pyin + delta": _librosa_pyin,
        "librosa mfcc + yin + delta": _librosa_yin,
        "openSMILE eGeMAPSv02, 25 descriptors": lambda waveform: _SMILE.process_signal(waveform, RATE),
        "Kaldi mfcc + Praat ac + delta": _kaldi_praat,
        "Kaldi mfcc + Kaldi pitch + delta": _kaldi,
    },
    "MFCC": {
        "serfast": lambda waveform: mfcc(waveform, OPTIONS),
        "librosa": _librosa_mfcc,
        "Kaldi": _kaldi_mfcc,
    },
    "pitch": {
        "serfast": lambda waveform: track_pitch(waveform, RATE),
        "librosa pyin": TRACKERS["pyin"],
        "Praat ac": TRACKERS["praat_ac"],
        "DIO + stonemask": lambda waveform: pyworld.stonemask(
            waveform.astype(float), *pyworld.dio(waveform.astype(float), RATE), RATE
        ),
        "RAPT": TRACKERS["rapt"],
        "REAPER": TRACKERS["reaper"],
        "Kaldi": TRACKERS["kaldi"],
    },
}
SLOW = ("pyin", "openSMILE", "REAPER", "Praat", "DIO")


def check(waveforms: list[Waveform]) -> None:
    """The same MFCC as librosa's, and 28 columns."""
    for waveform in waveforms:
        features = extract(waveform, RATE, OPTIONS)
        np.testing.assert_allclose(features[:, :13], _librosa_mfcc(waveform).T, atol=1e-3)
        assert features.shape[1] == 28


def differences_from_kaldi(paths: list[Path]) -> dict[str, float]:
    """How far MFCC with Kaldi's options, 40 mel bands, are from Kaldi's over all frames of the recordings."""
    options = FeatureOptions.kaldi(n_mels=40)
    errors = []
    for path in paths:
        waveform, _ = soundfile.read(path, dtype="float32")
        errors.append(np.abs(mfcc(waveform, options) - _kaldi_mfcc(waveform).T).max(axis=1))
    error = np.concatenate(errors)
    return {"frames": len(error), "largest": float(error.max()), "share_above_1e-4": float((error > 1e-4).mean())}


def speeds(paths: list[Path]) -> dict[str, dict[str, dict[str, float]]]:
    """Seconds of audio per second by group and peer: median, least and most by processor time, median by the clock."""
    waveforms = [soundfile.read(path, dtype="float32")[0] for path in paths]
    check(waveforms)
    tasks: dict[tuple[str, str], tuple[Callable[[Any], object], list[Any]]] = {
        ("28 descriptors", "serfast from WAV"): (lambda path: extract_file(path, OPTIONS), paths)
    }
    for group, peers in PEERS.items():
        for name, peer in peers.items():
            tasks[group, name] = (peer, waveforms[::SLOW_SHARE] if any(slow in name for slow in SLOW) else waveforms)
    timings: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in tasks}
    for round_number in range(ROUNDS + 1):
        for key, (peer, inputs) in tasks.items():
            started, used = time.perf_counter(), time.process_time()
            for item in inputs:
                peer(item)
            if round_number > 0:
                timings[key].append((time.perf_counter() - started, time.process_time() - used))
    durations_s = {True: sum(map(len, waveforms)) / RATE, False: sum(map(len, waveforms[::SLOW_SHARE])) / RATE}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (group, name), pairs in timings.items():
        audio_s = durations_s[len(tasks[group, name][1]) == len(waveforms)]
        wall_s, cpu_s = np.array(pairs).T
        found.setdefault(group, {})[name] = {
            "times_real_time": audio_s / float(np.median(cpu_s)),
            "least": audio_s / float(cpu_s.max()),
            "most": audio_s / float(cpu_s.min()),
            "by_the_clock": audio_s / float(np.median(wall_s)),
        }
    return found


def main() -> None:
    """Measure, print and record."""
    paths = sorted((Path(os.environ["SERFAST_EMODB"]) / "wav").glob("*.wav"))
    difference = differences_from_kaldi(paths)
    print(f"MFCC differ from Kaldi's by {difference['largest']:.1e} at most in {difference['frames']:,} frames")
    results: dict[str, Any] = {"machine": machine(), "from_kaldi": difference, **speeds(paths[::EVERY])}
    for group in PEERS:
        own = results[group]["serfast"]["times_real_time"]
        for name, found in sorted(results[group].items(), key=lambda entry: -entry[1]["times_real_time"]):
            spread = f"{found['least']:,.0f} to {found['most']:,.0f}"
            ratio = own / found["times_real_time"]
            print(
                f"{group:<16}{name:<38}{found['times_real_time']:>10,.0f} x real time ({spread}), "
                f"serfast {ratio:,.1f} times as fast"
            )
    path = Path(__file__).parent / "results" / "features.json"
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

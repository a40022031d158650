"""Pitch accuracy where F0 is known exactly, clean and with white and babble noise at 10 dB, beside five peers.

Voicing error (VDE): share of frames whose voicing is wrong. Gross error (GPE): share of the frames voiced in both whose
F0 is more than 20 % off. Frame error (FFE): share of all frames with either. Fine error: mean magnitude in cents where
F0 is not grossly wrong. Frames of all utterances of a condition count alike.

Settings are tuned on the development set only: speakers and seeds of the test set are others. Trackers place their
frames differently: each is scored at the lag, out of -10 to 15 ms, that serves it best on the development set. Run
with::

    SERFAST_EMODB=path/to/emodb python -m benchmarks.pitch_accuracy [TRACKER ...]

Trackers that are named replace their figures in the recorded results; without names, all do.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from benchmarks.machine import machine
from benchmarks.pitch_errors import MEASURES, Track, errors
from benchmarks.pitch_signals import Signal, add_babble, add_white, glottal_speech, world_speech
from benchmarks.pitch_trackers import TRACKERS

SNR_DB = 10.0
Tracker = Callable[[NDArray[np.float32]], Track]
BABBLE_VOICES = 8
LAGS_S = np.arange(-4, 7) * 0.0025
SPEAKERS = {"development": ("03", "08", "09", "10", "11"), "test": ("12", "13", "14", "15", "16")}
FIRST_SEED = {"development": 1000, "test": 2000}
N_UTTERANCES = {"development": 30, "test": 60}


def conditions(part: str) -> dict[str, list[Signal]]:
    """Signals of the development or the test set by truth and noise."""
    count = N_UTTERANCES[part]
    paths = sorted(
        path for path in (Path(os.environ["SERFAST_EMODB"]) / "wav").glob("*.wav") if path.name[:2] in SPEAKERS[part]
    )
    generator = np.random.default_rng(FIRST_SEED[part])
    order = generator.permutation(len(paths))
    recordings = [soundfile.read(paths[index], dtype="float32")[0] for index in order]
    truths = {
        "glottal": [glottal_speech(FIRST_SEED[part] + number) for number in range(count)],
        "world": [world_speech(recording) for recording in recordings[:count]],
    }
    others = recordings[count:]
    signals = {}
    for truth, clean in truths.items():
        signals[f"{truth} clean"] = clean
        signals[f"{truth} white"] = [add_white(signal, SNR_DB, number) for number, signal in enumerate(clean)]
        signals[f"{truth} babble"] = [
            add_babble(
                signal, [others[index] for index in generator.permutation(len(others))[:BABBLE_VOICES]], SNR_DB, number
            )
            for number, signal in enumerate(clean)
        ]
    return signals


def measure(tracker: Tracker, by_condition: dict[str, list[Signal]], lag_s: float | None) -> dict[str, Any]:
    """Errors of a tracker by condition and their means, at ``lag_s`` or at the lag of the least mean frame error."""
    tracks = {name: [tracker(signal.waveform) for signal in signals] for name, signals in by_condition.items()}
    best: dict[str, Any] = {}
    for lag in LAGS_S if lag_s is None else [lag_s]:
        found = {name: errors(tracks[name], signals, lag) for name, signals in by_condition.items()}
        found["mean"] = {key: float(np.mean([values[key] for values in found.values()])) for key in MEASURES}
        if not best or found["mean"]["FFE"] < best["mean"]["FFE"]:
            best = {**found, "lag_s": float(lag)}
    return best


def main() -> None:
    """Score every tracker, print a table and write it beside the other results."""
    development, test = conditions("development"), conditions("test")
    path = Path(__file__).parent / "results" / "pitch_accuracy.json"
    results: dict[str, Any] = {**json.loads(path.read_text()), "machine": machine()}
    print("tracker   part         " + "".join(f"{name:>24}" for name in [*test, "mean"]))
    for name in sys.argv[1:] or TRACKERS:
        tracker = TRACKERS[name]
        tuned = measure(tracker, development, None)
        results["trackers"][name] = {"development": tuned, "test": measure(tracker, test, tuned["lag_s"])}
        for part, found in results["trackers"][name].items():
            cells = ["  " + " / ".join(f"{found[column][key]:.2f}" for key in MEASURES) for column in [*test, "mean"]]
            print(f"{name:<10}{part:<13}" + "".join(f"{cell:>24}" for cell in cells), flush=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

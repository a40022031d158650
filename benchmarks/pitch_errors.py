"""How far estimates of F0 are from the truth."""

import numpy as np
from numpy.typing import NDArray

from benchmarks.pitch_signals import RATE, Signal

__all__ = ["MEASURES", "Track", "errors"]

GROSS = 0.2
MEASURES = ("VDE", "GPE", "FFE", "cents")
Track = tuple[NDArray[np.float64], NDArray[np.float64]]  # times of the frames in seconds, and F0 in hertz


def errors(tracks: list[Track], signals: list[Signal], lag_s: float) -> dict[str, float]:
    """VDE, GPE and FFE in percent and the fine error in cents, of estimates that hold ``lag_s`` after their times."""
    n_frames = n_wrong_voicing = n_both = n_gross = 0
    cents = []
    for (times_s, f0_hz), signal in zip(tracks, signals, strict=True):
        place = np.round((times_s + lag_s) * RATE).astype(int)
        inside = (place >= 0) & (place < len(signal.f0_hz))
        truth, estimate = signal.f0_hz[place[inside]], f0_hz[inside]
        both = (truth > 0) & (estimate > 0)
        gross = both & (np.abs(estimate / np.where(both, truth, 1) - 1) > GROSS)
        fine = both & ~gross
        n_frames += len(truth)
        n_wrong_voicing += int(((truth > 0) != (estimate > 0)).sum())
        n_both += int(both.sum())
        n_gross += int(gross.sum())
        cents.append(1200 * np.abs(np.log2(estimate[fine] / truth[fine])))
    return {
        "VDE": 100 * n_wrong_voicing / n_frames,
        "GPE": 100 * n_gross / max(n_both, 1),
        "FFE": 100 * (n_wrong_voicing + n_gross) / n_frames,
        "cents": float(np.concatenate(cents).mean()),
    }

"""The path through the candidates of all frames that costs least: Viterbi's algorithm, with being unvoiced as a state.

Source: Boersma (1993), Accurate short-term analysis of the fundamental frequency; Viterbi (1967).
"""

import numpy as np
from numpy.typing import NDArray

from serfast.features.compilation import kernel
from serfast.features.correlation import N_CANDIDATES, Candidates

__all__ = ["best_path"]

_UNVOICED = N_CANDIDATES  # the state behind the candidates
_OCTAVE_COST = 0.065  # correlation that a candidate an octave lower must gain, else multiples of a period would tie
_JUMP_COST = 0.8  # per octave between two frames of 10 ms
_VOICING_COST = 0.14  # per change between voiced and unvoiced in 10 ms


@kernel()
def best_path(candidates: Candidates, unvoiced: NDArray[np.float32], hop_ms: float) -> NDArray[np.int64]:
    """Candidate of every frame, -1 where it is unvoiced.

    Args:
        candidates: peaks of every frame.
        unvoiced: correlation that being unvoiced is worth, shape (frame,).
        hop_ms: step between frames.
    """
    chosen = np.empty(unvoiced.size, dtype=np.int64)
    origins = np.empty((unvoiced.size, N_CANDIDATES + 1), dtype=np.int8)
    _viterbi(candidates, unvoiced, _JUMP_COST * 10 / hop_ms, _VOICING_COST * 10 / hop_ms, origins, chosen)
    return chosen


@kernel()
def _viterbi(
    candidates: Candidates,
    unvoiced: NDArray[np.float32],  # (frame)
    jump_cost: float,  # per octave
    voicing_cost: float,
    origins: NDArray[np.int8],  # (frame, state): best state before
    chosen: NDArray[np.int64],  # (frame)
) -> None:
    scores, scores_before = np.zeros(N_CANDIDATES + 1), np.zeros(N_CANDIDATES + 1)
    count_before = 0
    scores_before[_UNVOICED] = voicing_cost  # so that no state pays for a change before the first frame
    for frame in range(unvoiced.size):
        count = candidates.counts[frame]
        best, origin = scores_before[_UNVOICED], _UNVOICED
        best_voiced, from_unvoiced = -np.inf, best - voicing_cost
        for before in range(count_before):
            if scores_before[before] > best_voiced:
                best_voiced = scores_before[before]
                if best_voiced - voicing_cost > best:
                    best, origin = best_voiced - voicing_cost, before
        scores[_UNVOICED] = best + unvoiced[frame] - (voicing_cost if frame == 0 else 0.0)
        origins[frame, _UNVOICED] = origin
        for state in range(count):
            best, origin = from_unvoiced, _UNVOICED
            octave = candidates.octaves[frame, state]
            for before in range(count_before):
                score = scores_before[before] - jump_cost * abs(octave - candidates.octaves[frame - 1, before])
                if score > best:
                    best, origin = score, before
            origins[frame, state] = origin
            scores[state] = best + candidates.heights[frame, state] + _OCTAVE_COST * octave
        scores, scores_before = scores_before, scores
        count_before = count
    state = _UNVOICED
    for before in range(count_before):
        if scores_before[before] > scores_before[state]:
            state = before
    for frame in range(unvoiced.size - 1, -1, -1):
        chosen[frame] = state if state != _UNVOICED else -1
        state = origins[frame, state]

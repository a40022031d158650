"""Segments of an utterance: windows of consecutive frames, of which the loudest count."""

import numpy as np
from numpy.typing import NDArray

from serfast.features.normaliser import FrameSource

__all__ = ["SegmentSource", "loudest_segments"]


class SegmentSource:
    """The loudest segments of each utterance of ``source``, read like a source whose rows are segments.

    A segment is ``n_frames`` consecutive frames laid end to end; one starts at every frame that leaves room for it.
    An utterance that is shorter than a segment has one, filled up with its last frame.

    Args:
        source: what the segments hold, (row, feature).
        log_energy: natural logarithm of the energy of the same frames, (row, 1), not standardised.
        n_frames: frames of a segment.
        share: share of an utterance's segments that is kept, rounded up.

    Source: Han, Yu and Tashev (2014), section 2.1.
    """

    def __init__(self, source: FrameSource, log_energy: FrameSource, *, n_frames: int, share: float) -> None:
        self._source, self._log_energy = source, log_energy
        self._n_frames, self._share = n_frames, share
        self._lengths = _n_kept(np.maximum(source.lengths - n_frames + 1, 1), share)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Segments kept of each utterance, at least 1, (utterance,)."""
        return self._lengths

    def gather(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Segments of the utterances ``indices`` in their order in time, end to end, (row, n_frames * feature)."""
        limits = np.cumsum(self._source.lengths[indices])[:-1]
        frames = np.split(self._source.gather(indices), limits)
        log_energies = np.split(self._log_energy.gather(indices)[:, 0], limits)
        pieces = []
        for utterance, log_energy in zip(frames, log_energies, strict=True):
            first = loudest_segments(log_energy, n_frames=self._n_frames, share=self._share)
            places = np.minimum(first[:, None] + np.arange(self._n_frames), len(utterance) - 1)
            pieces.append(utterance[places].reshape(len(first), -1))
        return np.concatenate(pieces)


def loudest_segments(log_energy: NDArray[np.float32], *, n_frames: int, share: float) -> NDArray[np.int64]:
    """First frames, ascending, of the segments with the most energy, the sum of their frames' energies.

    Args:
        log_energy: natural logarithm of the energy of each frame of an utterance, (frame,).
        n_frames: frames of a segment.
        share: share of the utterance's segments that is kept, rounded up. Among equals the earlier is kept.
    """
    if len(log_energy) <= n_frames:
        return np.zeros(1, dtype=np.int64)
    energy = np.exp(log_energy.astype(np.float64))
    of_segment = np.lib.stride_tricks.sliding_window_view(energy, n_frames).sum(axis=1)
    loudest_first = np.argsort(-of_segment, kind="stable")
    n_kept = _n_kept(np.array([len(of_segment)]), share)[0]
    return np.sort(loudest_first[:n_kept])


def _n_kept(n_segments: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    # Rounded to millionths before it is rounded up: 0.07 of 100 is 7, although the product is a little more.
    return np.ceil(np.round(share * n_segments, 6)).astype(np.int64)

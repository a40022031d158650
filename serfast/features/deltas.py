"""Regression deltas: the slope of each feature over a few frames."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["deltas"]


def deltas(features: NDArray[np.float32], *, width: int = 5, edge: str = "nearest") -> NDArray[np.float32]:
    r"""Slope of the least-squares line through ``width`` frames, per frame and feature.

    .. math:: d_t = \frac{\sum_{k=1}^{K} k (x_{t+k} - x_{t-k})}{2 \sum_{k=1}^{K} k^2}, \qquad K = (width - 1) / 2

    Args:
        features: shape (frame, feature).
        width: frames of the line, odd, at least 3.
        edge: "nearest" repeats the first and the last frame beyond the ends; "interp" repeats the first and the last
            complete slope, which is the slope of the line through the outermost ``width`` frames.

    Returns:
        Slopes per frame, shape (frame, feature), float32.

    Raises:
        ValueError: if ``edge`` is "interp" and there are fewer than ``width`` frames.

    Source: Young et al., The HTK Book, section 5.9; equal to a Savitzky-Golay filter of order 1.
    """
    if edge == "interp" and len(features) < width:
        raise ValueError(f"features must have at least {width} frames for interpolated edges, got {len(features)}")
    half = width // 2
    padded = np.pad(features, ((half, half), (0, 0)), mode="edge").astype(np.float32, copy=False)
    slopes = np.empty(features.shape, dtype=np.float32)
    _regression_slopes(padded, half, slopes)
    if edge == "interp":
        slopes[:half] = slopes[half]
        slopes[-half:] = slopes[-half - 1]
    return slopes


@njit(cache=True, nogil=True)
def _regression_slopes(padded: NDArray[np.float32], half: int, slopes: NDArray[np.float32]) -> None:
    # padded (half + frame + half, feature) -> slopes (frame, feature)
    scale = np.float32(0)
    for step in range(1, half + 1):
        scale += np.float32(2 * step * step)
    scale = np.float32(1) / scale
    for frame in range(slopes.shape[0]):
        slope = slopes[frame]
        slope[:] = 0
        for step in range(1, half + 1):
            weight = np.float32(step) * scale
            before, after = padded[frame + half - step], padded[frame + half + step]
            for feature in range(slope.size):
                slope[feature] += weight * (after[feature] - before[feature])

"""Regression deltas: the slope of each feature over a few frames."""

import numpy as np
from numpy.typing import NDArray

from serfast.features.compilation import kernel

__all__ = ["deltas", "write_deltas"]


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
    slopes = np.empty(features.shape, dtype=np.float32)
    write_deltas(np.ascontiguousarray(features, dtype=np.float32), width // 2, edge == "interp", slopes)
    return slopes


@kernel()
def write_deltas(features: NDArray[np.float32], half: int, interpolate: bool, slopes: NDArray[np.float32]) -> None:
    """Write the slopes of ``features`` (frame, feature) over ``half`` frames on either side to ``slopes``."""
    _regression_slopes(features.reshape(-1), features.shape[1], half, slopes.reshape(-1))
    if interpolate:
        slopes[:half] = slopes[half]
        slopes[-half:] = slopes[-half - 1]


@kernel()
def _regression_slopes(
    features: NDArray[np.float32],  # (frame, feature), flat, as `slopes`: long loops are what the compiler vectorises
    n_features: int,
    half: int,
    slopes: NDArray[np.float32],
) -> None:
    scale = np.float32(0)
    for step in range(1, half + 1):
        scale += np.float32(2 * step * step)
    last = features.size // n_features - 1
    slopes[:] = 0
    for step in range(1, half + 1):
        weight, shift = np.float32(step) / scale, step * n_features
        inner = slopes[shift : max(shift, features.size - shift)]
        before, after = features[: inner.size], features[features.size - inner.size :]
        for index in range(inner.size):
            inner[index] += weight * (after[index] - before[index])
        for frame in range(last + 1):
            if step <= frame <= last - step:
                continue
            low, high = max(frame - step, 0) * n_features, min(frame + step, last) * n_features
            for feature in range(n_features):
                slopes[frame * n_features + feature] += weight * (features[high + feature] - features[low + feature])

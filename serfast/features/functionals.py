"""Functionals: statistics of each descriptor over an utterance.

====================  ==============================================================================================
``mean``              of the values :math:`x_t` of the frames
``deviation``         root of the mean square distance from the mean
``skewness``          mean of :math:`z_t^3`, z the values standardised with the two above; 0 for a constant
``kurtosis``          mean of :math:`z_t^4`, less 3, which makes it 0 for a normal distribution; 0 for a constant
``minimum``, ``lower_quartile``, ``median``, ``upper_quartile``, ``maximum``
                      of the values in their order, quartiles on the straight line between neighbours
``range``             from minimum to maximum
``slope``             of the line that fits the values best over time, per frame; 0 for a single frame
``residual``          root of the mean square distance from that line
====================  ==============================================================================================

Source: the statistics of Schuller, Steidl and Batliner (2009), "The Interspeech 2009 emotion challenge", with the
order statistics of later challenges in place of positions.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["FUNCTIONALS", "functionals"]

FUNCTIONALS = (
    "mean",
    "deviation",
    "skewness",
    "kurtosis",
    "minimum",
    "lower_quartile",
    "median",
    "upper_quartile",
    "maximum",
    "range",
    "slope",
    "residual",
)
"""Rows of :func:`functionals`, in its order."""


def functionals(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Statistics of each column of features (frame, feature), at least one frame: (functional, feature)."""
    values = features.astype(np.float64)
    mean = values.mean(axis=0)
    centred = values - mean
    deviation = np.sqrt(np.square(centred).mean(axis=0))
    quantiles = np.quantile(values, [0, 0.25, 0.5, 0.75, 1], axis=0)
    width = quantiles[-1] - quantiles[0]
    standardised = np.divide(centred, deviation, out=np.zeros_like(centred), where=width > 0)
    squares = np.square(standardised)
    skewness = (squares * standardised).mean(axis=0)
    kurtosis = np.where(width > 0, np.square(squares).mean(axis=0) - 3, 0.0)
    time = np.arange(len(values)) - (len(values) - 1) / 2
    slope = time @ centred / (time @ time if len(time) > 1 else 1.0)
    residual = np.sqrt(np.square(centred - time[:, None] * slope).mean(axis=0))
    return np.stack([mean, deviation, skewness, kurtosis, *quantiles, width, slope, residual])

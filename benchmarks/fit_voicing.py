"""Fit the weights of the voicing evidence on the development signals and print the table of ``features/voicing.py``.

A logistic regression with a ridge, on every product of two measures. Beside the six conditions of the benchmark it
sees 20 dB of noise, and stretches of half a second to one and a half, whose pauses and loudest syllables may be
missing. Run with::

    SERFAST_EMODB=path/to/emodb python -m benchmarks.fit_voicing
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from benchmarks.pitch_accuracy import FIRST_SEED, conditions
from benchmarks.pitch_signals import RATE, Signal, add_white
from serfast.features import FeatureOptions
from serfast.features.frames import n_frames
from serfast.features.pitch import make_pitch_plan, observe, standardised
from serfast.features.spectrum import by_frame
from serfast.features.voicing import MEASURES

OPTIONS = FeatureOptions()
RIDGE = 0.1
MILD_SNR_DB = 20.0
DIGITS = 4


def stretch(signal: Signal, generator: np.random.Generator) -> Signal:
    """A random part of a signal, half a second to one and a half."""
    length = min(int(generator.uniform(0.5, 1.5) * RATE), len(signal.waveform))
    first = int(generator.integers(len(signal.waveform) - length + 1))
    return Signal(signal.waveform[first : first + length], signal.f0_hz[first : first + length])


def examples(signal: Signal) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Measures (frame, measure) and truth (frame,) of a signal."""
    count = n_frames(len(signal.waveform), OPTIONS)
    plan = make_pitch_plan(OPTIONS)
    _, _, observed = observe(standardised(signal.waveform, count, plan), count, plan)
    place = np.minimum(np.arange(count) * OPTIONS.hop, len(signal.f0_hz) - 1)
    return by_frame(observed, count).astype(np.float64), signal.f0_hz[place] > 0


def fit(rows: NDArray[np.float64], voiced: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weights (1 + measure, 1 + measure), upper triangle, of the products of the measures, the first of which is 1."""
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    to_scores = np.diag(np.concatenate([[1], 1 / deviation]))
    to_scores[1:, 0] = -mean / deviation
    extended = np.concatenate([np.ones((len(rows), 1)), rows], axis=1) @ to_scores.T
    pairs = np.triu_indices(extended.shape[1])
    products = extended[:, pairs[0]] * extended[:, pairs[1]]
    scale = np.maximum(products.std(axis=0), 1e-9)
    model = LogisticRegression(C=RIDGE, max_iter=2000).fit((products / scale)[:, 1:], voiced)
    weights = np.zeros((extended.shape[1],) * 2)
    weights[pairs] = np.concatenate([model.intercept_, model.coef_[0] / scale[1:]])
    symmetric = to_scores.T @ ((weights + weights.T) / 2) @ to_scores
    return np.triu(2 * symmetric) - np.diag(np.diag(symmetric))


def main() -> None:
    """Fit and print."""
    generator = np.random.default_rng(FIRST_SEED["development"])
    by_condition = conditions("development")
    for name in [name for name in by_condition if name.endswith("clean")]:
        by_condition[f"{name} mild"] = [
            add_white(signal, MILD_SNR_DB, number) for number, signal in enumerate(by_condition[name])
        ]
    signals = [signal for part in by_condition.values() for signal in part]
    signals += [stretch(signal, generator) for signal in signals]
    rows, voiced = zip(*[examples(signal) for signal in signals], strict=True)
    weights = fit(np.concatenate(rows), np.concatenate(voiced))
    for row, name in enumerate(("1", *MEASURES)):
        numbers = ", ".join(f"{value:.{DIGITS}g}" for value in weights[row, row:])
        print(f"    ({numbers}),  # {name}")


if __name__ == "__main__":
    main()

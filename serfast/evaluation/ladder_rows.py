"""Rows of the paper's table: each system's scores over its seeds, and its test against the baseline.

Source: Huang and Narayanan (2016), table 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from serfast.evaluation.results import Result
from serfast.metrics import (
    MEASURES,
    MIN_BOOTSTRAP_SPEAKERS,
    Comparison,
    Interval,
    bootstrap_intervals,
    compare,
    confusion_matrix,
    holm,
)

__all__ = ["ComparedRow", "LadderRow", "MeanScores", "compare_rows"]


@dataclass(frozen=True)
class LadderRow:
    """One system with one scoring: its finished runs, one per seed.

    Rows of one ``title`` differ in ``scoring``: "eq8", "eq9", or "" where there is no choice.

    Raises:
        ValueError: if there is no result, or the results do not score the same utterances of the same folds.
    """

    name: str
    title: str
    scoring: str
    results: tuple[Result, ...]

    def __post_init__(self) -> None:
        if not self.results:
            raise ValueError(f"results of row {self.name} must hold a run for at least one seed, got none")
        _check_same_folds(self.name, self.results)


@dataclass(frozen=True)
class MeanScores:
    """UA, WA and macro-F1 over all folds pooled, each the mean over seeds, with 95 % intervals by name.

    The intervals resample speakers, then their utterances, all seeds of an utterance together; there are none with
    fewer than five speakers.
    """

    ua: float
    wa: float
    macro_f1: float
    intervals: dict[str, Interval]


@dataclass(frozen=True)
class ComparedRow:
    """A row with its scores and its paired test against the baseline row.

    ``comparison`` is None for the baseline itself and with fewer than five speakers. ``corrected_p`` maps "ua" and "wa"
    to Holm's correction of the test's p over all rows that were tested, and is empty without a test.
    """

    row: LadderRow
    scores: MeanScores
    comparison: Comparison | None
    corrected_p: dict[str, float]


def compare_rows(rows: Sequence[LadderRow], *, baseline: str) -> tuple[ComparedRow, ...]:
    """Score every row over its seeds and test it against the row called ``baseline``.

    Raises:
        ValueError: if not exactly one row has that name, or rows were run on different folds.
    """
    found = [row for row in rows if row.name == baseline]
    if len(found) != 1:
        raise ValueError(f"rows must hold {baseline}, which the others are compared with, once, got it {len(found)}x")
    for row in rows:
        _check_same_folds(f"{baseline} and {row.name}", (found[0].results[0], row.results[0]))
    answers = [_answers(row) for row in rows]
    reference = answers[rows.index(found[0])]
    n_speakers = len(set(reference.speakers))
    tests: list[Comparison | None] = [
        None
        if row is found[0] or n_speakers < MIN_BOOTSTRAP_SPEAKERS
        else compare(own.truth, own.predicted, reference.predicted, own.speakers, own.n_emotions)
        for row, own in zip(rows, answers, strict=True)
    ]
    tested = [place for place, test in enumerate(tests) if test is not None]
    corrected = {
        name: dict(zip(tested, holm([getattr(tests[place], name).p for place in tested]), strict=True))
        for name in ("ua", "wa")
    }
    return tuple(
        ComparedRow(row, _mean_scores(own), test, {name: p[place] for name, p in corrected.items() if place in p})
        for place, (row, own, test) in enumerate(zip(rows, answers, tests, strict=True))
    )


class _Answers(NamedTuple):
    truth: NDArray[np.int64]  # (utterance,)
    predicted: NDArray[np.int64]  # (seed, utterance)
    speakers: list[str]
    n_emotions: int


def _check_same_folds(what: str, results: Sequence[Result]) -> None:
    digests = sorted({result.splits_digest for result in results})
    if len(digests) > 1:
        raise ValueError(f"results of {what} must be of the same folds, got splits {', '.join(digests)}")


def _answers(row: LadderRow) -> _Answers:
    emotions = row.results[0].emotions
    place = {emotion: index for index, emotion in enumerate(emotions)}
    by_seed = [sorted(result.predictions, key=lambda item: (item.fold, item.key)) for result in row.results]
    return _Answers(
        truth=np.array([place[item.emotion] for item in by_seed[0]]),
        predicted=np.array([[place[item.predicted] for item in predictions] for predictions in by_seed]),
        speakers=[item.speaker for item in by_seed[0]],
        n_emotions=len(emotions),
    )


def _mean_scores(answers: _Answers) -> MeanScores:
    truth, predicted, speakers, n_emotions = answers
    confusions = np.stack([confusion_matrix(truth, row, n_emotions) for row in predicted])
    means = {name: float(measure(confusions).mean()) for name, measure in MEASURES.items()}
    return MeanScores(**means, intervals=bootstrap_intervals(truth, predicted, speakers, n_emotions))

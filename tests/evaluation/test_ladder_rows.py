import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from serfast import Result, metrics
from serfast.evaluation import ComparedRow, LadderRow, compare_rows


@pytest.fixture
def rows(make_result: Callable[..., Result]) -> list[LadderRow]:
    return [
        LadderRow("mean", "Mean", "", (make_result(seed=0), make_result(seed=1))),
        LadderRow("attention_eq8", "Attention", "eq8", (make_result(seed=0), make_result(seed=1))),
        LadderRow("attention_eq9", "Attention", "eq9", tuple(make_result(right=0.95, seed=seed) for seed in (2, 3, 4))),
        LadderRow("worse", "Worse", "", (make_result(right=0.3, seed=5),)),
    ]


def by_name(rows: list[LadderRow]) -> dict[str, ComparedRow]:
    return {compared.row.name: compared for compared in compare_rows(rows, baseline="mean")}


def test_scores_are_means_over_seeds_of_the_pooled_scores(rows: list[LadderRow]):
    found = by_name(rows)["attention_eq9"].scores
    truths = [[item.emotion for item in result.predictions] for result in rows[2].results]
    answers = [[item.predicted for item in result.predictions] for result in rows[2].results]
    pairs = list(zip(truths, answers, strict=True))
    assert found.ua == pytest.approx(np.mean([balanced_accuracy_score(*pair) for pair in pairs]))
    assert found.wa == pytest.approx(np.mean([np.mean(np.array(truth) == answer) for truth, answer in pairs]))
    assert found.macro_f1 == pytest.approx(np.mean([f1_score(*pair, average="macro") for pair in pairs]))


def test_one_seed_has_the_scores_and_intervals_of_its_result(rows: list[LadderRow]):
    scores, pooled = by_name(rows)["worse"].scores, rows[3].results[0].pooled
    assert (scores.ua, scores.wa, scores.macro_f1) == (pooled.ua, pooled.wa, pooled.macro_f1)
    assert scores.intervals == pooled.intervals


def test_each_row_is_tested_against_the_baseline_and_corrected_over_the_rows(rows: list[LadderRow]):
    found = by_name(rows)
    assert found["mean"].comparison is None
    assert found["mean"].corrected_p == {}
    assert found["attention_eq8"].comparison.ua.value == pytest.approx(0)
    assert found["attention_eq8"].corrected_p == {"ua": 1, "wa": 1}
    gain = found["attention_eq9"].comparison.wa
    assert gain.value == pytest.approx(found["attention_eq9"].scores.wa - found["mean"].scores.wa)
    assert gain.interval.low < gain.value < gain.interval.high
    assert found["worse"].comparison.ua.value < 0
    tested = [compared for compared in found.values() if compared.comparison is not None]
    for name in ("ua", "wa"):
        raw = [getattr(compared.comparison, name).p for compared in tested]
        assert [compared.corrected_p[name] for compared in tested] == metrics.holm(raw)
        assert found["attention_eq9"].corrected_p[name] >= 2 * min(raw)


def test_the_order_of_rows_and_of_predictions_changes_nothing(rows: list[LadderRow]):
    turned = [
        LadderRow(
            row.name,
            row.title,
            row.scoring,
            tuple(dataclasses.replace(result, predictions=result.predictions[::-1]) for result in row.results),
        )
        for row in rows[::-1]
    ]
    there, back = by_name(rows), by_name(turned)
    for name, compared in there.items():
        assert back[name].scores == compared.scores
        assert back[name].comparison == compared.comparison
        assert back[name].corrected_p == compared.corrected_p


def test_fewer_than_five_speakers_get_scores_and_no_test(make_result: Callable[..., Result]):
    rows = [LadderRow(name, name, "", (make_result(n_speakers=4, seed=place),)) for place, name in enumerate("ab")]
    for compared in compare_rows(rows, baseline="a"):
        assert compared.scores.intervals == {}
        assert compared.comparison is None
        assert compared.corrected_p == {}


def test_other_folds_and_a_missing_baseline_are_refused(rows: list[LadderRow], make_result: Callable[..., Result]):
    other = make_result(splits_digest="other")
    with pytest.raises(ValueError, match="results of x must be of the same folds, got splits 5eed, other"):
        LadderRow("x", "X", "", (make_result(), other))
    with pytest.raises(ValueError, match="results of row x must hold a run for at least one seed, got none"):
        LadderRow("x", "X", "", ())
    with pytest.raises(ValueError, match="results of mean and x must be of the same folds"):
        compare_rows([*rows, LadderRow("x", "X", "", (other,))], baseline="mean")
    with pytest.raises(ValueError, match="rows must hold mean, which the others are compared with, once, got it 0x"):
        compare_rows(rows[1:], baseline="mean")

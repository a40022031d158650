import io
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from serfast import Prediction, metrics
from serfast.reports import confusion_table, prediction_table, score_remarks, score_table

EMODB = ("anger", "boredom", "disgust", "fear", "happiness", "neutral", "sadness")


def printed(table: Table, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


def scores_of(emotions: tuple[str, ...]) -> metrics.Scores:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, len(emotions), 200)
    return metrics.score(truth, generator.permutation(truth), [str(n % 6) for n in range(200)], emotions)


def test_the_confusion_of_seven_emotions_fits_a_terminal_uncut():
    text = printed(confusion_table(scores_of(EMODB)))
    assert "…" not in text
    header = text.splitlines()[1].split()
    assert header == ["truth", *EMODB, "recall"]


def test_names_are_printed_as_they_are():
    emotions = ("[/red]", "[bold]x", ":smile:")
    text = printed(confusion_table(scores_of(emotions)))
    prediction = Prediction(
        Path("[/a] :cat:.wav"), "[/red]", {"[/red]": 0.75, "[bold]x": 0.25, ":smile:": 0.0}, {}, None, np.zeros(1)
    )
    text += printed(prediction_table([prediction]))
    for name in (*emotions, "[/a] :cat:.wav", "0.750"):
        assert name in text


def test_scores_stand_beside_their_intervals_and_remarks():
    scores = scores_of(EMODB)
    text = printed(score_table(scores))
    interval = scores.intervals["ua"]
    assert f"{scores.ua:.3f}" in text
    assert f"{interval.low:.3f} - {interval.high:.3f}" in text
    assert "UA by chance 0.143" in score_remarks(scores)
    few = metrics.score([0, 1], [0, 1], ["a", "b"], EMODB)
    assert "left out of UA and macro-F1: disgust" in score_remarks(few)
    assert "no intervals" in score_remarks(few)

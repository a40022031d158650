"""Results as tables for a terminal."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from serfast.evaluation import Result
from serfast.metrics import MIN_BOOTSTRAP_SPEAKERS, Scores
from serfast.recognizer import Prediction

__all__ = ["confusion_table", "fold_table", "prediction_table", "score_remarks", "score_table"]

_SCORES = (("UA", "ua"), ("WA", "wa"), ("macro-F1", "macro_f1"))


def score_table(scores: Scores) -> Table:
    """UA, WA and macro-F1 with their 95 % intervals."""
    table = _table("score", "value", "95 % interval")
    for label, name in _SCORES:
        interval = scores.intervals.get(name)
        between = f"{interval.low:.3f} - {interval.high:.3f}" if interval else "-"
        _add_row(table, label, f"{getattr(scores, name):.3f}", between)
    return table


def score_remarks(scores: Scores) -> str:
    """What a reader of :func:`score_table` must know: how many utterances, chance level, what was left out."""
    n_present = len(scores.recalls)
    remarks = [f"{scores.n_utterances} utterances, {n_present} emotions, UA by chance {1 / n_present:.3f}"]
    if scores.absent:
        remarks.append(f"not in the truth and left out of UA and macro-F1: {', '.join(scores.absent)}")
    if scores.intervals:
        remarks.append("intervals resample speakers, then their utterances")
    else:
        remarks.append(f"no intervals: they resample speakers and need at least {MIN_BOOTSTRAP_SPEAKERS}")
    return "; ".join(remarks)


def fold_table(result: Result) -> Table:
    """UA, WA and macro-F1 of every fold, beside what training took, what it chose and which emotions it lacks."""
    some_absent = any(fold.scores.absent for fold in result.folds)
    some_choices = any(fold.choices for fold in result.folds)
    last = [name for name, some in (("chosen", some_choices), ("absent", some_absent)) if some]
    table = _table("fold", "n", *(label for label, _ in _SCORES), "epoch", "seconds", *last)
    for fold in result.folds:
        cells = [
            fold.name,
            str(fold.scores.n_utterances),
            *(f"{getattr(fold.scores, name):.3f}" for _, name in _SCORES),
            f"{fold.best_epoch or '-'}/{fold.n_epochs}",
            f"{fold.seconds:.1f}",
        ]
        cells += [", ".join(f"{name} {value}" for name, value in fold.choices.items())] * some_choices
        cells += [", ".join(fold.scores.absent)] * some_absent
        _add_row(table, *cells)
    return table


def confusion_table(scores: Scores) -> Table:
    """Utterances by truth (row) and prediction (column), with the recall of each emotion."""
    table = _table("truth", *scores.emotions, "recall")
    for place, (emotion, row) in enumerate(zip(scores.emotions, scores.confusion, strict=True)):
        recall = scores.recalls.get(emotion)
        counts = [str(count or ".") for count in row]
        _add_row(table, emotion, *counts, "-" if recall is None else f"{recall:.3f}", bold=place + 1)
    return table


def prediction_table(predictions: Sequence[Prediction]) -> Table:
    """Emotion and class probabilities of each recording."""
    emotions = list(predictions[0].probabilities)
    table = _table("recording", "emotion", *emotions)
    for prediction in predictions:
        values = [f"{prediction.probabilities[emotion]:.3f}" for emotion in emotions]
        place = emotions.index(prediction.emotion) + 2
        _add_row(table, str(prediction.path), prediction.emotion, *values, bold=place)
    return table


def _table(first: str, *others: str) -> Table:
    # Names come from users: as Text, so that brackets and colons stay what they are. Nothing is cut off.
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(Text(first), no_wrap=True)
    for name in others:
        table.add_column(Text(name), justify="right", no_wrap=True)
    return table


def _add_row(table: Table, *cells: str, bold: int | None = None) -> None:
    table.add_row(*(Text(cell, style="bold" if place == bold else "") for place, cell in enumerate(cells)))

"""Results as tables for a terminal."""

from collections.abc import Sequence

from rich.table import Table

from serfast.evaluation import Result
from serfast.metrics import MIN_BOOTSTRAP_SPEAKERS, Scores
from serfast.recognizer import Prediction

__all__ = ["confusion_table", "fold_table", "prediction_table", "score_remarks", "score_table"]

_SCORES = (("UA", "ua"), ("WA", "wa"), ("macro-F1", "macro_f1"))


def score_table(scores: Scores) -> Table:
    """UA, WA and macro-F1 with their 95 % intervals."""
    table = Table()
    table.add_column("score")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for label, name in _SCORES:
        interval = scores.intervals.get(name)
        between = f"{interval.low:.3f} - {interval.high:.3f}" if interval else "-"
        table.add_row(label, f"{getattr(scores, name):.3f}", between)
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
    """UA, WA and macro-F1 of every fold, beside the epochs it took; emotions that a fold's truth lacks, if any."""
    table = Table()
    table.add_column("fold", no_wrap=True)
    for name in ("n", *(label for label, _ in _SCORES), "epoch", "s/epoch"):
        table.add_column(name, justify="right")
    some_absent = any(fold.scores.absent for fold in result.folds)
    if some_absent:
        table.add_column("absent")
    for fold in result.folds:
        cells = [
            fold.name,
            str(fold.scores.n_utterances),
            *(f"{getattr(fold.scores, name):.3f}" for _, name in _SCORES),
            f"{fold.best_epoch}/{fold.n_epochs}",
            f"{fold.seconds_per_epoch:.1f}",
        ]
        table.add_row(*cells, *([", ".join(fold.scores.absent)] if some_absent else []))
    return table


def confusion_table(scores: Scores) -> Table:
    """Utterances by truth (row) and prediction (column), with the recall of each emotion."""
    table = Table()
    table.add_column("truth", no_wrap=True)
    for emotion in scores.emotions:
        table.add_column(emotion, justify="right", overflow="fold")
    table.add_column("recall", justify="right")
    for place, (emotion, row) in enumerate(zip(scores.emotions, scores.confusion, strict=True)):
        cells = [f"[bold]{count}[/bold]" if column == place else str(count or ".") for column, count in enumerate(row)]
        recall = scores.recalls.get(emotion)
        table.add_row(emotion, *cells, "-" if recall is None else f"{recall:.3f}")
    return table


def prediction_table(predictions: Sequence[Prediction]) -> Table:
    """Emotion and class probabilities of each recording."""
    table = Table()
    table.add_column("recording", overflow="fold")
    table.add_column("emotion")
    for emotion in predictions[0].probabilities:
        table.add_column(emotion, justify="right")
    for prediction in predictions:
        values = prediction.probabilities
        cells = [
            f"[bold]{value:.3f}[/bold]" if name == prediction.emotion else f"{value:.3f}"
            for name, value in values.items()
        ]
        table.add_row(str(prediction.path), prediction.emotion, *cells)
    return table

"""What an experiment found: predictions of every utterance, scores per fold and pooled, and their files."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serfast import atomic
from serfast.errors import CorpusError
from serfast.metrics import Scores, score

__all__ = ["FoldResult", "Result", "UtterancePrediction"]

RESULT, PREDICTIONS = "result.json", "predictions.csv"


@dataclass(frozen=True)
class UtterancePrediction:
    """The answer of a fold's model for one utterance of the fold's scored part."""

    fold: str
    key: str
    speaker: str
    emotion: str
    predicted: str
    probabilities: dict[str, float]


@dataclass(frozen=True)
class FoldResult:
    """One fold: the scores of its scored part, how its model was trained, and with what versions on what device.

    ``n_epochs`` counts the epochs of the last stage and ``best_epoch`` is the selected one; of several models these are
    the epochs of all, and 0. ``choices`` are what the validation part decided beyond the epoch, by name; ``seconds``
    went into training, that of a base included, which several systems may share.
    """

    name: str
    scores: Scores
    n_epochs: int
    best_epoch: int
    seconds: float
    choices: dict[str, Any]
    environment: dict[str, str]

    @property
    def ua(self) -> float:
        """Mean of the per-class recalls."""
        return self.scores.ua

    @property
    def wa(self) -> float:
        """Share of right utterances."""
        return self.scores.wa


@dataclass(frozen=True)
class Result:
    """A finished experiment.

    Attributes:
        protocol: name of the protocol; "single" for one training run.
        part: the part that was scored, "test", or "validation" for a single run, whose epoch that part selected.
        pooled: scores over the predictions of all folds together: the headline.
        folds: scores fold by fold.
        predictions: one per scored utterance.
        splits_digest: names the folds exactly.
        training_seconds: spent in training all folds, validation included.
        excluded: keys of utterances that were left out on request.
        notes: what the corpus says of itself (what was left out, merged, or occurs twice), and what the recipe does.
        output: the run's folder.
    """

    corpus: str
    protocol: str
    part: str
    emotions: tuple[str, ...]
    pooled: Scores
    folds: tuple[FoldResult, ...]
    predictions: tuple[UtterancePrediction, ...]
    splits_digest: str
    training_seconds: float
    excluded: tuple[str, ...]
    notes: tuple[str, ...]
    output: Path

    @classmethod
    def load(cls, output: str | Path) -> "Result":
        """Read the result of the run in the folder ``output``.

        Raises:
            CorpusError: if the folder holds no finished run.
        """
        output = Path(output)
        if not (output / RESULT).is_file():
            raise CorpusError(f"{output} must hold a finished run ({RESULT}), got none")
        stored = read_json(output / RESULT)
        try:
            return cls._from_dict(stored, read_predictions(output / PREDICTIONS), output)
        except (KeyError, TypeError) as error:
            raise CorpusError(
                f"{output / RESULT} must be a result of this version of serfast, got {error!r}"
            ) from error

    @classmethod
    def _from_dict(cls, stored: dict[str, Any], predictions: tuple[UtterancePrediction, ...], output: Path) -> "Result":
        emotions = tuple(stored["emotions"])
        folds = tuple(
            FoldResult(
                fold["name"],
                score_predictions([row for row in predictions if row.fold == fold["name"]], emotions),
                fold["n_epochs"],
                fold["best_epoch"],
                fold["seconds"],
                fold["choices"],
                fold["environment"],
            )
            for fold in stored["folds"]
        )
        return cls(
            corpus=stored["corpus"],
            protocol=stored["protocol"],
            part=stored["part"],
            emotions=emotions,
            pooled=score_predictions(predictions, emotions),
            folds=folds,
            predictions=predictions,
            splits_digest=stored["splits_digest"],
            training_seconds=stored["training_seconds"],
            excluded=tuple(stored["excluded"]),
            notes=tuple(stored["notes"]),
            output=output,
        )

    def save(self) -> None:
        """Write ``result.json`` and ``predictions.csv`` into the run's folder; the first marks the run as finished."""
        write_predictions(self.output / PREDICTIONS, self.predictions, self.emotions)
        atomic.write_json(self.output / RESULT, self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """All but the predictions, JSON-safe."""
        return {
            "corpus": self.corpus,
            "protocol": self.protocol,
            "part": self.part,
            "emotions": list(self.emotions),
            "pooled": asdict(self.pooled),
            "folds": [
                {
                    "name": fold.name,
                    "n_epochs": fold.n_epochs,
                    "best_epoch": fold.best_epoch,
                    "seconds": fold.seconds,
                    "choices": fold.choices,
                    "environment": fold.environment,
                    **asdict(fold.scores),
                }
                for fold in self.folds
            ],
            "splits_digest": self.splits_digest,
            "training_seconds": self.training_seconds,
            "excluded": list(self.excluded),
            "notes": list(self.notes),
        }


def score_predictions(predictions: Sequence[UtterancePrediction], emotions: Sequence[str]) -> Scores:
    """UA, WA and macro-F1 of predictions, with intervals where there are speakers enough."""
    place = {emotion: index for index, emotion in enumerate(emotions)}
    truth = [place[row.emotion] for row in predictions]
    predicted = [place[row.predicted] for row in predictions]
    return score(truth, predicted, [row.speaker for row in predictions], emotions)


def write_predictions(path: Path, predictions: Sequence[UtterancePrediction], emotions: Sequence[str]) -> None:
    """Write predictions as CSV, one utterance a line, a probability column per emotion."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["fold", "key", "speaker", "emotion", "predicted", *(f"p_{emotion}" for emotion in emotions)])
    for row in predictions:
        probabilities = [repr(row.probabilities[emotion]) for emotion in emotions]
        writer.writerow([row.fold, row.key, row.speaker, row.emotion, row.predicted, *probabilities])
    atomic.write_bytes(path, text.getvalue().encode())


def read_predictions(path: Path) -> tuple[UtterancePrediction, ...]:
    """Read what :func:`write_predictions` wrote.

    Raises:
        CorpusError: if the file is not of that kind.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = tuple(
                UtterancePrediction(
                    row["fold"],
                    row["key"],
                    row["speaker"],
                    row["emotion"],
                    row["predicted"],
                    {name[2:]: float(value) for name, value in row.items() if name.startswith("p_")},
                )
                for row in csv.DictReader(stream)
            )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CorpusError(f"{path} must hold predictions written by serfast, got {error!r}") from error
    if not rows:
        raise CorpusError(f"{path} must hold predictions written by serfast, got none")
    return rows


def read_json(path: Path) -> Any:
    """Read a JSON file of a run.

    Raises:
        CorpusError: if it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path} must be a JSON file written by serfast, got {error}") from error

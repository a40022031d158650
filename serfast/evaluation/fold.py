"""One fold of an experiment: train its model, score it on the part it has not seen, write both to the fold's folder."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from serfast import atomic
from serfast.corpora import Fold
from serfast.environment import versions
from serfast.evaluation.recipe import Recipe
from serfast.evaluation.results import (
    PREDICTIONS,
    FoldResult,
    UtterancePrediction,
    read_json,
    read_predictions,
    score_predictions,
    write_predictions,
)
from serfast.features import FeatureStore
from serfast.recognizer import Recognizer
from serfast.training import CHECKPOINT, EpochRecord, TrainedModel, train_model

__all__ = ["FOLD", "fold_folder", "predict_part", "run_fold"]

FOLD = "fold.json"


def fold_folder(output: Path, fold: str) -> Path:
    """Folder of a fold in the run ``output``: its name, with what file systems do not take as ``%XX``."""
    return output / "folds" / re.sub(r"[%/\\\x00-\x1f]", lambda found: f"%{ord(found[0]):02X}", fold)


def run_fold(
    store: FeatureStore,
    fold: Fold,
    recipe: Recipe,
    folder: Path,
    device: torch.device,
    on_epoch: Callable[[EpochRecord], None],
) -> tuple[FoldResult, tuple[UtterancePrediction, ...]]:
    """Train on ``fold`` in ``folder`` and predict its test part, or its validation part when there is no test part.

    A fold that is finished is read back; one that was interrupted goes on behind its last complete epoch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / FOLD).exists():
        _train_fold(store, fold, recipe, folder, device, on_epoch)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    facts = read_json(folder / FOLD)
    predictions = read_predictions(folder / PREDICTIONS)
    return FoldResult(scores=score_predictions(predictions, store.corpus.emotions), **facts), predictions


def predict_part(
    recognizer: Recognizer, store: FeatureStore, indices: Sequence[int], *, fold: str, batch_size: int
) -> tuple[UtterancePrediction, ...]:
    """The recognizer's answers for utterances of a store, beside their truth."""
    answers = recognizer.answer_store(store, indices, batch_size=batch_size)
    rows = []
    for index, predicted, row in zip(indices, answers.predicted, answers.probabilities, strict=True):
        utterance = store.corpus.utterances[index]
        rows.append(
            UtterancePrediction(
                fold=fold,
                key=utterance.key,
                speaker=utterance.speaker or "",
                emotion=utterance.emotion,
                predicted=recognizer.emotions[predicted],
                probabilities=dict(zip(recognizer.emotions, row.tolist(), strict=True)),
            )
        )
    return tuple(rows)


def _train_fold(
    store: FeatureStore,
    fold: Fold,
    recipe: Recipe,
    folder: Path,
    device: torch.device,
    on_epoch: Callable[[EpochRecord], None],
) -> None:
    trained = train_model(store, fold, recipe.model, recipe.training, folder=folder, device=device, on_epoch=on_epoch)
    recognizer = Recognizer(
        trained.model, trained.normaliser, store.corpus.emotions, store.options, recipe.model, device
    )
    recognizer.save(folder)
    scored = fold.test or fold.validation
    predictions = predict_part(recognizer, store, scored, fold=fold.name, batch_size=recipe.training.batch_size)
    write_predictions(folder / PREDICTIONS, predictions, store.corpus.emotions)
    atomic.write_json(folder / FOLD, _facts(fold, trained, device))


def _facts(fold: Fold, trained: TrainedModel, device: torch.device) -> dict[str, Any]:
    seconds = [record.seconds for record in trained.history]
    return {
        "name": fold.name,
        "n_epochs": len(trained.history),
        "best_epoch": trained.best_epoch,
        "seconds_per_epoch": sum(seconds) / len(seconds),
        "environment": {**versions(), "device": str(device)},
    }

"""One fold of an experiment: let a system learn it, score its answers, write both to the fold's folder."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from filelock import BaseFileLock, FileLock
from numpy.typing import NDArray

from serfast import atomic
from serfast.environment import versions
from serfast.evaluation.results import (
    PREDICTIONS,
    FoldResult,
    UtterancePrediction,
    read_json,
    read_predictions,
    score_predictions,
    write_predictions,
)
from serfast.evaluation.system import FoldContext, FoldOutcome, System
from serfast.features import FeatureStore
from serfast.training import CHECKPOINT

__all__ = ["FOLD", "fold_folder", "fold_lock", "label_answers", "run_fold", "write_outcome"]

FOLD = "fold.json"


def fold_folder(output: Path, fold: str) -> Path:
    """Folder of a fold in the run ``output``: its name, with what file systems do not take as ``%XX``."""
    return output / "folds" / re.sub(r"[%/\\\x00-\x1f]", lambda found: f"%{ord(found[0]):02X}", fold)


def run_fold(system: System, context: FoldContext) -> tuple[FoldResult, tuple[UtterancePrediction, ...]]:
    """Let ``system``, and its base before it, learn a fold and answer the fold's scored part.

    A fold that is finished is read back; one that was interrupted goes on behind its last complete epoch. One that
    another process is in is waited for.
    """
    folder = context.folder
    with fold_lock(folder):
        if not (folder / FOLD).exists():
            if system.base is not None:
                run_fold(system.base, replace(context, folder=context.base_folder))
            write_outcome(system.fit(context), context)
        for checkpoint in folder.rglob(CHECKPOINT):
            checkpoint.unlink()
    facts = read_json(folder / FOLD)
    predictions = read_predictions(folder / PREDICTIONS)
    return FoldResult(scores=score_predictions(predictions, context.store.corpus.emotions), **facts), predictions


def fold_lock(folder: Path) -> BaseFileLock:
    """What only one process at a time can enter of those that work in the folder of a fold, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".fold.lock")


def label_answers(
    probabilities: NDArray[np.float64],
    emotions: Sequence[str],
    store: FeatureStore,
    indices: Sequence[int],
    *,
    fold: str,
) -> tuple[UtterancePrediction, ...]:
    """Answers (utterance, emotion) for utterances of a store, beside their truth."""
    rows = []
    for index, row in zip(indices, probabilities, strict=True):
        utterance = store.corpus.utterances[index]
        rows.append(
            UtterancePrediction(
                fold=fold,
                key=utterance.key,
                speaker=utterance.speaker or "",
                emotion=utterance.emotion,
                predicted=emotions[int(row.argmax())],
                probabilities=dict(zip(emotions, row.tolist(), strict=True)),
            )
        )
    return tuple(rows)


def write_outcome(outcome: FoldOutcome, context: FoldContext) -> None:
    """Write what came of a fold to its folder, which is finished by it."""
    emotions = context.store.corpus.emotions
    predictions = label_answers(outcome.probabilities, emotions, context.store, context.scored, fold=context.fold.name)
    write_predictions(context.folder / PREDICTIONS, predictions, emotions)
    facts = {
        "name": context.fold.name,
        "n_epochs": outcome.n_epochs,
        "best_epoch": outcome.best_epoch,
        "seconds": outcome.seconds,
        "choices": outcome.choices,
        "environment": {**versions(), "device": str(context.device), "threads": str(torch.get_num_threads())},
    }
    atomic.write_json(context.folder / FOLD, facts)

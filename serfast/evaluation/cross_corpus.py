"""Cross-corpus evaluation: scores of a trained model on a corpus that it has not seen."""

import json
from collections.abc import Sequence
from pathlib import Path

from serfast.corpora import Corpus
from serfast.errors import CorpusError
from serfast.evaluation.experiment import SPLITS
from serfast.evaluation.fold import predict_part
from serfast.evaluation.progress import Progress
from serfast.evaluation.results import score_predictions
from serfast.features import FeatureStore, default_store_path, extract_corpus
from serfast.metrics import Scores
from serfast.recognizer import Recognizer

__all__ = ["evaluate"]


def evaluate(
    run: str | Path,
    corpus: Corpus,
    *,
    store: str | Path | None = None,
    batch_size: int = 16,
    device: str = "auto",
    progress: bool = True,
) -> Scores:
    """Score the model of a training run, or of one fold, on the utterances of ``corpus``.

    Args:
        run: folder that :meth:`serfast.Recognizer.load` reads.
        corpus: labelled recordings whose emotions the model knows.
        store: folder of the feature store; one in the user's cache when None.
        batch_size: utterances at a time; changes nothing but speed.
        device: "auto", "cpu" or "cuda".
        progress: print the extraction's progress to standard error.

    Raises:
        ValueError: if the model does not know an emotion of the corpus, or saw one of its recordings in training.
        CorpusError: if a recording is broken.
    """
    recognizer = Recognizer.load(run, device=device)
    unknown = sorted(set(corpus.emotions) - set(recognizer.emotions))
    if unknown:
        raise ValueError(
            f"corpus must only hold the model's emotions ({', '.join(recognizer.emotions)}), got {', '.join(unknown)}: "
            f"choose or merge emotions when loading it"
        )
    path = default_store_path(corpus, recognizer.feature_options) if store is None else store
    on_progress = Progress(progress).extraction
    features = extract_corpus(corpus, path, recognizer.feature_options, on_progress=on_progress)
    if features.broken:
        raise CorpusError("corpus must hold sound recordings only, got\n  " + "\n  ".join(features.broken.values()))
    _refuse_seen(Path(run), features)
    indices: Sequence[int] = range(len(corpus.utterances))
    predictions = predict_part(recognizer, features, indices, fold="", batch_size=batch_size)
    return score_predictions(predictions, recognizer.emotions)


def _refuse_seen(run: Path, features: FeatureStore) -> None:
    # The splits of a fold's run lie two folders up: run/folds/<fold>.
    path = run / SPLITS if (run / SPLITS).exists() else run.parent.parent / SPLITS
    if not path.exists():
        raise CorpusError(f"{run} must be a run or one of its folds, got a model without {SPLITS}")
    splits = json.loads(path.read_text())
    folds = [fold for fold in splits["folds"] if path.parent == run or fold["name"] == run.name]
    seen = {splits["sources"][key] for fold in folds for part in ("train", "validation") for key in fold[part]}
    shared = [
        utterance.key
        for utterance, source in zip(features.corpus.utterances, features.sources, strict=True)
        if source in seen
    ]
    if shared:
        raise ValueError(
            f"corpus must not hold recordings that the model was trained or selected on, got {len(shared)} of them, "
            f"such as {shared[0]}"
        )

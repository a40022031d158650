"""Cross-corpus evaluation: scores of a trained model on a corpus that it has not seen."""

from collections.abc import Sequence
from pathlib import Path

from serfast.corpora import Corpus, Utterance, group_duplicates
from serfast.errors import CorpusError
from serfast.evaluation.corpus_features import corpus_features, without_excluded
from serfast.evaluation.fold import FOLD, label_answers
from serfast.evaluation.progress import Progress
from serfast.evaluation.results import read_json, score_predictions
from serfast.evaluation.run_folder import SPLITS
from serfast.features import FeatureStore
from serfast.metrics import Scores
from serfast.recognizer import Recognizer

__all__ = ["evaluate"]


def evaluate(
    run: str | Path,
    corpus: Corpus,
    *,
    store: str | Path | None = None,
    exclude: Sequence[str] = (),
    batch_size: int = 16,
    device: str = "auto",
    progress: bool = True,
) -> Scores:
    """Score the model of a training run, or of one fold, on the utterances of ``corpus``.

    A model that was trained with normalisation "speaker" standardises each speaker with all of that speaker's
    recordings in ``corpus``: its scores are transductive.

    Args:
        run: folder that :meth:`serfast.Recognizer.load` reads.
        corpus: labelled recordings whose emotions the model knows.
        store: folder of the feature store; one in the user's cache when None.
        exclude: keys of utterances to leave out, such as broken recordings.
        batch_size: utterances at a time; changes nothing but speed.
        device: "auto", "cpu" or "cuda".
        progress: print where the work stands to standard error.

    Raises:
        ValueError: if the model does not know an emotion of the corpus or saw one of its recordings in training, or
            if recordings are broken and not excluded, or a model that needs to know the speakers is not told one.
        CorpusError: if ``run`` is not a run.
    """
    recognizer = Recognizer.load(run, device=device)
    unknown = sorted(set(corpus.emotions) - set(recognizer.emotions))
    if unknown:
        raise ValueError(
            f"corpus must only hold the model's emotions ({', '.join(recognizer.emotions)}), got {', '.join(unknown)}: "
            f"choose or merge emotions when loading it"
        )
    shown = Progress(progress)
    features = corpus_features(corpus, recognizer.feature_options, store=store, progress=shown)
    features = without_excluded(features, exclude, progress=shown)
    _refuse_seen(Path(run), features)
    if recognizer.normaliser is None:
        shown.say("transductive: the features of each speaker are standardised with all of that speaker's recordings")
    indices: Sequence[int] = range(len(features.lengths))
    answers = recognizer.answer_store(features, indices, batch_size=batch_size)
    predictions = label_answers(answers.probabilities, recognizer.emotions, features, indices, fold="")
    return score_predictions(predictions, recognizer.emotions)


def _refuse_seen(run: Path, features: FeatureStore) -> None:
    path = _nearest(run, SPLITS)
    splits, name = read_json(path), read_json(_nearest(run, FOLD))["name"]
    folds = [fold for fold in splits["folds"] if fold["name"] == name]
    if len(folds) != 1:
        raise CorpusError(f"{path} must list the fold {name} once, got it {len(folds)} times")
    seen = {splits["sources"][key] for part in ("train", "validation") for key in folds[0][part]}
    learned = {_placeholder(recording): recording.partition("#")[0] for recording in sorted(seen)}
    groups = group_duplicates([*learned, *features.corpus.utterances], [*learned.values(), *features.sources])
    shared = [item.key for group in groups if learned.keys() & set(group) for item in group if item not in learned]
    if shared:
        raise ValueError(
            f"corpus must not hold recordings that the model was trained or selected on, got {len(shared)} of them, "
            f"such as {shared[0]}"
        )


def _nearest(model: Path, name: str) -> Path:
    # Models lie at several depths: run, run/base, run/folds/FOLD, run/base/folds/FOLD, and candidates in all of them.
    folder = model.resolve()
    for place in (folder, *folder.parents):
        if (place / name).is_file():
            return place / name
    raise CorpusError(f"{model} must lie in the folder of the run that trained it, got one without {name} above it")


def _placeholder(recording: str) -> Utterance:
    """An utterance with the limits that :func:`serfast.evaluation.protocol.recording_ids` wrote."""
    limits = recording.partition("#")[2]
    start_s, _, end_s = limits.rpartition("-")
    return Utterance(
        key=recording,
        path=Path(recording),
        emotion="",
        speaker=None,
        start_s=float(start_s) if limits else 0.0,
        end_s=float(end_s) if limits and end_s != "None" else None,
    )

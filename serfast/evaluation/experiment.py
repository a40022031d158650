"""The main job: train and evaluate models on a corpus, in a run folder that can be stopped and resumed."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from serfast import atomic
from serfast.corpora import Corpus
from serfast.environment import versions
from serfast.evaluation.fold import run_fold
from serfast.evaluation.progress import Progress
from serfast.evaluation.protocol import SINGLE, Protocol, make_protocol
from serfast.evaluation.recipe import Recipe
from serfast.evaluation.results import RESULT, FoldResult, Result, UtterancePrediction, score_predictions
from serfast.features import FeatureOptions, FeatureStore, default_store_path, extract_corpus
from serfast.ops import resolve_device
from serfast.training import EpochRecord

__all__ = ["cross_validate", "train"]

RECIPE, SPLITS = "recipe.json", "splits.json"


def train(
    corpus: Corpus | FeatureStore,
    *,
    output: str | Path,
    store: str | Path | None = None,
    exclude: Sequence[str] = (),
    device: str = "auto",
    progress: bool = True,
    **options: Any,
) -> Result:
    """Train one model; every fifth speaker validates it and trains nothing.

    The scores are those of the validation part, which also selected the epoch: they flatter. For scores of unseen
    speakers use :func:`cross_validate`.

    Args:
        corpus: a corpus whose recordings exist, or a feature store that holds its features.
        output: folder of the run. Called again with the same arguments, a stopped run goes on where it stopped and a
            finished one is read back.
        store: folder of the feature store; one in the user's cache when None.
        exclude: keys of utterances to leave out, such as broken recordings.
        device: "auto", "cpu" or "cuda".
        progress: print where the work stands to standard error.
        **options: fields of FeatureOptions, ModelOptions and TrainingOptions, such as ``pooling="eq9"``.

    Raises:
        ValueError: if an option, the corpus or the folder does not fit, or recordings are broken and not excluded.
        CorpusError: if data on disk break a rule.
    """
    return _experiment(corpus, SINGLE, Path(output), store, exclude, device, Progress(progress), options)


def cross_validate(
    corpus: Corpus | FeatureStore,
    *,
    output: str | Path,
    protocol: str = "leave_one_speaker_out",
    store: str | Path | None = None,
    exclude: Sequence[str] = (),
    device: str = "auto",
    progress: bool = True,
    **options: Any,
) -> Result:
    """Train and test one model per fold of ``protocol``; the epoch is selected on the fold's validation part.

    Arguments and errors are those of :func:`train`. Each fold has its own folder ``folds/<name>`` in ``output``, which
    :meth:`serfast.Recognizer.load` reads.

    Source of protocol "paper": Huang and Narayanan (2016), section 4.
    """
    return _experiment(corpus, protocol, Path(output), store, exclude, device, Progress(progress), options)


def _experiment(
    corpus: Corpus | FeatureStore,
    protocol_name: str,
    output: Path,
    store_path: str | Path | None,
    exclude: Sequence[str],
    device_name: str,
    progress: Progress,
    options: dict[str, Any],
) -> Result:
    recipe = Recipe.from_options(**options)
    device = resolve_device(device_name)
    features = _without_excluded(_features(corpus, recipe.features, options, store_path, progress), exclude)
    recipe = dataclasses.replace(recipe, features=features.options)
    protocol = make_protocol(protocol_name, features)
    output.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output / ".lock", timeout=0):
            return _run(features, protocol, recipe, output, device, progress)
    except Timeout as error:
        raise ValueError(f"output {output} must not be in use, got a folder that another process trains in") from error


def _run(
    features: FeatureStore, protocol: Protocol, recipe: Recipe, output: Path, device: torch.device, progress: Progress
) -> Result:
    _claim(output, features, protocol, recipe)
    if (output / RESULT).exists():
        progress.say(f"{output} holds this run, finished: nothing to do")
        return Result.load(output)
    folds: list[FoldResult] = []
    predictions: list[UtterancePrediction] = []
    for n_fold, fold in enumerate(protocol.folds, start=1):

        def on_epoch(record: EpochRecord, n_fold: int = n_fold, name: str = fold.name) -> None:
            n_folds, n_epochs = len(protocol.folds), recipe.training.n_epochs
            progress.epoch(record, fold=name, n_fold=n_fold, n_folds=n_folds, n_epochs=n_epochs)

        folder = output if protocol.name == SINGLE else output / "folds" / fold.name.replace("/", "%2F")
        found, found_predictions = run_fold(features, fold, recipe, folder, device, on_epoch)
        folds.append(found)
        predictions.extend(found_predictions)
        progress.say(f"fold {n_fold}/{len(protocol.folds)} {fold.name}  UA {found.ua:.3f} WA {found.wa:.3f}")
    result = Result(
        corpus=features.corpus.name,
        protocol=protocol.name,
        part=protocol.scored_part,
        emotions=features.corpus.emotions,
        pooled=score_predictions(predictions, features.corpus.emotions),
        folds=tuple(folds),
        predictions=tuple(predictions),
        splits_digest=protocol.digest,
        training_seconds=sum(fold.seconds_per_epoch * fold.n_epochs for fold in folds),
        environment={**versions(), "device": str(device)},
        output=output,
    )
    result.save()
    return result


def _features(
    corpus: Corpus | FeatureStore,
    feature_options: FeatureOptions,
    options: dict[str, Any],
    store_path: str | Path | None,
    progress: Progress,
) -> FeatureStore:
    if isinstance(corpus, FeatureStore):
        asked = options.keys() & {field.name for field in dataclasses.fields(FeatureOptions)}
        if asked or store_path is not None:
            names = ", ".join(sorted(asked) or ["store"])
            raise ValueError(f"options must not say how a feature store is extracted, got {names}")
        return corpus
    for note in corpus.notes:
        progress.say(f"{corpus.name}: {note}")
    path = default_store_path(corpus, feature_options) if store_path is None else store_path
    return extract_corpus(corpus, path, feature_options, on_progress=progress.extraction)


def _without_excluded(features: FeatureStore, exclude: Sequence[str]) -> FeatureStore:
    keys = [utterance.key for utterance in features.corpus.utterances]
    unknown = sorted(set(exclude) - set(keys) - features.broken.keys())
    if unknown:
        raise ValueError(f"exclude must hold keys of utterances, got {', '.join(unknown)}")
    unnamed = [f"{key}: {reason}" for key, reason in features.broken.items() if key not in exclude]
    if unnamed:
        listed = "\n  ".join(unnamed)
        raise ValueError(f"exclude must name each recording that could not be extracted, got none of\n  {listed}")
    return features.restrict(index for index, key in enumerate(keys) if key not in exclude)


def _claim(output: Path, features: FeatureStore, protocol: Protocol, recipe: Recipe) -> None:
    # The folder belongs to one recipe on one set of splits: it is empty, or holds the same run.
    asked = {
        "corpus": features.corpus.name,
        "emotions": list(features.corpus.emotions),
        "protocol": protocol.name,
        "splits_digest": protocol.digest,
        **recipe.to_dict(),
    }
    path = output / RECIPE
    if not path.exists():
        if any(not entry.name.startswith(".") for entry in output.iterdir()):
            raise ValueError(f"output {output} must be an empty folder or hold a run, got one with other files")
        atomic.write_json(output / SPLITS, protocol.splits)
        atomic.write_json(path, asked)
        return
    stored, wanted = _flat(json.loads(path.read_text())), _flat(asked)
    differing = [f"{name} {stored.get(name)!r}" for name in wanted if stored.get(name) != wanted[name]]
    if differing:
        raise ValueError(
            f"output {output} must be empty or hold a run of the same recipe, got one with {', '.join(differing)}: "
            f"name another folder"
        )


def _flat(recipe: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in recipe.items():
        flat.update(value if isinstance(value, dict) else {name: value})
    return flat

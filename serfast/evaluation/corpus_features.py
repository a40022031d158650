"""From a corpus to the features that an experiment runs on: extracted, and without what was excluded."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from serfast.corpora import Corpus
from serfast.evaluation.extraction_report import extraction_report
from serfast.evaluation.progress import Progress
from serfast.features import FeatureOptions, FeatureStore, default_store_path, extract_corpus

__all__ = ["corpus_features", "without_excluded"]

N_LISTED = 3


def corpus_features(
    corpus: Corpus | FeatureStore,
    options: FeatureOptions,
    *,
    store: str | Path | None,
    progress: Progress,
) -> FeatureStore:
    """The features of a corpus, extracted with ``options`` as far as they are not stored; a store is what it is.

    Raises:
        TypeError: if ``corpus`` is neither a corpus nor a feature store.
        ValueError: if options or a folder are given for a store that has its own.
    """
    if isinstance(corpus, FeatureStore):
        defaults, own = FeatureOptions().to_dict(), corpus.options.to_dict()
        asked = [name for name, value in options.to_dict().items() if value not in (defaults[name], own[name])]
        if asked or store is not None:
            names = ", ".join(asked or ["store"])
            raise ValueError(f"options must not say how a feature store is extracted, got {names}")
        return corpus
    if not isinstance(corpus, Corpus):
        raise TypeError(f"corpus must be a Corpus or a FeatureStore, got {type(corpus).__name__}")
    for note in corpus.notes:
        progress.say(f"{corpus.name}: {note}")
    path = default_store_path(corpus, options) if store is None else store
    with extraction_report(progress) as report:
        return extract_corpus(corpus, path, options, on_progress=report)


def without_excluded(features: FeatureStore, exclude: Sequence[str], *, progress: Progress) -> FeatureStore:
    """The features without the utterances ``exclude``, which must name each that could not be extracted.

    Raises:
        TypeError: if ``exclude`` is a single string.
        ValueError: if it names no utterance of the corpus, or does not name a broken one.
    """
    if isinstance(exclude, str):
        raise TypeError(f"exclude must be a list of keys, got the single string {exclude!r}")
    keys = [utterance.key for utterance in features.corpus.utterances]
    unknown = sorted(set(exclude) - set(keys) - features.broken.keys())
    if unknown:
        raise ValueError(f"exclude must hold keys of utterances, got {', '.join(unknown)}")
    unnamed = [f"{key} ({reason})" for key, reason in features.broken.items() if key not in exclude]
    if unnamed:
        more = f"; and {len(unnamed) - N_LISTED} more" if len(unnamed) > N_LISTED else ""
        listed = "; ".join(unnamed[:N_LISTED]) + more
        raise ValueError(f"exclude must name each recording that could not be extracted, got none of {listed}")
    if exclude:
        progress.say(f"excluded: {', '.join(sorted(exclude))}")
    kept = features.restrict(index for index, key in enumerate(keys) if key not in exclude)
    return dataclasses.replace(kept, broken={})

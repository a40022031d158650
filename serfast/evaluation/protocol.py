"""A protocol on a corpus: its folds, checked for leaks, written to ``splits.json`` and named by a digest."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from serfast.corpora import PROTOCOLS, Corpus, Fold, check_leaks, group_duplicates
from serfast.features import FeatureStore

__all__ = ["SINGLE", "Protocol", "lay_folds", "make_protocol", "recording_ids"]

SINGLE = "single"
"""The protocol of one training run: a training and a validation part, and no test part."""


@dataclass(frozen=True)
class Protocol:
    """The folds of a protocol on one store. ``splits`` lists them by utterance key; ``digest`` names them.

    Two runs with one digest trained, validated and tested on the same recordings. ``scored_part`` is the part whose
    scores are reported: "test", or "validation" where no fold has a test part.
    """

    name: str
    folds: tuple[Fold, ...]
    splits: dict[str, Any]
    digest: str
    scored_part: str


def lay_folds(name: str, corpus: Corpus) -> tuple[Fold, ...]:
    """The folds of the protocol ``name`` on ``corpus``.

    Raises:
        ValueError: if there is no such protocol, the corpus does not fit it, or a fold would train on one emotion only.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {name!r}")
    folds = PROTOCOLS[name](corpus)
    for fold in folds:
        trained = {corpus.utterances[index].emotion for index in fold.train}
        if len(trained) < 2:
            raise ValueError(f"fold {fold.name} must train on at least 2 emotions, got {', '.join(trained) or 'none'}")
    return folds


def make_protocol(name: str, store: FeatureStore) -> Protocol:
    """Lay out the protocol ``name`` on the utterances of ``store``.

    Raises:
        ValueError: as :func:`lay_folds`, or if speakers or recordings would be in two parts of a fold, or some folds
            have a test part and others have none.
    """
    corpus = store.corpus
    folds = lay_folds(name, corpus)
    duplicates = group_duplicates(corpus.utterances, store.sources)
    for fold in folds:
        check_leaks(corpus, fold, duplicates)
    n_tested = sum(bool(fold.test) for fold in folds)
    if n_tested not in (0, len(folds)):
        raise ValueError(f"protocol {name} must test in every fold or in none, got {n_tested} of {len(folds)}")
    keys = [utterance.key for utterance in corpus.utterances]
    splits: dict[str, Any] = {
        "protocol": name,
        "corpus": corpus.name,
        "sources": dict(zip(keys, recording_ids(store), strict=True)),
        "folds": [
            {
                "name": fold.name,
                "train": [keys[index] for index in fold.train],
                "validation": [keys[index] for index in fold.validation],
                "test": [keys[index] for index in fold.test],
            }
            for fold in folds
        ],
    }
    digest = hashlib.sha256(json.dumps(splits, sort_keys=True).encode()).hexdigest()
    return Protocol(name, folds, {**splits, "digest": digest}, digest, "test" if n_tested else "validation")


def recording_ids(store: FeatureStore) -> list[str]:
    """What each utterance of a store was read from: the digest of its file, and of a segment also its limits."""
    return [
        source
        if utterance.end_s is None and not utterance.start_s
        else f"{source}#{utterance.start_s}-{utterance.end_s}"
        for utterance, source in zip(store.corpus.utterances, store.sources, strict=True)
    ]

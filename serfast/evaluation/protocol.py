"""A protocol on a corpus: its folds, checked for leaks, written to ``splits.json`` and named by a digest."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from serfast.corpora import PROTOCOLS, Fold, check_leaks, group_duplicates
from serfast.features import FeatureStore

__all__ = ["SINGLE", "Protocol", "make_protocol"]

SINGLE = "single"
"""The protocol of one training run: a training and a validation part, and no test part."""


@dataclass(frozen=True)
class Protocol:
    """The folds of a protocol on one store. ``splits`` lists them by utterance key; ``digest`` names them.

    Two runs with one digest trained, validated and tested on the same recordings.
    """

    name: str
    folds: tuple[Fold, ...]
    splits: dict[str, Any]
    digest: str

    @property
    def scored_part(self) -> str:
        """The part whose scores the protocol reports: "test", or "validation" where there is no test part."""
        return "validation" if self.name == SINGLE else "test"


def make_protocol(name: str, store: FeatureStore) -> Protocol:
    """Lay out the protocol ``name`` on the utterances of ``store``.

    Raises:
        ValueError: if there is no such protocol, the corpus does not fit it, or speakers or recordings would be in
            two parts of a fold.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {name!r}")
    corpus = store.corpus
    folds = tuple(PROTOCOLS[name](corpus))
    duplicates = group_duplicates(corpus.utterances, store.sources)
    for fold in folds:
        check_leaks(corpus, fold, duplicates)
    keys = [utterance.key for utterance in corpus.utterances]
    splits: dict[str, Any] = {
        "protocol": name,
        "corpus": corpus.name,
        "sources": dict(zip(keys, store.sources, strict=True)),
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
    return Protocol(name, folds, {**splits, "digest": digest}, digest)

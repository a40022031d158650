"""Corpora: labelled utterances from a folder or a manifest, and the folds that evaluate models on them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from serfast.corpora import csv_manifest, emodb, synthetic
from serfast.corpora.corpus import Corpus, Utterance, find_duplicates, group_duplicates, select_emotions
from serfast.corpora.folds import PROTOCOLS, Fold, check_leaks

__all__ = [
    "CORPORA",
    "PROTOCOLS",
    "Corpus",
    "Fold",
    "Utterance",
    "check_leaks",
    "find_duplicates",
    "group_duplicates",
    "load_corpus",
    "select_emotions",
]

CORPORA = {"csv": csv_manifest.load, "emodb": emodb.load, "synthetic": synthetic.load}
_N_LISTED = 5


def load_corpus(
    name: str, root: str | Path, *, emotions: Sequence[str] | Mapping[str, Sequence[str]] | None = None
) -> Corpus:
    """Load a corpus by name; recordings that occur twice are reported in its notes.

    Args:
        name: one of ``CORPORA``.
        root: the corpus's folder; for ``csv`` the manifest.
        emotions: the emotions to keep, or a mapping that merges them, as in ``select_emotions``; None keeps all.

    Raises:
        ValueError: if ``name`` or one of ``emotions`` is not known.
        CorpusError: if what is on disk breaks a rule of the corpus.
    """
    if name not in CORPORA:
        raise ValueError(f"name must be one of {', '.join(sorted(CORPORA))}, got {name}")
    corpus = CORPORA[name](root)
    if emotions is not None:
        corpus = select_emotions(corpus, emotions)
    duplicates = find_duplicates(corpus.utterances)
    if not duplicates:
        return corpus
    listed = "; ".join(" = ".join(item.key for item in group) for group in duplicates[:_N_LISTED])
    more = f"; and {len(duplicates) - _N_LISTED} more" if len(duplicates) > _N_LISTED else ""
    return replace(corpus, notes=(*corpus.notes, f"recordings that occur more than once: {listed}{more}"))

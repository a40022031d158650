"""Corpora: labelled utterances from a folder or a manifest, and the folds that evaluate models on them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from serfast.corpora import audformat, crema_d, csv_manifest, emodb, iemocap, ravdess, savee, synthetic, tess
from serfast.corpora.corpus import (
    Corpus,
    Utterance,
    content_digest,
    find_duplicates,
    group_duplicates,
    select_emotions,
)
from serfast.corpora.folds import PROTOCOLS, Fold, check_leaks
from serfast.corpora.listing import listed

__all__ = [
    "CORPORA",
    "PROTOCOLS",
    "Corpus",
    "Fold",
    "Utterance",
    "check_leaks",
    "content_digest",
    "find_duplicates",
    "group_duplicates",
    "load_corpus",
    "select_emotions",
]

CORPORA = {
    "audformat": audformat.load,
    "crema-d": crema_d.load,
    "csv": csv_manifest.load,
    "emodb": emodb.load,
    "iemocap": iemocap.load,
    "iemocap-improvised": iemocap.load_improvised,
    "ravdess": ravdess.load,
    "ravdess-song": ravdess.load_song,
    "savee": savee.load,
    "synthetic": synthetic.load,
    "tess": tess.load,
}
_USUAL_EMOTIONS = {"iemocap": iemocap.CLASSES, "iemocap-improvised": iemocap.CLASSES}


def load_corpus(
    name: str, root: str | Path, *, emotions: Sequence[str] | Mapping[str, Sequence[str]] | None = None
) -> Corpus:
    """Load a corpus by name; recordings that occur twice are reported in its notes.

    Args:
        name: one of ``CORPORA``.
        root: the corpus's folder; for ``csv`` the manifest.
        emotions: the emotions to keep, or a mapping that merges them, as in ``select_emotions``; None keeps all, and of
            IEMOCAP the four that are usually compared: angry, happy, sad and neutral.

    Raises:
        ValueError: if ``name`` or one of ``emotions`` is not known.
        CorpusError: if what is on disk breaks a rule of the corpus.
    """
    if name not in CORPORA:
        raise ValueError(f"name must be one of {', '.join(sorted(CORPORA))}, got {name}")
    corpus = CORPORA[name](root)
    emotions = _USUAL_EMOTIONS.get(name) if emotions is None else emotions
    if emotions is not None:
        corpus = select_emotions(corpus, emotions)
    duplicates = find_duplicates(corpus.utterances)
    if not duplicates:
        return corpus
    groups = [" = ".join(item.key for item in group) for group in duplicates]
    return replace(corpus, notes=(*corpus.notes, f"recordings that occur more than once: {listed(groups, '; ')}"))

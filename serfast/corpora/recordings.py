"""Published corpora on disk: finding recordings, copies that mirrors make, numbers unlike the documented ones."""

import filecmp
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from serfast.corpora.corpus import Utterance
from serfast.corpora.listing import listed
from serfast.errors import CorpusError

__all__ = ["check_folder", "drop_copies", "find_differences", "find_recordings", "list_recordings"]


def check_folder(root: str | Path, *, corpus: str) -> Path:
    """``root``, the folder of a corpus.

    Raises:
        CorpusError: if it is not a folder.
    """
    root = Path(root)
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing there"
        raise CorpusError(f"{root}: {corpus} must be a folder, got {found}")
    return root


def list_recordings(folder: Path) -> list[Path]:
    """Every WAV file in a folder and the folders in it, sorted; hidden ones are not recordings.

    Raises:
        CorpusError: if one of the folders cannot be read.
    """
    paths = []
    for place, folders, names in os.walk(folder, onerror=_refuse_folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(place, name) for name in names if name.lower().endswith(".wav") and not name.startswith(".")]
    return sorted(paths)


def _refuse_folder(error: OSError) -> None:
    raise CorpusError(f"{error.filename}: folder must be readable, got {error.strerror}") from error


def find_recordings(root: str | Path, *, corpus: str, example: str) -> list[Path]:
    """Every recording of a corpus, as ``list_recordings``.

    Args:
        root: the folder of the corpus.
        corpus: what messages call it.
        example: a path that the corpus could hold.

    Raises:
        CorpusError: if ``root`` is not a folder, holds one that cannot be read, or holds no recordings.
    """
    root = check_folder(root, corpus=corpus)
    paths = list_recordings(root)
    if not paths:
        raise CorpusError(f"{root}: {corpus} must hold recordings such as {example}, got none")
    return paths


def drop_copies(utterances: Iterable[Utterance]) -> tuple[list[Utterance], list[str]]:
    """Utterances of distinct keys, and a note on copies: some mirrors hold the whole corpus a second time.

    Raises:
        CorpusError: if two recordings have one key and are not the same bytes.
    """
    kept: dict[str, Utterance] = {}
    copies = []
    for utterance in utterances:
        first = kept.setdefault(utterance.key, utterance)
        if first is utterance:
            continue
        if not filecmp.cmp(first.path, utterance.path, shallow=False):
            raise CorpusError(f"{utterance.path}: recording must be the same as {first.path}, got other content")
        copies.append(str(utterance.path))
    notes = [f"left out {len(copies)} copies of recordings: {listed(copies)}"] if copies else []
    return list(kept.values()), notes


def find_differences(
    utterances: Sequence[Utterance], *, corpus: str, counts: Mapping[str, int], speakers: Iterable[str]
) -> list[str]:
    """Notes where a corpus on disk is not the documented one.

    Args:
        utterances: what was found.
        corpus: what notes call the corpus.
        counts: documented number of utterances of each emotion; other emotions are not compared.
        speakers: every documented speaker.
    """
    found = Counter(utterance.emotion for utterance in utterances)
    n_found, n_documented = sum(found[emotion] for emotion in counts), sum(counts.values())
    notes = [
        f"{emotion}: {found[emotion]} utterances where {corpus} documents {documented}"
        for emotion, documented in counts.items()
        if found[emotion] != documented
    ]
    if n_found != n_documented:
        notes.insert(0, f"{n_found} utterances where {corpus} documents {n_documented}")
    missing = sorted(set(speakers) - {str(utterance.speaker) for utterance in utterances})
    if missing:
        notes.append(f"no utterances of speakers {listed(missing)}")
    return notes

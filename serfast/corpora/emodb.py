"""EmoDB, the Berlin Database of Emotional Speech: ``wav/03a01Wa.wav`` and 534 more.

A name holds the speaker (two digits), the sentence (a letter and two digits), the emotion (the first letter of its
German name) and the version. Source: Burkhardt, Paeschke, Rolfes, Sendlmeier and Weiss (2005).
"""

import re
from pathlib import Path

from serfast.corpora.corpus import Corpus, Utterance
from serfast.errors import CorpusError

__all__ = ["load"]

_NAME = re.compile(r"(?P<speaker>\d\d)(?P<sentence>[a-z]\d\d)(?P<emotion>[A-Z])(?P<version>[a-z]?)", re.ASCII)
_EMOTIONS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "T": "sadness",
    "N": "neutral",
}
_GENDERS = {
    "03": "male",
    "08": "female",
    "09": "female",
    "10": "male",
    "11": "male",
    "12": "male",
    "13": "female",
    "14": "female",
    "15": "male",
    "16": "female",
}
_DOCUMENTED_COUNTS = {
    "anger": 127,
    "boredom": 81,
    "disgust": 46,
    "fear": 69,
    "happiness": 71,
    "neutral": 79,
    "sadness": 62,
}


def load(root: str | Path) -> Corpus:
    """Load EmoDB from its folder, or from the ``wav`` folder in it.

    A number of utterances, in all or of an emotion, that differs from the documented one goes into the notes.

    Raises:
        CorpusError: if the folder is missing or holds no recordings, or a recording's name does not hold a known
            speaker and emotion.
    """
    root = Path(root)
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing there"
        raise CorpusError(f"{root}: EmoDB must be a folder, got {found}")
    folder = root / "wav" if (root / "wav").is_dir() else root
    paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".wav" and path.name[0] != "."]
    if not paths:
        raise CorpusError(f"{folder}: EmoDB must hold recordings such as wav/03a01Wa.wav, got none")
    utterances = tuple(_utterance(path) for path in paths)
    return Corpus("emodb", utterances, tuple(sorted(_EMOTIONS.values())), _differences(utterances))


def _utterance(path: Path) -> Utterance:
    name = _NAME.fullmatch(path.stem)
    if name is None:
        raise CorpusError(f"{path}: an EmoDB recording must be named like 03a01Wa.wav, got {path.name}")
    speaker, emotion = name["speaker"], name["emotion"]
    if speaker not in _GENDERS:
        raise CorpusError(f"{path}: speaker must be one of {' '.join(_GENDERS)}, got {speaker}")
    if emotion not in _EMOTIONS:
        raise CorpusError(f"{path}: emotion must be one of {' '.join(_EMOTIONS)}, got {emotion}")
    return Utterance(path.name, path, _EMOTIONS[emotion], speaker, _GENDERS[speaker])


def _differences(utterances: tuple[Utterance, ...]) -> tuple[str, ...]:
    """Notes where the counts are not the documented ones."""
    found = dict.fromkeys(_DOCUMENTED_COUNTS, 0)
    for utterance in utterances:
        found[utterance.emotion] += 1
    notes = [
        f"{emotion}: {found[emotion]} utterances where EmoDB documents {documented}"
        for emotion, documented in _DOCUMENTED_COUNTS.items()
        if found[emotion] != documented
    ]
    n_documented = sum(_DOCUMENTED_COUNTS.values())
    if len(utterances) != n_documented:
        notes.insert(0, f"{len(utterances)} utterances where EmoDB documents {n_documented}")
    missing = sorted(set(_GENDERS) - {str(utterance.speaker) for utterance in utterances})
    if missing:
        notes.append(f"no utterances of speakers {' '.join(missing)}")
    return tuple(notes)

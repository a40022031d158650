"""EmoDB, the Berlin Database of Emotional Speech: ``wav/03a01Wa.wav`` and 534 more.

A name holds the speaker (two digits), the sentence (a letter and two digits), the emotion (the first letter of its
German name) and the version. Source: Burkhardt, Paeschke, Rolfes, Sendlmeier and Weiss (2005).
"""

import re
from pathlib import Path

from serfast.corpora.corpus import Corpus, Utterance
from serfast.corpora.recordings import drop_copies, find_differences, find_recordings
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
    paths = find_recordings(root, corpus="EmoDB", example="wav/03a01Wa.wav")
    utterances, notes = drop_copies(_utterance(path) for path in paths)
    notes += find_differences(utterances, corpus="EmoDB", counts=_DOCUMENTED_COUNTS, speakers=_GENDERS)
    return Corpus("emodb", tuple(utterances), tuple(sorted(_EMOTIONS.values())), tuple(notes))


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

"""TESS, the Toronto emotional speech set: 200 words spoken by two women, ``OAF_back_angry.wav`` and 2,799 more.

A name holds the speaker, the word and the emotion (``ps``: pleasantly surprised). Folders are spelt in many ways and
not read. At least one name is misspelt (``OA_bite_neutral.wav``). Source: Pichora-Fuller and Dupuis (2010).
"""

import re
from pathlib import Path

from serfast.corpora.corpus import Corpus, Utterance
from serfast.corpora.recordings import drop_copies, find_differences, find_recordings
from serfast.errors import CorpusError

__all__ = ["load"]

_NAME = re.compile(r"(?P<speaker>O|Y)AF?_(?P<word>[a-z]+)_(?P<emotion>[a-z]+)", re.ASCII | re.IGNORECASE)
_SPEAKERS = {"O": "OAF", "Y": "YAF"}
_EMOTIONS = {
    "angry": "angry",
    "disgust": "disgust",
    "fear": "fearful",
    "happy": "happy",
    "neutral": "neutral",
    "sad": "sad",
    "ps": "surprised",
}
_DOCUMENTED_COUNTS = dict.fromkeys(_EMOTIONS.values(), 400)


def load(root: str | Path) -> Corpus:
    """Load TESS from its folder, whatever the folders in it are called.

    A number of recordings, in all or of an emotion, that differs from the documented one goes into the notes. With two
    speakers only, no protocol can train, validate and test on different ones.

    Raises:
        CorpusError: if the folder is missing or holds no recordings, a recording's name does not give a known speaker
            and emotion, or two recordings of one name differ.
    """
    paths = find_recordings(root, corpus="TESS", example="OAF_angry/OAF_back_angry.wav")
    utterances, notes = drop_copies(_utterance(path) for path in paths)
    notes += find_differences(utterances, corpus="TESS", counts=_DOCUMENTED_COUNTS, speakers=_SPEAKERS.values())
    return Corpus("tess", tuple(utterances), tuple(_EMOTIONS.values()), tuple(notes))


def _utterance(path: Path) -> Utterance:
    name = _NAME.fullmatch(path.stem)
    if name is None:
        raise CorpusError(f"{path}: a TESS recording must be named like OAF_back_angry.wav, got {path.name}")
    speaker, word, emotion = _SPEAKERS[name["speaker"].upper()], name["word"].lower(), name["emotion"].lower()
    if emotion not in _EMOTIONS:
        raise CorpusError(f"{path}: emotion must be one of {' '.join(_EMOTIONS)}, got {emotion}")
    return Utterance(f"{speaker}_{word}_{emotion}.wav", path, _EMOTIONS[emotion], speaker, "female")

"""SAVEE: sentences acted by four men, ``DC/sa01.wav``, or in one folder ``DC_sa01.wav``; 480 recordings at 44.1 kHz.

A name holds the emotion in one letter or two, and the number of the sentence. Source: Haq and Jackson, in Machine
Audition (2010).
"""

import re
from pathlib import Path

from serfast.corpora.corpus import Corpus, Utterance
from serfast.corpora.recordings import drop_copies, find_differences, find_recordings
from serfast.errors import CorpusError

__all__ = ["load"]

_NAME = re.compile(r"(?P<speaker>[A-Z]{2})[_/](?P<emotion>sa|su|a|d|f|h|n)(?P<sentence>\d\d)", re.ASCII)
_EMOTIONS = {
    "a": "angry",
    "d": "disgust",
    "f": "fearful",
    "h": "happy",
    "n": "neutral",
    "sa": "sad",
    "su": "surprised",
}
_SPEAKERS = ("DC", "JE", "JK", "KL")
_DOCUMENTED_COUNTS = {emotion: 120 if emotion == "neutral" else 60 for emotion in _EMOTIONS.values()}


def load(root: str | Path) -> Corpus:
    """Load SAVEE: recordings in a folder for each speaker, or whose names begin with the speaker.

    A number of recordings, in all or of an emotion, that differs from the documented one goes into the notes.

    Raises:
        CorpusError: if the folder is missing or holds no recordings, a recording's name does not give a known speaker
            and emotion, or two recordings of one name differ.
    """
    paths = find_recordings(root, corpus="SAVEE", example="DC/sa01.wav or DC_sa01.wav")
    utterances, notes = drop_copies(_utterance(path) for path in paths)
    notes += find_differences(utterances, corpus="SAVEE", counts=_DOCUMENTED_COUNTS, speakers=_SPEAKERS)
    return Corpus("savee", tuple(utterances), tuple(_EMOTIONS.values()), tuple(notes))


def _utterance(path: Path) -> Utterance:
    name = _NAME.fullmatch(path.stem) or _NAME.fullmatch(f"{path.parent.name}/{path.stem}")
    if name is None or name["speaker"] not in _SPEAKERS:
        raise CorpusError(
            f"{path}: a SAVEE recording must be named like DC/sa01.wav or DC_sa01.wav, with one of the speakers "
            f"{' '.join(_SPEAKERS)} and the emotions {' '.join(_EMOTIONS)}, got {path.parent.name}/{path.name}"
        )
    speaker, emotion = name["speaker"], name["emotion"]
    return Utterance(f"{speaker}/{emotion}{name['sentence']}.wav", path, _EMOTIONS[emotion], speaker, "male")

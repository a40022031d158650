"""CREMA-D: twelve sentences acted by 91 speakers, ``AudioWAV/1001_DFA_ANG_XX.wav`` and 7,441 more.

A name holds the speaker, the sentence, the emotion that was acted (not the one that raters heard) and its level. One
recording's level is misspelt in most copies, and one recording holds no sound. Genders are those of
``VideoDemographics.csv``, which many copies lack. Source: Cao, Cooper, Keutmann, Gur, Nenkova and Verma, IEEE
Transactions on Affective Computing 5 (2014).
"""

import re
from pathlib import Path

from serfast.corpora.corpus import Corpus, Utterance
from serfast.corpora.recordings import drop_copies, find_differences, find_recordings
from serfast.errors import CorpusError

__all__ = ["load"]

_NAME = re.compile(r"(?P<text>(?P<speaker>\d{4})_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3}))_(?P<level>[A-Z]{1,2})")
_SENTENCES = ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
_EMOTIONS = {"ANG": "angry", "DIS": "disgust", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
_LEVELS = {"LO": "LO", "MD": "MD", "HI": "HI", "XX": "XX", "X": "XX"}
_WITHOUT_SOUND = "1076_MTI_SAD_XX.wav"
_SPEAKERS = tuple(str(speaker) for speaker in range(1001, 1092))
_WOMEN = {
    1002, 1003, 1004, 1006, 1007, 1008, 1009, 1010, 1012, 1013, 1018, 1020, 1021, 1024, 1025,
    1028, 1029, 1030, 1037, 1043, 1046, 1047, 1049, 1052, 1053, 1054, 1055, 1056, 1058, 1060,
    1061, 1063, 1072, 1073, 1074, 1075, 1076, 1078, 1079, 1082, 1084, 1089, 1091,
}  # fmt: skip
_DOCUMENTED_COUNTS = {emotion: 1087 if emotion == "neutral" else 1271 for emotion in _EMOTIONS.values()}


def load(root: str | Path) -> Corpus:
    """Load CREMA-D from its folder, or from the ``AudioWAV`` folder in it.

    The recording without sound is left out with a note. A number of recordings, in all or of an emotion, that differs
    from the documented one goes into the notes, too.

    Raises:
        CorpusError: if the folder is missing or holds no recordings, a recording's name is not of the documented form,
            or two recordings of one name differ.
    """
    paths = find_recordings(root, corpus="CREMA-D", example="AudioWAV/1001_DFA_ANG_XX.wav")
    utterances, notes = drop_copies(_utterance(path) for path in paths)
    notes += find_differences(utterances, corpus="CREMA-D", counts=_DOCUMENTED_COUNTS, speakers=_SPEAKERS)
    kept = tuple(utterance for utterance in utterances if utterance.key != _WITHOUT_SOUND)
    if len(kept) < len(utterances):
        notes.append(f"left out {_WITHOUT_SOUND}, which holds no sound")
    return Corpus("crema-d", kept, tuple(_EMOTIONS.values()), tuple(notes))


def _utterance(path: Path) -> Utterance:
    name = _NAME.fullmatch(path.stem)
    if name is None:
        raise CorpusError(f"{path}: a CREMA-D recording must be named like 1001_DFA_ANG_XX.wav, got {path.name}")
    allowed = {"speaker": _SPEAKERS, "sentence": _SENTENCES, "emotion": tuple(_EMOTIONS), "level": tuple(_LEVELS)}
    for part, values in allowed.items():
        if name[part] not in values:
            known = f"{values[0]} to {values[-1]}" if part == "speaker" else f"one of {' '.join(values)}"
            raise CorpusError(f"{path}: {part} must be {known}, got {name[part]}")
    speaker = name["speaker"]
    gender = "female" if int(speaker) in _WOMEN else "male"
    key = f"{name['text']}_{_LEVELS[name['level']]}.wav"
    return Utterance(key, path, _EMOTIONS[name["emotion"]], speaker, gender)

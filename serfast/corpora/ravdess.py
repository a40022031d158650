"""RAVDESS: acted speech of 24 actors, ``Actor_12/03-01-05-01-02-01-12.wav``, and song by 23 of them.

A name holds seven numbers: modality (03 for sound alone), channel (01 speech, 02 song), emotion, intensity, statement,
repetition and actor (odd: a man). Neutral was recorded at one intensity only, and is half as frequent. Recordings have
48 kHz, and some two channels. Source: Livingstone and Russo, PLoS ONE 13 (2018).
"""

import re
from pathlib import Path

from serfast.corpora.corpus import Corpus, Utterance
from serfast.corpora.recordings import drop_copies, find_differences, find_recordings
from serfast.errors import CorpusError

__all__ = ["load", "load_song"]

_NAME = re.compile(
    r"03-(?P<channel>01|02)-(?P<emotion>0[1-6]|(?<=-01-)0[78])-0[12]-0[12]-0[12]-(?P<actor>0[1-9]|1\d|2[0-4])", re.ASCII
)
_RULE = (
    "be named modality-channel-emotion-intensity-statement-repetition-actor with modality 03, channel 01 or 02, "
    "emotion 01 to 08 (of song to 06), the next three 01 or 02 and actor 01 to 24, such as 03-01-05-01-02-01-12.wav"
)
_EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
_SPEECH, _SONG = "01", "02"
_CORPORA = {_SPEECH: "ravdess", _SONG: "ravdess-song"}
_SPEAKERS = {
    _SPEECH: [f"{actor:02d}" for actor in range(1, 25)],
    _SONG: [f"{actor:02d}" for actor in range(1, 25) if actor != 18],
}
_DOCUMENTED_COUNTS = {
    _SPEECH: {emotion: 96 if emotion == "neutral" else 192 for emotion in _EMOTIONS.values()},
    _SONG: {"neutral": 92, "calm": 184, "happy": 184, "sad": 184, "angry": 184, "fearful": 184},
}


def load(root: str | Path) -> Corpus:
    """Load the speech of RAVDESS; song is left out, and counted in the notes.

    Raises:
        CorpusError: if the folder is missing or holds no speech, a recording's name is not of the documented form, or
            two recordings of one name differ.
    """
    return _load(root, _SPEECH)


def load_song(root: str | Path) -> Corpus:
    """Load the song of RAVDESS; speech is left out, and counted in the notes. Errors are those of ``load``."""
    return _load(root, _SONG)


def _load(root: str | Path, channel: str) -> Corpus:
    example = f"Actor_12/03-{channel}-05-01-02-01-12.wav"
    paths = find_recordings(root, corpus="RAVDESS", example=example)
    utterances, notes = drop_copies(_utterance(path) for path in paths)
    chosen = [utterance for utterance in utterances if _channel(utterance.path) == channel]
    if not chosen:
        raise CorpusError(f"{root}: RAVDESS must hold recordings such as {example}, got only the other channel")
    if len(chosen) < len(utterances):
        other = _SONG if channel == _SPEECH else _SPEECH
        notes.append(f"left out {len(utterances) - len(chosen)} recordings of {_CORPORA[other]}")
    counts = _DOCUMENTED_COUNTS[channel]
    notes += find_differences(chosen, corpus="RAVDESS", counts=counts, speakers=_SPEAKERS[channel])
    return Corpus(_CORPORA[channel], tuple(chosen), tuple(counts), tuple(notes))


def _channel(path: Path) -> str:
    return path.stem.split("-")[1]


def _utterance(path: Path) -> Utterance:
    name = _NAME.fullmatch(path.stem)
    if name is None:
        raise CorpusError(f"{path}: a RAVDESS recording must {_RULE}, got {path.name}")
    actor = name["actor"]
    gender = "male" if int(actor) % 2 else "female"
    return Utterance(path.name, path, _EMOTIONS[name["emotion"]], actor, gender)

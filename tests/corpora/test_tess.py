"""TESS: spellings of names and folders, containers, two speakers."""

import re
from itertools import product

import pytest

from serfast import load_corpus
from serfast.corpora import PROTOCOLS
from serfast.errors import CorpusError

FOLDERS = {
    "angry": "angry",
    "disgust": "disgust",
    "fear": "Fear",
    "happy": "happy",
    "neutral": "neutral",
    "ps": "Pleasant_surprise",
    "sad": "Sad",
}


def names() -> list[str]:
    words = [first + second for first, second in product("abcdefghijklmnopqrst", "abcdefghij")]
    return [
        f"{speaker}_{FOLDERS[emotion]}/{speaker}_{word}_{emotion}.wav"
        for speaker, word, emotion in product(("OAF", "YAF"), words, FOLDERS)
    ]


def test_the_documented_corpus_gives_no_notes(tmp_path, grow):
    corpus = load_corpus("tess", grow(tmp_path, names()))
    assert corpus.notes == ()
    assert len(corpus.utterances) == 2800
    assert set(corpus.counts().values()) == {400}
    assert corpus.genders == {"OAF": "female", "YAF": "female"}
    with pytest.raises(ValueError, match="corpus must have at least 3 speakers for leave_one_speaker_out, got 2"):
        PROTOCOLS["leave_one_speaker_out"](corpus)


def test_names_are_read_and_folders_are_not(tmp_path, grow):
    root = grow(
        tmp_path,
        [
            "OAF_neutral/OA_bite_neutral.wav",
            "OAF_Pleasant_surprise/OAF_back_ps.wav",
            "YAF_pleasant_surprised/YAF_back_ps.wav",
            "YAF_fear/yaf_Neat_Fear.WAV",
            "YAF_fear/._YAF_neat_fear.wav",
        ],
    )
    corpus = load_corpus("tess", root)
    assert [(item.key, item.emotion, item.speaker) for item in corpus.utterances] == [
        ("OAF_back_ps.wav", "surprised", "OAF"),
        ("OAF_bite_neutral.wav", "neutral", "OAF"),
        ("YAF_neat_fear.wav", "fearful", "YAF"),
        ("YAF_back_ps.wav", "surprised", "YAF"),
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("XAF_back_angry.wav", "a TESS recording must be named like OAF_back_angry.wav, got XAF_back_angry.wav"),
        ("OAF_angry.wav", "a TESS recording must be named like OAF_back_angry.wav, got OAF_angry.wav"),
        ("OAF_back_bored.wav", "emotion must be one of angry disgust fear happy neutral sad ps, got bored"),
    ],
)
def test_a_wrong_name_is_refused(tmp_path, grow, name, message):
    root = grow(tmp_path, ["OAF_back_angry.wav", name])
    with pytest.raises(CorpusError, match=re.escape(f"{root / name}: {message}")):
        load_corpus("tess", root)


def test_the_odd_rate_and_aiff_under_a_wav_name_are_heard(tmp_path, sound, heard_hz):
    root = tmp_path / "tess"
    sound(root / "OAF_angry/OAF_back_angry.wav", sample_rate=24_414)
    sound(root / "YAF_angry/YAF_germ_angry.wav", sample_rate=24_414, container="AIFF")
    assert heard_hz(load_corpus("tess", root)) == pytest.approx([200, 200], rel=0.01)

"""SAVEE: one folder for each speaker, or one for all."""

import re
from itertools import product

import pytest

from serfast import load_corpus
from serfast.errors import CorpusError

SPEAKERS = ("DC", "JE", "JK", "KL")


def names(separator: str) -> list[str]:
    """Every recording as documented: 15 sentences of each emotion, 30 neutral ones."""
    codes = [f"{code}{number:02d}" for code, number in product(("a", "d", "f", "h", "sa", "su"), range(1, 16))]
    codes += [f"n{number:02d}" for number in range(1, 31)]
    return [f"{speaker}{separator}{code}.wav" for speaker, code in product(SPEAKERS, codes)]


@pytest.mark.parametrize("separator", ["/", "_"])
def test_the_documented_corpus_gives_no_notes(tmp_path, grow, separator):
    corpus = load_corpus("savee", grow(tmp_path / "AudioData", names(separator)))
    assert corpus.notes == ()
    assert corpus.counts() == {
        "angry": 60,
        "disgust": 60,
        "fearful": 60,
        "happy": 60,
        "neutral": 120,
        "sad": 60,
        "surprised": 60,
    }
    assert corpus.genders == dict.fromkeys(SPEAKERS, "male")
    for speaker in SPEAKERS:
        assert sum(corpus.counts_by_speaker()[speaker].values()) == 120


def test_both_layouts_have_the_same_keys(tmp_path, grow):
    folders, flat = grow(tmp_path / "1", names("/")), grow(tmp_path / "2", names("_"))
    described = [
        [(item.key, item.emotion, item.speaker) for item in load_corpus("savee", root).utterances]
        for root in (folders, flat)
    ]
    assert described[0] == described[1]


def test_codes_of_two_letters_are_not_those_of_one(tmp_path, grow):
    root = grow(tmp_path, ["DC/a01.wav", "DC/sa01.wav", "DC/su01.wav"])
    assert [item.emotion for item in load_corpus("savee", root).utterances] == ["angry", "sad", "surprised"]


@pytest.mark.parametrize("name", ["DC/s01.wav", "DC/x01.wav", "XY/a01.wav", "a01.wav", "XY_a01.wav", "DC/a1.wav"])
def test_a_wrong_name_is_refused(tmp_path, grow, name):
    root = grow(tmp_path / "savee", ["DC/a01.wav", name])
    with pytest.raises(
        CorpusError, match=re.escape(f"{root / name}: a SAVEE recording must be named like DC/sa01.wav")
    ):
        load_corpus("savee", root)


def test_recordings_of_44_khz_are_heard(tmp_path, sound, heard_hz):
    sound(tmp_path / "savee" / "DC" / "sa01.wav", sample_rate=44_100)
    assert heard_hz(load_corpus("savee", tmp_path / "savee")) == pytest.approx([200], rel=0.01)

"""CREMA-D: names, the misspelt level, the recording without sound, genders."""

import re
from itertools import product

import pytest

from serfast import load_corpus
from serfast.errors import CorpusError

SENTENCES = ("TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
EMOTIONS = ("ANG", "DIS", "FEA", "HAP", "SAD")


def names() -> list[str]:
    """As many recordings of each emotion as are documented; which of 7462 are missing is made up."""
    found = []
    for speaker in range(1001, 1092):
        found += [f"{speaker}_IEO_{emotion}_{level}" for emotion, level in product(EMOTIONS, ("LO", "MD", "HI"))]
        found += [f"{speaker}_{sentence}_{emotion}_XX" for sentence, emotion in product(SENTENCES, EMOTIONS)]
        found += [f"{speaker}_{sentence}_NEU_XX" for sentence in ("IEO", *SENTENCES)]
    missing = {f"{1001 + number}_TAI_{emotion}_XX" for emotion in EMOTIONS for number in range(3)}
    missing |= {f"{1001 + number}_TAI_NEU_XX" for number in range(5)}
    return [f"AudioWAV/{name}.wav" for name in found if name not in missing]


def test_the_documented_corpus_lacks_one_recording_without_sound(tmp_path, grow):
    corpus = load_corpus("crema-d", grow(tmp_path, names()))
    assert len(corpus.utterances) == 7441
    assert corpus.counts() == {
        "angry": 1271,
        "disgust": 1271,
        "fearful": 1271,
        "happy": 1271,
        "neutral": 1087,
        "sad": 1270,
    }
    assert corpus.notes == ("left out 1076_MTI_SAD_XX.wav, which holds no sound",)
    assert "1076_MTI_SAD_XX.wav" not in {item.key for item in corpus.utterances}
    genders = list(corpus.genders.values())
    assert (genders.count("female"), genders.count("male")) == (43, 48)
    assert [corpus.genders[speaker] for speaker in ("1001", "1002", "1040", "1091")] == [
        "male",
        "female",
        "male",
        "female",
    ]


def test_the_folder_of_the_recordings_will_do(tmp_path, grow):
    root = grow(
        tmp_path, ["AudioWAV/1001_DFA_ANG_XX.wav", "AudioMP3/1001_DFA_ANG_XX.mp3", "AudioWAV/._1001_DFA_ANG_XX.wav"]
    )
    assert load_corpus("crema-d", root) == load_corpus("crema-d", root / "AudioWAV")


def test_the_misspelt_level_has_the_right_key(tmp_path, grow):
    root = grow(tmp_path, ["AudioWAV/1040_ITH_SAD_X.wav"])
    (utterance,) = load_corpus("crema-d", root).utterances
    assert (utterance.key, utterance.path.name) == ("1040_ITH_SAD_XX.wav", "1040_ITH_SAD_X.wav")
    assert (utterance.emotion, utterance.speaker) == ("sad", "1040")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1001-DFA-ANG-XX.wav", "a CREMA-D recording must be named like 1001_DFA_ANG_XX.wav, got 1001-DFA-ANG-XX.wav"),
        ("1092_DFA_ANG_XX.wav", "speaker must be 1001 to 1091, got 1092"),
        ("1001_ABC_ANG_XX.wav", "sentence must be one of IEO TIE"),
        ("1001_DFA_SUR_XX.wav", "emotion must be one of ANG DIS FEA HAP NEU SAD, got SUR"),
        ("1001_DFA_ANG_MX.wav", "level must be one of LO MD HI XX X, got MX"),
    ],
)
def test_a_wrong_name_is_refused(tmp_path, grow, name, message):
    root = grow(tmp_path, ["1001_DFA_ANG_XX.wav", name])
    with pytest.raises(CorpusError, match=re.escape(f"{root / name}: {message}")):
        load_corpus("crema-d", root)

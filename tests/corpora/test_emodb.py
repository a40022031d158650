"""EmoDB: names, wrong folders, and the real recordings."""

import re
from itertools import product
from pathlib import Path

import pytest

from serfast.corpora import Corpus, emodb, load_corpus
from serfast.corpora.folds import paper
from serfast.errors import CorpusError


def tree(root: Path, *names: str) -> Path:
    (root / "wav").mkdir(parents=True)
    for name in names:
        (root / "wav" / name).touch()
    return root


def test_a_name_gives_speaker_gender_and_emotion(tmp_path):
    corpus = emodb.load(tree(tmp_path, "03a01Wa.wav", "08b10Lb.wav", "16a07Td.wav"))
    assert corpus.name == "emodb"
    assert corpus.emotions == ("anger", "boredom", "disgust", "fear", "happiness", "neutral", "sadness")
    assert [(item.key, item.speaker, item.gender, item.emotion) for item in corpus.utterances] == [
        ("03a01Wa.wav", "03", "male", "anger"),
        ("08b10Lb.wav", "08", "female", "boredom"),
        ("16a07Td.wav", "16", "female", "sadness"),
    ]


def test_the_folder_and_the_wav_folder_in_it_give_the_same_corpus(tmp_path):
    root = tree(tmp_path, "03a01Wa.wav", "08b10Lb.wav")
    assert emodb.load(root) == emodb.load(root / "wav") == emodb.load(str(root))


def test_hidden_and_other_files_are_ignored(tmp_path):
    root = tree(tmp_path, "03a01Wa.wav", "._03a01Wa.wav", "erkennung.txt", "08b10Lb.WAV")
    assert [item.key for item in emodb.load(root).utterances] == ["03a01Wa.wav", "08b10Lb.WAV"]


def test_counts_that_differ_from_the_documented_ones_are_noted(tmp_path):
    notes = emodb.load(tree(tmp_path, "03a01Wa.wav", "08b10Lb.wav")).notes
    assert notes[0] == "2 utterances where EmoDB documents 535"
    assert "anger: 1 utterances where EmoDB documents 127" in notes
    assert notes[-1] == "no utterances of speakers 09, 10, 11, 12, 13, and 3 more"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("angry.wav", "an EmoDB recording must be named like 03a01Wa.wav, got angry.wav"),
        ("03a01Wa-copy.wav", "an EmoDB recording must be named like 03a01Wa.wav, got 03a01Wa-copy.wav"),
        ("04a01Wa.wav", "speaker must be one of 03 08 09 10 11 12 13 14 15 16, got 04"),
        ("03a01Xa.wav", "emotion must be one of W L E A F T N, got X"),
    ],
)
def test_a_wrong_name_is_refused(tmp_path, name, message):
    with pytest.raises(CorpusError, match=re.escape(f"{name}: {message}")):
        emodb.load(tree(tmp_path, "03a01Wa.wav", name))


def test_a_wrong_folder_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="no: EmoDB must be a folder, got nothing there"):
        emodb.load(tmp_path / "no")
    (tmp_path / "file").touch()
    with pytest.raises(CorpusError, match="file: EmoDB must be a folder, got a file"):
        emodb.load(tmp_path / "file")
    with pytest.raises(CorpusError, match=re.escape("EmoDB must hold recordings such as wav/03a01Wa.wav, got none")):
        emodb.load(tmp_path)


@pytest.fixture
def real(emodb_root) -> Corpus:
    return load_corpus("emodb", emodb_root)


@pytest.mark.emodb
def test_the_real_corpus_is_as_documented(real):
    assert len(real.utterances) == 535
    assert real.counts() == {
        "anger": 127,
        "boredom": 81,
        "disgust": 46,
        "fear": 69,
        "happiness": 71,
        "neutral": 79,
        "sadness": 62,
    }
    assert real.notes == ()
    assert list(real.genders.values()).count("female") == 5
    without = [
        (speaker, emotion)
        for speaker, emotion in product(real.speakers, real.emotions)
        if real.counts_by_speaker()[speaker][emotion] == 0
    ]
    assert without == [("08", "disgust")]


@pytest.mark.emodb
def test_the_real_corpus_pairs_women_and_men(real):
    pairs = []
    for fold in paper(real):
        (test,), (validation,) = (
            {real.utterances[index].speaker for index in part} for part in (fold.test, fold.validation)
        )
        pairs.append((test, validation))
    women_and_men = [("08", "03"), ("09", "10"), ("13", "11"), ("14", "12"), ("16", "15")]
    assert pairs == [pair for woman, man in women_and_men for pair in ((woman, man), (man, woman))]

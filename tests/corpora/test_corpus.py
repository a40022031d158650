"""Corpora, the choice of emotions, recordings that occur twice, and loading by name."""

import re
from pathlib import Path

import pytest

import serfast.corpora
from serfast.corpora import Corpus, Utterance, find_duplicates, group_duplicates, load_corpus, select_emotions
from serfast.errors import CorpusError


def utterance(key: str, emotion: str = "anger", speaker: str | None = "a", **more) -> Utterance:
    return Utterance(key, Path(key.partition("#")[0]), emotion, speaker, **more)


def small_corpus() -> Corpus:
    utterances = (
        utterance("1", "happiness", "b", gender="female", session="2"),
        utterance("2", "excited", "a", gender="male", session="1"),
        utterance("3", "sadness", "b"),
        utterance("4", "neutral", "a", session="1"),
        utterance("5", "happiness", "a"),
        utterance("6", "neutral", "c"),
    )
    return Corpus("small", utterances, ("excited", "happiness", "neutral", "sadness"), ("a note",))


def test_speakers_sessions_and_genders_are_sorted_and_distinct():
    corpus = small_corpus()
    assert corpus.speakers == ("a", "b", "c")
    assert corpus.sessions == ("1", "2")
    assert corpus.genders == {"a": "male", "b": "female", "c": None}


def test_labels_index_the_emotions():
    assert small_corpus().labels() == [1, 0, 3, 2, 1, 2]


def test_counts_list_every_emotion_of_every_speaker():
    corpus = small_corpus()
    assert corpus.counts() == {"excited": 1, "happiness": 2, "neutral": 2, "sadness": 1}
    assert corpus.counts_by_speaker()["b"] == {"excited": 0, "happiness": 1, "neutral": 0, "sadness": 1}
    assert sum(sum(counts.values()) for counts in corpus.counts_by_speaker().values()) == 6


@pytest.mark.parametrize(
    ("utterances", "emotions", "message"),
    [
        ((utterance("1"), utterance("1")), ("anger",), "utterances must have distinct keys, got 1 more than once"),
        ((utterance("1"),), ("fear",), "emotions must hold the emotion of every utterance, got anger at 1"),
        ((utterance("1"),), ("anger", "anger"), "emotions must be distinct, got anger, anger"),
        (
            (utterance("1", gender="male"), utterance("2", gender="female")),
            ("anger",),
            "a speaker must have one gender, got a both female and male",
        ),
    ],
)
def test_an_inconsistent_corpus_is_refused(utterances, emotions, message):
    with pytest.raises(ValueError, match=message):
        Corpus("bad", utterances, emotions)


def test_a_selection_keeps_the_order_asked_for_and_counts_what_is_left_out():
    chosen = select_emotions(small_corpus(), ["sadness", "happiness"])
    assert chosen.emotions == ("sadness", "happiness")
    assert [item.key for item in chosen.utterances] == ["1", "3", "5"]
    assert chosen.labels() == [1, 0, 1]
    assert chosen.notes == ("a note", "left out 3 of 6 utterances: excited 1, neutral 2")


def test_merged_emotions_are_renamed_and_noted():
    chosen = select_emotions(small_corpus(), {"happy": ["happiness", "excited"], "neutral": ["neutral"]})
    assert chosen.counts() == {"happy": 3, "neutral": 2}
    assert chosen.notes[1:] == (
        "merged into happy: happiness 2, excited 1",
        "left out 1 of 6 utterances: sadness 1",
    )


def test_selecting_everything_leaves_no_note():
    assert select_emotions(small_corpus(), small_corpus().emotions) == small_corpus()


@pytest.mark.parametrize(
    ("emotions", "message"),
    [
        (["happiness", "joy"], "emotions must be among excited, happiness, neutral, sadness, got joy"),
        ({"happy": ["happiness", "joy"], "n": ["neutral"]}, "emotions must be among .*, got joy"),
        (["happiness", "neutral", "happiness"], "emotions must name each label once, got happiness more than once"),
        ({"a": ["neutral"], "b": ["neutral"]}, "emotions must name each label once, got neutral more than once"),
        (["happiness"], "emotions must name at least two, got happiness"),
        ([], "emotions must name at least two, got none"),
    ],
)
def test_a_wrong_selection_is_refused(emotions, message):
    with pytest.raises(ValueError, match=message):
        select_emotions(small_corpus(), emotions)


def test_duplicates_are_found_by_content(tmp_path):
    contents = {"a": b"same!", "b": b"other", "c": b"same!", "d": b"longer than all", "e": b"same!"}
    utterances = []
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        utterances.append(Utterance(name, tmp_path / name, "anger", name))
    assert [[item.key for item in group] for group in find_duplicates(utterances)] == [["a", "c", "e"]]


def test_only_files_of_equal_size_are_read(tmp_path, monkeypatch):
    for size in (3, 4):
        (tmp_path / str(size)).write_bytes(bytes(size))
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    assert find_duplicates([Utterance(str(size), tmp_path / str(size), "anger", "a") for size in (3, 4)]) == []


def test_duplicates_of_a_missing_file_are_refused(tmp_path):
    with pytest.raises(CorpusError, match=r"no\.wav: recording must be a file, got nothing there"):
        find_duplicates([Utterance("no.wav", tmp_path / "no.wav", "anger", "a")])


@pytest.mark.parametrize(
    ("spans", "groups"),
    [
        ([(0.0, 1.0), (1.0, 2.0)], []),
        ([(0.0, 1.0), (0.9, 2.0)], []),
        ([(0.0, 1.0), (0.5, 2.0)], [[0, 1]]),
        ([(0.0, 10.0), (3.0, 4.0)], [[0, 1]]),
        ([(0.0, None), (5.0, 6.0)], [[0, 1]]),
        ([(0.0, None), (0.0, None), (9.0, None)], [[0, 1, 2]]),
        ([(0.0, 1.0), (5.0, 6.0), (0.2, 1.0), (5.0, 6.0)], [[0, 2], [1, 3]]),
        ([(0.0, 1.0), (0.8, 2.0), (0.0, 2.0)], [[0, 1, 2]]),
    ],
)
def test_segments_are_duplicates_where_they_share_half_of_the_shorter(spans, groups):
    utterances = [utterance(f"{i}", start_s=start, end_s=end) for i, (start, end) in enumerate(spans)]
    found = group_duplicates(utterances, ["same content"] * len(utterances))
    assert sorted(sorted(int(item.key) for item in group) for group in found) == groups


def test_different_contents_are_no_duplicates():
    assert group_duplicates([utterance("1"), utterance("2")], ["x", "y"]) == []


def manifest(folder: Path) -> Path:
    for name, content in (("a.wav", b"1"), ("b.wav", b"2"), ("c.wav", b"1")):
        (folder / name).write_bytes(content)
    path = folder / "mine.csv"
    path.write_text("file,emotion,speaker\na.wav,sad,x\nb.wav,glad,x\nc.wav,mad,y\n")
    return path


def test_loading_reports_duplicates(tmp_path):
    corpus = load_corpus("csv", manifest(tmp_path))
    assert corpus.notes == ("recordings that occur more than once: a.wav = c.wav",)


def test_loading_can_select_emotions(tmp_path):
    corpus = load_corpus("csv", manifest(tmp_path), emotions=["sad", "glad"])
    assert corpus.counts() == {"sad": 1, "glad": 1}
    assert corpus.notes == ("left out 1 of 3 utterances: mad 1",)


def test_an_unknown_corpus_lists_the_known_ones(tmp_path):
    known = ", ".join(sorted(serfast.corpora.CORPORA))
    with pytest.raises(ValueError, match=re.escape(f"name must be one of {known}, got emo_db")):
        load_corpus("emo_db", tmp_path)

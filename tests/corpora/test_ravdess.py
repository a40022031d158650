"""RAVDESS: names, song apart from speech, copies, channels."""

import re
from itertools import product

import pytest

from serfast import load_corpus
from serfast.corpora import PROTOCOLS, check_leaks
from serfast.errors import CorpusError


def names(channel: str) -> list[str]:
    """Every recording of a channel, as the documentation describes them."""
    found = []
    for actor, emotion, level, statement, take in product(range(1, 25), range(1, 9), (1, 2), (1, 2), (1, 2)):
        if emotion == 1 and level == 2:
            continue  # neutral has no strong intensity
        if channel == "02" and (emotion > 6 or actor == 18):
            continue
        found.append(
            f"Actor_{actor:02d}/03-{channel}-{emotion:02d}-{level:02d}-{statement:02d}-{take:02d}-{actor:02d}.wav"
        )
    return found


def test_the_documented_speech_gives_no_notes(tmp_path, grow):
    corpus = load_corpus("ravdess", grow(tmp_path, names("01")))
    assert corpus.notes == ()
    assert len(corpus.utterances) == 1440
    assert corpus.counts() == {
        "neutral": 96,
        "calm": 192,
        "happy": 192,
        "sad": 192,
        "angry": 192,
        "fearful": 192,
        "disgust": 192,
        "surprised": 192,
    }
    assert len(corpus.speakers) == 24
    for fold in PROTOCOLS["speaker_6_fold"](corpus):
        check_leaks(corpus, fold, [])
        tested = {corpus.utterances[index].speaker for index in fold.test}
        assert len(tested) == 4
        assert sorted(corpus.genders[speaker] for speaker in tested) == ["female", "female", "male", "male"]


def test_song_is_left_out_of_speech_and_the_reverse(tmp_path, grow):
    root = grow(tmp_path, names("01") + names("02"))
    speech, song = load_corpus("ravdess", root), load_corpus("ravdess-song", root)
    assert speech.notes == ("left out 1012 recordings of ravdess-song",)
    assert song.notes == ("left out 1440 recordings of ravdess",)
    assert (len(speech.utterances), len(song.utterances)) == (1440, 1012)
    assert song.counts() == {"neutral": 92, "calm": 184, "happy": 184, "sad": 184, "angry": 184, "fearful": 184}
    assert "18" not in song.speakers
    assert not {item.key for item in speech.utterances} & {item.key for item in song.utterances}


def test_a_name_gives_emotion_speaker_and_gender(tmp_path, grow):
    root = grow(tmp_path, ["Actor_12/03-01-05-01-02-01-12.wav", "x/03-01-08-02-02-01-07.wav"])
    corpus = load_corpus("ravdess", root)
    assert [(item.key, item.emotion, item.speaker, item.gender) for item in corpus.utterances] == [
        ("03-01-05-01-02-01-12.wav", "angry", "12", "female"),
        ("03-01-08-02-02-01-07.wav", "surprised", "07", "male"),
    ]
    assert corpus.notes[0] == "2 utterances where RAVDESS documents 1440"
    assert "calm: 0 utterances where RAVDESS documents 192" in corpus.notes


def test_a_mirror_that_holds_everything_twice_gives_each_recording_once(tmp_path, grow):
    wanted = names("01")
    root = grow(tmp_path, wanted)
    for name in wanted:
        copy = root / "audio_speech_actors_01-24" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((root / name).read_bytes())
    grow(root, [name.replace("/", "/._") for name in wanted])
    corpus = load_corpus("ravdess", root)
    assert len(corpus.utterances) == 1440
    (note,) = corpus.notes
    assert note.startswith("left out 1440 copies of recordings: ")


@pytest.mark.parametrize(
    "name",
    [
        "02-01-05-01-02-01-12.wav",  # the sound of a video
        "03-03-05-01-02-01-12.wav",
        "03-01-09-01-02-01-12.wav",
        "03-02-07-01-02-01-12.wav",  # there is no song of disgust
        "03-01-05-03-02-01-12.wav",
        "03-01-05-01-02-01-25.wav",
        "03-01-05-01-02-01-00.wav",
        "03-01-05-01-02-01.wav",
        "03-01-05-01-02-01-12 (1).wav",
    ],
)
def test_a_wrong_name_is_refused(tmp_path, grow, name):
    root = grow(tmp_path, ["Actor_12/03-01-05-01-02-01-12.wav", f"Actor_12/{name}"])
    with pytest.raises(CorpusError, match=re.escape(f"{root}/Actor_12/{name}: a RAVDESS recording must be named")):
        load_corpus("ravdess", root)


def test_a_folder_of_the_other_channel_is_refused(tmp_path, grow):
    root = grow(tmp_path, ["03-02-05-01-02-01-12.wav"])
    with pytest.raises(CorpusError, match=r"such as Actor_12/03-01-05-01-02-01-12.wav, got only the other channel"):
        load_corpus("ravdess", root)


def test_recordings_of_48_khz_with_one_channel_or_two_are_heard_alike(tmp_path, sound, heard_hz):
    root = tmp_path / "ravdess"
    sound(root / "Actor_01/03-01-05-01-02-01-01.wav", sample_rate=48_000)
    sound(root / "Actor_02/03-01-03-01-02-01-02.wav", sample_rate=48_000, n_channels=2)
    assert heard_hz(load_corpus("ravdess", root)) == pytest.approx([200, 200], rel=0.01)

"""CSV manifests: what they may hold, and what is refused with its line."""

import re
from pathlib import Path

import pytest

from serfast.corpora import Utterance, csv_manifest
from serfast.errors import CorpusError


def manifest(folder: Path, text: str, *, files: tuple[str, ...] = ("a.wav", "b.wav"), encoding: str = "utf-8") -> Path:
    for name in files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    path = folder / "mine.csv"
    path.write_text(text, encoding=encoding)
    return path


def test_three_columns_are_enough(tmp_path):
    corpus = csv_manifest.load(manifest(tmp_path, "file,emotion,speaker\na.wav,sad,ann\nb.wav,glad,bob\n"))
    assert corpus.name == "mine"
    assert corpus.emotions == ("glad", "sad")
    assert corpus.utterances == (
        Utterance("a.wav", tmp_path / "a.wav", "sad", "ann"),
        Utterance("b.wav", tmp_path / "b.wav", "glad", "bob"),
    )
    assert corpus.notes == ()


def test_every_column_is_read(tmp_path):
    text = (
        "split,end,start,session,gender,speaker,emotion,file\n"
        "train,1.25,0.5,s1,F,ann,sad,a.wav\n"
        "test,,1.25,s1,female,ann,glad,a.wav\n"
        "validation,,,s2,m,bob,glad,b.wav\n"
    )
    first, second, third = csv_manifest.load(manifest(tmp_path, text)).utterances
    expected = Utterance("a.wav#0.5-1.25", tmp_path / "a.wav", "sad", "ann", "female", "s1", 0.5, 1.25, "train")
    assert first == expected
    assert (second.key, second.start_s, second.end_s, second.split) == ("a.wav#1.25-end", 1.25, None, "test")
    assert (third.key, third.gender, third.start_s, third.end_s) == ("b.wav", "male", 0.0, None)


def test_a_byte_order_mark_spaces_and_blank_lines_are_tolerated(tmp_path):
    text = "file, emotion ,speaker\r\n\r\na.wav, wütend ,jürgen\r\n\r\n"
    corpus = csv_manifest.load(manifest(tmp_path, text, encoding="utf-8-sig"))
    assert [(item.emotion, item.speaker) for item in corpus.utterances] == [("wütend", "jürgen")]


def test_files_are_relative_to_the_manifest_or_absolute(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "c.wav").touch()
    home = tmp_path / "home"
    home.mkdir()
    text = f"file,emotion\n./sub/a.wav,sad\n{other}/c.wav,sad\n{home}/sub/../b.wav,sad\n"
    corpus = csv_manifest.load(manifest(home, text, files=("sub/a.wav", "b.wav")))
    assert [item.key for item in corpus.utterances] == ["sub/a.wav", f"{other}/c.wav", "b.wav"]
    assert all(item.path.is_file() for item in corpus.utterances)


def test_the_speaker_column_may_be_missing(tmp_path):
    corpus = csv_manifest.load(manifest(tmp_path, "file,emotion\na.wav,sad\n"))
    assert corpus.utterances[0].speaker is None
    assert corpus.speakers == ()


def test_unknown_columns_are_named_in_the_notes(tmp_path):
    corpus = csv_manifest.load(manifest(tmp_path, "file,emotion,speaker,age,text\na.wav,sad,ann,30,hello\n"))
    assert corpus.notes == ("columns not used: age, text",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,speaker\na.wav,ann\n", ": manifest must have a column emotion, got file, speaker"),
        ("path;emotion\na.wav;sad\n", ": manifest must have a column file, got path;emotion"),
        ("", ": manifest must have a column file, got nothing"),
        ("file,emotion,emotion\na.wav,sad,sad\n", ": columns must have distinct names, got file, emotion, emotion"),
        ("file,emotion\n", ": manifest must hold at least one row, got none"),
        ("file,emotion\na.wav\n", ", line 2: row must have 2 cells, got 1"),
        ("file,emotion\na.wav,sad,x\n", ", line 2: row must have 2 cells, got 3"),
        ('file,emotion\n"a.wav,sad\n', ", line 2: line must be readable CSV, got: "),
        ("file,emotion\na.wav,sad\nb.wav,\n", ", line 3: emotion must not be empty, got an empty cell"),
        ("file,emotion\n,sad\n", ", line 2: file must not be empty, got an empty cell"),
        ("file,emotion,speaker\na.wav,sad, \n", ", line 2: speaker must not be empty, got an empty cell"),
        ("file,emotion,start\na.wav,sad,soon\n", ", line 2: start must be a number of seconds, at least 0, got soon"),
        ("file,emotion,start\na.wav,sad,-1\n", ", line 2: start must be a number of seconds, at least 0, got -1"),
        ("file,emotion,end\na.wav,sad,nan\n", ", line 2: end must be a number of seconds, at least 0, got nan"),
        ("file,emotion,start,end\na.wav,sad,2,1.5\n", ", line 2: end must be greater than start 2.0, got 1.5"),
        ("file,emotion,end\na.wav,sad,0\n", ", line 2: end must be greater than start 0.0, got 0.0"),
        ("file,emotion,gender\na.wav,sad,x\n", ", line 2: gender must be f, m, female or male, got x"),
        ("file,emotion,split\na.wav,sad,dev\n", ", line 2: split must be one of train, validation, test, got dev"),
        (
            "file,emotion\na.wav,sad\nb.wav,sad\n./a.wav,mad\n",
            ", line 4: rows must be distinct, got a.wav again after line 2",
        ),
        (
            "file,emotion,speaker,gender\na.wav,sad,ann,f\nb.wav,sad,ann,m\n",
            ", line 3: gender of speaker ann must be female as before, got male",
        ),
    ],
)
def test_a_broken_manifest_is_refused_with_its_line(tmp_path, text, message):
    path = manifest(tmp_path, text)
    with pytest.raises(CorpusError, match=re.escape(f"{path}{message}")):
        csv_manifest.load(path)


def test_missing_files_are_listed_up_to_five(tmp_path):
    rows = "".join(f"{number}.wav,sad\n" for number in range(7))
    with pytest.raises(CorpusError, match="every file must exist, got 7 rows without one: ") as error:
        csv_manifest.load(manifest(tmp_path, f"file,emotion\na.wav,sad\n{rows}"))
    assert f"{tmp_path / '0.wav'} (line 3)" in str(error.value)
    assert str(error.value).endswith("4.wav (line 7), and 2 more")


def test_another_encoding_is_refused(tmp_path):
    path = manifest(tmp_path, "file,emotion\na.wav,wütend\n", encoding="latin-1")
    with pytest.raises(CorpusError, match="file must be UTF-8, got byte 0xfc"):
        csv_manifest.load(path)


def test_a_missing_manifest_is_refused(tmp_path):
    with pytest.raises(CorpusError, match=r"no\.csv: manifest must be a CSV file, got nothing there"):
        csv_manifest.load(tmp_path / "no.csv")
    with pytest.raises(CorpusError, match="manifest must be a CSV file, got a folder"):
        csv_manifest.load(tmp_path)

"""audformat: what its own library wrote, and databases that are broken or say too little."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from serfast import Utterance, load_corpus
from serfast.corpora import PROTOCOLS
from serfast.errors import CorpusError

FROZEN = Path(__file__).parent / "frozen"


@pytest.fixture(params=["csv", "parquet"])
def tiny(request, tmp_path, grow) -> Path:
    root = tmp_path / "tiny"
    shutil.copytree(FROZEN / f"audformat_{request.param}", root)
    return grow(root, [f"wav/{letter}.wav" for letter in "abcde"])


def test_what_the_library_wrote_is_read(tiny):
    corpus = load_corpus("audformat", tiny)
    wav = tiny / "wav"
    assert corpus.name == "tiny"
    assert corpus.emotions == ("angry", "happy", "sad")
    assert {item.key: item for item in corpus.utterances} == {
        "wav/a.wav": Utterance("wav/a.wav", wav / "a.wav", "angry", "3", "male", split="train"),
        "wav/b.wav": Utterance("wav/b.wav", wav / "b.wav", "happy", "3", "male", split="train"),
        "wav/d.wav": Utterance("wav/d.wav", wav / "d.wav", "sad", "8", "female", split="validation"),
        **{
            key: Utterance(key, wav / "e.wav", emotion, "9", None, None, start_s, end_s, "test")
            for key, emotion, start_s, end_s in (
                ("wav/e.wav#0.0-1.25", "angry", 0.0, 1.25),
                ("wav/e.wav#1.25-61.0", "happy", 1.25, 61.0),
                ("wav/e.wav#61.000000001-end", "angry", 61.000000001, None),
            )
        },
    }
    assert corpus.notes == (
        "left out 1 utterances without a label",
        "left out the gender of 3 utterances, not female or male: other 3",
    )


def test_the_prescribed_split_is_a_protocol(tiny):
    corpus = load_corpus("audformat", tiny)
    (fold,) = PROTOCOLS["fixed"](corpus)
    parts = [
        [corpus.utterances[index].path.stem for index in part] for part in (fold.train, fold.validation, fold.test)
    ]
    assert [sorted(part) for part in parts] == [["a", "b"], ["d"], ["e", "e", "e"]]


def change_header(root: Path, change: Callable[[dict], object]) -> None:
    path = root / "db.yaml"
    header = yaml.safe_load(path.read_text())
    change(header)
    path.write_text(yaml.safe_dump(header))


def test_genders_may_stand_among_the_labels_of_the_header(tiny):
    labels = {3: {"gender": "female", "age": 31}, 8: {"gender": "male"}, 9: {"age": 20}}
    change_header(tiny, lambda header: header["schemes"]["speaker"].update(labels=labels))
    corpus = load_corpus("audformat", tiny)
    assert corpus.genders == {"3": "female", "8": "male", "9": None}


def test_speakers_without_description_have_no_gender(tiny):
    change_header(tiny, lambda header: header["schemes"].pop("speaker"))
    assert load_corpus("audformat", tiny).genders == {"3": None, "8": None, "9": None}


@pytest.fixture
def small(tmp_path) -> Path:
    """A database with one table in CSV, to be broken."""
    tables = {
        "emotion": {"type": "segmented", "columns": {name: {} for name in ("emotion", "speaker", "session", "gender")}}
    }
    (tmp_path / "db.yaml").write_text(yaml.safe_dump({"name": "small", "tables": tables}))
    (tmp_path / "a.wav").touch()
    write_table(tmp_path, "a.wav,0 days,0 days 00:01:02.5,sad,ann,s1,female", "a.wav,1 days 01:00:00,,glad,bob,s2,")
    return tmp_path


def write_table(root: Path, *rows: str) -> None:
    (root / "db.emotion.csv").write_text("\n".join(["file,start,end,emotion,speaker,session,gender", *rows]) + "\n")


def test_columns_and_durations_are_read(small):
    first, second = load_corpus("audformat", small).utterances
    assert first == Utterance("a.wav#0.0-62.5", small / "a.wav", "sad", "ann", "female", "s1", 0.0, 62.5)
    assert second == Utterance("a.wav#90000.0-end", small / "a.wav", "glad", "bob", None, "s2", 90000.0, None)


def test_other_genders_are_left_out_and_noted(small):
    rows = ("a.wav,0 days,0 days 00:00:01,sad,ann,s1,diverse", "a.wav,0 days 00:00:01,0 days 00:00:02,sad,ann,s1,")
    last = ("a.wav,0 days 00:00:02,0 days 00:00:03,glad,bob,s2,child", "a.wav,0 days 00:00:03,,glad,cid,s2,male")
    write_table(small, *rows, *last)
    corpus = load_corpus("audformat", small)
    assert corpus.genders == {"ann": None, "bob": None, "cid": "male"}
    assert corpus.notes == ("left out the gender of 2 utterances, not female or male: child 1, diverse 1",)


def test_what_is_said_of_a_file_holds_for_its_segments(small):
    def add_tables(header: dict) -> None:
        header["tables"]["emotion"]["columns"] = {"emotion": {}}
        header["tables"]["files"] = {"type": "filewise", "columns": {"speaker": {}, "emotion": {}}}

    change_header(small, add_tables)
    (small / "db.emotion.csv").write_text(
        "file,start,end,emotion\na.wav,0 days,0 days 00:00:01,sad\na.wav,0 days 00:00:01,,\n"
    )
    (small / "db.files.csv").write_text("file,speaker,emotion\na.wav,ann,glad\n")
    corpus = load_corpus("audformat", small)
    found = [(item.key, item.speaker, item.emotion) for item in corpus.utterances]
    assert found == [("a.wav#0.0-1.0", "ann", "sad"), ("a.wav", "ann", "glad")]
    assert corpus.notes[0] == "left out 1 utterances without a label"


SOUND_ROW = "a.wav,0 days,,sad,ann,s1,female"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            (SOUND_ROW, "a.wav,0 days,,glad,ann,s1,female"),
            "db.emotion.csv, row 2: emotion must be sad as in a table before, got glad",
        ),
        ((SOUND_ROW, "a.wav,0 days,,sad,bob,s1,female"), "row 2: speaker must be ann as in a table before, got bob"),
        (
            ("a.wav,0 days 00:00:02,0 days 00:00:01,sad,ann,s1,female",),
            "db.yaml, table emotion, row 1: end must be greater than start 2.0, got 1.0",
        ),
        (("a.wav,0 days,0 days,sad,ann,s1,female",), "row 1: end must be greater than start 0.0, got 0.0"),
        (("a.wav,2,,sad,ann,s1,female",), "row 1: start must be a duration such as 0 days 00:00:01.250000, got 2"),
        (("b.wav,0 days,,sad,ann,s1,female",), "every file must exist, got 1 rows without one: "),
        (("a.wav,0 days,,,ann,s1,female",), "utterances must have an emotion, got none that has one"),
        (("a.wav,0 days",), "db.emotion.csv, line 2: row must have 7 cells, got 2"),
    ],
)
def test_a_broken_table_is_refused(small, rows, message):
    write_table(small, *rows)
    with pytest.raises(CorpusError, match=re.escape(message)):
        load_corpus("audformat", small)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header.pop("tables"), "a table must have a column emotion, got no tables"),
        (
            lambda header: header["tables"]["emotion"].update(columns={"rater1": {}, "rater2": {}}),
            "a table must have a column emotion, got emotion: rater1, rater2",
        ),
        (lambda header: header.pop("name"), "audformat header must hold the name of the database, got none"),
        (
            lambda header: header["tables"]["emotion"].update(split_id="train"),
            "split of table emotion must be among the splits, got train",
        ),
        (
            lambda header: header["tables"].update(more={"columns": {"emotion": {}}}),
            "db.more.csv: table must be there as .csv or .parquet, got neither",
        ),
    ],
)
def test_a_broken_header_is_refused(small, change, message):
    change_header(small, change)
    with pytest.raises(CorpusError, match=re.escape(message)):
        load_corpus("audformat", small)


@pytest.mark.parametrize("text", ["name: [", "- a\n- b\n", "name: \xff"])
def test_a_header_that_is_none_is_refused(small, text):
    (small / "db.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(CorpusError, match="db.yaml: audformat header must "):
        load_corpus("audformat", small)


def test_a_folder_without_a_database_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="db.yaml: audformat header must be a file, got nothing there"):
        load_corpus("audformat", tmp_path)
    with pytest.raises(CorpusError, match="nowhere: audformat database must be a folder, got nothing there"):
        load_corpus("audformat", tmp_path / "nowhere")


def test_a_broken_parquet_file_is_refused(small):
    (small / "db.emotion.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(CorpusError, match="db.emotion.parquet: table must be readable Parquet, got: "):
        load_corpus("audformat", small)

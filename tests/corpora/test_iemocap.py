"""IEMOCAP: who speaks, which utterances, and every oddity of its files, on trees made in its format."""

import re
from collections import defaultdict
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest

from serfast import load_corpus
from serfast.corpora import PROTOCOLS, check_leaks
from serfast.errors import CorpusError

SPEAKERS = [f"Ses0{session}{letter}" for session in range(1, 6) for letter in "FM"]
BY_SPEAKER = {  # of everybody in SPEAKERS
    "ang": (147, 82, 67, 70, 92, 148, 205, 122, 78, 92),
    "hap": (69, 66, 70, 47, 80, 55, 31, 34, 77, 66),
    "exc": (63, 80, 96, 114, 48, 103, 154, 84, 82, 217),
    "sad": (78, 116, 113, 84, 172, 133, 62, 81, 132, 113),
    "neu": (171, 213, 135, 227, 130, 190, 76, 182, 221, 163),
}
IMPROVISED = {"neu": 1099, "ang": 289, "sad": 608, "hap": 284, "exc": 663}
OTHERS = {"fru": 1849, "fea": 40, "sur": 107, "dis": 2, "oth": 3, "xxx": 2507}
MERGED = {"angry": ["angry"], "happy": ["happy", "excited"], "sad": ["sad"], "neutral": ["neutral"]}

HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]"
BLOCK = """
[{start:.4f} - {end:.4f}]\t{name}\t{label}\t[2.5000, 2.5000, 2.5000]
C-E2:\tNeutral;\t()
C-E3:\tAnger; Frustration;\t(curious [6.2901 - 8.2357])
C-{letter}1:\tSadness;\t()
A-E3:\tval 3; act 2; dom  2;\t()
A-{letter}1:\tval 3; act 2; dom   ;\t(mildly aggravated but staying polite, na\u00efve)
"""


def dialogue(name: str) -> str:
    return name.rpartition("_")[0]


def write_evaluations(root: Path, labels: dict[str, str], *, newline: str = "\n") -> Path:
    """The evaluation files of utterances, with all that readers stumble over beside them."""
    dialogues: dict[str, list[str]] = defaultdict(list)
    for name in labels:
        dialogues[dialogue(name)].append(name)
    for number, (place, names) in enumerate(dialogues.items()):
        folder = root / f"Session{place[4]}" / "dialog" / "EmoEvaluation"
        (folder / "Categorical").mkdir(parents=True, exist_ok=True)
        blocks = [
            BLOCK.format(start=1.5 * n, end=1.5 * n + 1.25, name=name, label=labels[name], letter="FM"[number % 2])
            for n, name in enumerate(names)
        ]
        text = (HEADER + "\n" + "\n".join(blocks) + "\n").replace("\n", newline)
        (folder / f"{place}.txt").write_bytes(text.encode("latin-1"))
        (folder / f"._{place}.txt").write_bytes(b"\x00\x05\x16\x07\n[ no summary\n")
        single_rater = "".join(f"[0.0000 - 1.0000]\t{name}\tfru\t[1.0000, 1.0000, 1.0000]\n" for name in names)
        (folder / "Categorical" / f"{place}_e2_cat.txt").write_text(single_rater)
    return root


def wav_of(root: Path, name: str) -> Path:
    return root / f"Session{name[4]}" / "sentences" / "wav" / dialogue(name) / f"{name}.wav"


def write(root: Path, labels: dict[str, str], *, newline: str = "\n") -> Path:
    """Evaluations and a recording for each of them."""
    for name in labels:
        path = wav_of(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        (path.parent / f"._{name}.wav").touch()
    return write_evaluations(root, labels, newline=newline)


def documented_labels() -> dict[str, str]:
    """As many utterances of each label, speaker and kind as IEMOCAP has, of either marker in turn."""
    wanted = [
        (label, speaker)
        for label, counts in BY_SPEAKER.items()
        for speaker, n in zip(SPEAKERS, counts, strict=True)
        for _ in range(n)
    ]
    wanted += [(label, speaker) for label, n in OTHERS.items() for speaker, _ in zip(cycle(SPEAKERS), range(n))]
    left = dict(IMPROVISED)
    dialogues = {True: cycle(["impro01", "impro05a"]), False: cycle(["script01_1", "script01_1b", "script03_2"])}
    markers = cycle("FMM")
    numbers: dict[str, int] = defaultdict(int)
    labels = {}
    for label, speaker in wanted:
        improvised = left.get(label, 0) > 0
        left[label] = left.get(label, 0) - 1
        turn = f"{speaker[:5]}{next(markers)}_{next(dialogues[improvised])}_{speaker[5]}"
        labels[f"{turn}{numbers[turn]:03d}"] = label
        numbers[turn] += 1
    return labels


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("IEMOCAP_full_release"), documented_labels())


def test_four_emotions_of_ten_speakers_by_default(documented):
    corpus = load_corpus("iemocap", documented)
    assert corpus.emotions == ("angry", "happy", "sad", "neutral")
    assert corpus.counts() == {"angry": 1103, "happy": 595, "sad": 1084, "neutral": 1708}
    assert len(corpus.utterances) == 4490
    assert corpus.counts_by_speaker() == {
        speaker: dict(zip(corpus.emotions, counts, strict=True))
        for speaker, *counts in zip(
            SPEAKERS, *(BY_SPEAKER[label] for label in ("ang", "hap", "sad", "neu")), strict=True
        )
    }
    assert corpus.genders == {speaker: {"F": "female", "M": "male"}[speaker[5]] for speaker in SPEAKERS}
    assert corpus.notes == (
        "left out 2507 utterances on whose emotion the raters do not agree (xxx)",
        "left out 3042 of 7532 utterances: excited 1041, frustrated 1849, fearful 40, surprised 107, disgust 2, "
        "other 3",
    )


def test_excited_is_merged_on_request(documented):
    corpus = load_corpus("iemocap", documented, emotions=MERGED)
    assert len(corpus.utterances) == 5531
    assert corpus.counts()["happy"] == 1636
    by_session = {session: sum(item.session == session for item in corpus.utterances) for session in corpus.sessions}
    assert by_session == {"1": 1085, "2": 1023, "3": 1151, "4": 1031, "5": 1241}
    assert "merged into happy: happy 595, excited 1041" in corpus.notes


def test_improvised_dialogues_on_request(documented):
    corpus = load_corpus("iemocap-improvised", documented)
    assert corpus.counts() == {"angry": 289, "happy": 284, "sad": 608, "neutral": 1099}
    assert len(corpus.utterances) == 2280
    assert all("_impro" in item.key for item in corpus.utterances)
    assert not any("documents" in note for note in corpus.notes)
    assert len(load_corpus("iemocap-improvised", documented, emotions=MERGED).utterances) == 2943


def test_every_label_can_be_asked_for(documented):
    corpus = load_corpus("iemocap", documented, emotions=["frustrated", "excited"])
    assert corpus.counts() == {"frustrated": 1849, "excited": 1041}


def test_the_paper_s_protocol_tests_each_speaker_against_four_other_sessions(documented):
    corpus = load_corpus("iemocap", documented)
    folds = PROTOCOLS["paper"](corpus)
    assert [fold.name for fold in folds] == [f"speaker_{speaker}" for speaker in SPEAKERS]
    for fold in folds:
        check_leaks(corpus, fold, [])
        assert len({corpus.utterances[index].session for index in fold.train}) == 4
        assert len({corpus.utterances[index].speaker for index in fold.train}) == 8


@pytest.mark.parametrize(
    ("name", "speaker", "session"),
    [
        ("Ses01F_impro01_F000", "Ses01F", "1"),
        ("Ses01F_impro01_M000", "Ses01M", "1"),
        ("Ses02M_script01_1_F012", "Ses02F", "2"),
        ("Ses03M_impro05a_F001", "Ses03F", "3"),
        ("Ses05M_script01_1b_F031", "Ses05F", "5"),
        ("Ses04F_script02_2_MX02", "Ses04M", "4"),
    ],
)
def test_the_last_part_says_who_speaks(tmp_path, name, speaker, session):
    (utterance,) = load_corpus("iemocap", write(tmp_path, {name: "ang"})).utterances
    assert (utterance.speaker, utterance.session) == (speaker, session)
    assert utterance.gender == ("female" if speaker.endswith("F") else "male")
    assert utterance.key == f"{name}.wav"
    assert utterance.path == wav_of(tmp_path, name)


SMALL = {"Ses01F_impro01_F000": "neu", "Ses01F_impro01_M000": "xxx", "Ses01F_script01_1_F000": "hap"}


def test_line_ends_of_windows_change_nothing(tmp_path):
    unix, windows = (write(tmp_path / name, SMALL, newline=end) for name, end in (("u", "\n"), ("w", "\r\n")))
    found = [[(item.key, item.emotion) for item in load_corpus("iemocap", root).utterances] for root in (unix, windows)]
    assert found[0] == found[1] == [("Ses01F_impro01_F000.wav", "neutral"), ("Ses01F_script01_1_F000.wav", "happy")]


def test_what_is_left_out_or_missing_is_noted(tmp_path):
    root = write(tmp_path, SMALL)
    wav_of(root, "Ses01F_impro01_F009").touch()
    notes = load_corpus("iemocap", root).notes
    assert notes[:2] == (
        "2 utterances where IEMOCAP documents 7532",
        "angry: 0 utterances where IEMOCAP documents 1103",
    )
    assert "no utterances of speakers Ses01M, Ses02F, Ses02M, Ses03F, Ses03M, and 4 more" in notes
    assert "left out 1 utterances on whose emotion the raters do not agree (xxx)" in notes
    assert "left out 1 recordings without an evaluation: Ses01F_impro01_F009" in notes


def copy_of(root: Path, name: str) -> Path:
    path = wav_of(root, name)
    copy = path.parents[1] / "again" / path.name
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    return copy


def test_copies_of_recordings_are_left_out_and_noted(tmp_path):
    root = write(tmp_path, SMALL)
    copy = copy_of(root, "Ses01F_impro01_F000")
    corpus = load_corpus("iemocap", root)
    assert len(corpus.utterances) == 2
    assert corpus.notes[0] == f"left out 1 copies of recordings: {copy}"


def test_different_recordings_of_one_utterance_are_refused(tmp_path):
    root = write(tmp_path, SMALL)
    copy = copy_of(root, "Ses01F_impro01_F000")
    copy.write_text("something else")
    with pytest.raises(CorpusError, match="again/.*: recording must be the same as .*, got other content"):
        load_corpus("iemocap", root)


def test_an_utterance_without_agreement_needs_no_recording(tmp_path):
    root = write(tmp_path, SMALL)
    wav_of(root, "Ses01F_impro01_M000").unlink()
    assert len(load_corpus("iemocap", root).utterances) == 2


def remove_recording(root: Path) -> None:
    wav_of(root, "Ses01F_impro01_F000").unlink()


def edit(old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt"
        text = path.read_bytes().decode("latin-1")
        assert old in text
        path.write_bytes(text.replace(old, new).encode("latin-1"))

    return change


def repeat_evaluation(root: Path) -> None:
    folder = root / "Session1" / "dialog" / "EmoEvaluation"
    (folder / "copy of Ses01F_impro01.txt").write_bytes((folder / "Ses01F_impro01.txt").read_bytes())


def remove_evaluations(root: Path) -> None:
    for path in (root / "Session1" / "dialog" / "EmoEvaluation").glob("*.txt"):
        path.unlink()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (
            remove_recording,
            "every evaluated utterance must have a recording in Session*/sentences/wav, got 1 without: "
            "Ses01F_impro01_F000.wav (",
        ),
        (edit("\tneu\t", "\thappy\t"), "Ses01F_impro01.txt, line 3: label must be one of ang hap sad neu"),
        (edit("\tneu\t", "\t"), "Ses01F_impro01.txt, line 3: summary must have the form [START - END] UTTERANCE LABEL"),
        (
            edit("\tSes01F_impro01_F000", "\tSes01F_impro01_X000"),
            "every evaluated utterance must have a recording in Session*/sentences/wav, got 1 without: "
            "Ses01F_impro01_X000.wav (",
        ),
        (repeat_evaluation, "utterance must be evaluated once, got Ses01F_impro01_F000 again after "),
        (remove_evaluations, "Session1: session must hold evaluations dialog/EmoEvaluation/*.txt, got none"),
    ],
)
def test_a_broken_tree_is_refused(tmp_path, harm, message):
    root = write(tmp_path, SMALL)
    harm(root)
    with pytest.raises(CorpusError, match=re.escape(message)):
        load_corpus("iemocap", root)


def test_a_wrong_name_is_refused(tmp_path):
    root = write(tmp_path, {"Ses06F_impro01_F000": "neu"})
    (root / "Session6").rename(root / "Session5")
    with pytest.raises(CorpusError, match="line 3: utterance must be named like Ses01F_impro01_F000, got Ses06F_impro"):
        load_corpus("iemocap", root)


def test_a_folder_without_sessions_is_refused(tmp_path):
    with pytest.raises(CorpusError, match="IEMOCAP must hold the folders Session1 to Session5, got none of them"):
        load_corpus("iemocap", tmp_path)
    with pytest.raises(CorpusError, match="nowhere: IEMOCAP must be a folder, got nothing there"):
        load_corpus("iemocap", tmp_path / "nowhere")

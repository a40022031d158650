"""IEMOCAP: ten actors in five sessions of two, improvised and scripted dialogues cut into 10,039 utterances.

``Session1/dialog/EmoEvaluation/Ses01F_impro01.txt`` and its like hold a summary line for each utterance::

    [6.2901 - 8.2357]<TAB>Ses01F_impro01_F000<TAB>neu<TAB>[2.5000, 2.5000, 2.5000]

and the raters' own lines below it. The letter behind the session says who wore the markers of motion capture; who
speaks is the letter of the last part, here ``F`` of ``F000``: the wrong one is another person in half of the corpus.
``xxx`` means that the raters did not agree. Source: Busso et al., Language Resources and Evaluation 42 (2008); the
choice of four emotions is that of Huang and Narayanan (2016).
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serfast.corpora.corpus import Corpus, Utterance
from serfast.corpora.listing import listed
from serfast.corpora.recordings import check_folder, drop_copies, find_differences, list_recordings
from serfast.errors import CorpusError

__all__ = ["CLASSES", "load", "load_improvised"]

CLASSES = ("angry", "happy", "sad", "neutral")
"""The emotions of the paper, 4490 utterances. With ``excited`` merged into ``happy`` they are 5531."""

_SUMMARY = re.compile(r"\[[\d.]+ - [\d.]+\]\s+(?P<name>\w+)\s+(?P<label>\w+)\s+\[[^\]]*\]", re.ASCII)
_NAME = re.compile(r"Ses0(?P<session>[1-5])[FM]_(?:impro|script)\w*_(?P<speaker>[FM])[A-Z]*\d+", re.ASCII)
_EMOTIONS = {
    "ang": "angry",
    "hap": "happy",
    "sad": "sad",
    "neu": "neutral",
    "exc": "excited",
    "fru": "frustrated",
    "fea": "fearful",
    "sur": "surprised",
    "dis": "disgust",
    "oth": "other",
}
_NO_AGREEMENT = "xxx"
_IMPROVISED = "_impro"  # in the name of a dialogue and of its utterances
_SPEAKERS = tuple(f"Ses0{session}{letter}" for session in range(1, 6) for letter in "FM")
_DOCUMENTED_COUNTS = {
    "angry": 1103,
    "happy": 595,
    "sad": 1084,
    "neutral": 1708,
    "excited": 1041,
    "frustrated": 1849,
    "fearful": 40,
    "surprised": 107,
    "disgust": 2,
    "other": 3,
}
_DOCUMENTED_IMPROVISED = {"angry": 289, "happy": 284, "sad": 608, "neutral": 1099, "excited": 663}


@dataclass(frozen=True)
class _Evaluation:
    """A summary line: what the raters found in an utterance."""

    place: str
    name: str
    label: str


def load(root: str | Path) -> Corpus:
    """Load every utterance of IEMOCAP on whose emotion the raters agree.

    Args:
        root: the folder that holds ``Session1`` to ``Session5``.

    Utterances without agreement, recordings without an evaluation, copies of recordings, and numbers that are not the
    documented ones go into the notes.

    Raises:
        CorpusError: if there are no sessions or evaluations, a summary line or a name is not of the documented form, an
            utterance is evaluated twice, or a recording is missing or differs from another of its name.
    """
    return _load(root, "iemocap", _DOCUMENTED_COUNTS, improvised_only=False)


def load_improvised(root: str | Path) -> Corpus:
    """Load the improvised dialogues only. Arguments, notes and errors are those of ``load``."""
    return _load(root, "iemocap-improvised", _DOCUMENTED_IMPROVISED, improvised_only=True)


def _load(root: str | Path, corpus: str, counts: dict[str, int], *, improvised_only: bool) -> Corpus:
    root = check_folder(root, corpus="IEMOCAP")
    sessions = [path for path in sorted(root.glob("Session[1-5]")) if path.is_dir()]
    if not sessions:
        raise CorpusError(f"{root}: IEMOCAP must hold the folders Session1 to Session5, got none of them")
    evaluations = _evaluations(sessions)
    recordings: dict[str, list[Path]] = defaultdict(list)
    for session in sessions:
        for path in list_recordings(session / "sentences" / "wav"):
            recordings[path.stem].append(path)
    if improvised_only:
        evaluations = {name: evaluation for name, evaluation in evaluations.items() if _IMPROVISED in name}
        recordings = {name: paths for name, paths in recordings.items() if _IMPROVISED in name}
    agreed = [evaluation for evaluation in evaluations.values() if evaluation.label != _NO_AGREEMENT]
    _check_recorded(root, agreed, recordings)
    utterances, notes = drop_copies(_utterance(item, path) for item in agreed for path in recordings[item.name])
    notes += find_differences(utterances, corpus="IEMOCAP", counts=counts, speakers=_SPEAKERS)
    if len(agreed) < len(evaluations):
        n_without = len(evaluations) - len(agreed)
        notes.append(f"left out {n_without} utterances on whose emotion the raters do not agree ({_NO_AGREEMENT})")
    unknown = sorted(recordings.keys() - evaluations.keys())
    if unknown:
        notes.append(f"left out {len(unknown)} recordings without an evaluation: {listed(unknown)}")
    return Corpus(corpus, tuple(utterances), tuple(_EMOTIONS.values()), tuple(notes))


def _evaluations(sessions: list[Path]) -> dict[str, _Evaluation]:
    """The evaluation of every utterance, in the order of sessions, dialogues and lines."""
    found: dict[str, _Evaluation] = {}
    for session in sessions:
        folder = session / "dialog" / "EmoEvaluation"
        # Folders in it hold what single raters said.
        paths = [path for path in sorted(folder.glob("*.txt")) if path.is_file() and not path.name.startswith(".")]
        if not paths:
            raise CorpusError(f"{session}: session must hold evaluations dialog/EmoEvaluation/*.txt, got none")
        for path in paths:
            for evaluation in _read_evaluations(path):
                known = found.setdefault(evaluation.name, evaluation)
                if known is not evaluation:
                    raise CorpusError(
                        f"{evaluation.place}: utterance must be evaluated once, got {evaluation.name} again after "
                        f"{known.place}"
                    )
    return found


def _read_evaluations(path: Path) -> list[_Evaluation]:
    evaluations = []
    for number, line in enumerate(path.read_text(encoding="latin-1").split("\n"), start=1):
        if not line.startswith("["):
            continue
        place = f"{path}, line {number}"
        summary = _SUMMARY.fullmatch(line.rstrip())
        if summary is None:
            raise CorpusError(
                f"{place}: summary must have the form [START - END] UTTERANCE LABEL [V, A, D], got {line!r}"
            )
        if summary["label"] not in (*_EMOTIONS, _NO_AGREEMENT):
            known = " ".join((*_EMOTIONS, _NO_AGREEMENT))
            raise CorpusError(f"{place}: label must be one of {known}, got {summary['label']}")
        evaluations.append(_Evaluation(place, summary["name"], summary["label"]))
    return evaluations


def _check_recorded(root: Path, evaluations: list[_Evaluation], recordings: Mapping[str, list[Path]]) -> None:
    missing = [f"{item.name}.wav ({item.place})" for item in evaluations if item.name not in recordings]
    if missing:
        raise CorpusError(
            f"{root}: every evaluated utterance must have a recording in Session*/sentences/wav, "
            f"got {len(missing)} without: {listed(missing)}"
        )


def _utterance(evaluation: _Evaluation, path: Path) -> Utterance:
    name = _NAME.fullmatch(evaluation.name)
    if name is None:
        raise CorpusError(
            f"{evaluation.place}: utterance must be named like Ses01F_impro01_F000, got {evaluation.name}"
        )
    return Utterance(
        key=f"{evaluation.name}.wav",
        path=path,
        emotion=_EMOTIONS[evaluation.label],
        speaker=f"Ses0{name['session']}{name['speaker']}",
        gender="female" if name["speaker"] == "F" else "male",
        session=name["session"],
    )

"""Labelled recordings: a corpus and its utterances, the choice of emotions, and recordings that occur twice."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from serfast.errors import CorpusError

__all__ = [
    "GENDERS",
    "SPLITS",
    "Corpus",
    "Utterance",
    "content_digest",
    "find_duplicates",
    "group_duplicates",
    "select_emotions",
]

GENDERS = ("female", "male")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Utterance:
    """One labelled recording, or one labelled segment of a recording.

    Attributes:
        key: unique and stable: the recording's name as the corpus documents it, wherever the file lies; in a manifest
            the file relative to it, in POSIX form, with ``#start-end`` for a segment.
        path: the file to read.
        emotion: its label.
        speaker: who spoke; None where the corpus does not say.
        gender: ``female`` or ``male``; None where the corpus does not say.
        session: the recording session; None where the corpus has none.
        start_s: where the segment starts.
        end_s: where the segment ends; None for the end of the recording.
        split: ``train``, ``validation`` or ``test`` where the corpus prescribes it.
    """

    key: str
    path: Path
    emotion: str
    speaker: str | None
    gender: str | None = None
    session: str | None = None
    start_s: float = 0.0
    end_s: float | None = None
    split: str | None = None


@dataclass(frozen=True)
class Corpus:
    """Utterances and the emotions they are labelled with.

    Attributes:
        name: what reports call the corpus.
        utterances: in a fixed order; folds are indices into it.
        emotions: the classes, in the order of the models' outputs.
        notes: what a reader of results should know: what was left out, merged, or differs from the documentation.

    Raises:
        ValueError: if a key or an emotion occurs twice, an utterance's emotion is not among ``emotions``, or a speaker
            has two genders.
    """

    name: str
    utterances: tuple[Utterance, ...]
    emotions: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.emotions)) < len(self.emotions):
            raise ValueError(f"emotions must be distinct, got {', '.join(self.emotions)}")
        repeated = _repeated(utterance.key for utterance in self.utterances)
        if repeated:
            raise ValueError(f"utterances must have distinct keys, got {repeated[0]} more than once")
        genders: dict[str, str] = {}
        for utterance in self.utterances:
            if utterance.emotion not in self.emotions:
                raise ValueError(
                    f"emotions must hold the emotion of every utterance, got {utterance.emotion} at {utterance.key}"
                )
            if utterance.speaker is not None and utterance.gender is not None:
                known = genders.setdefault(utterance.speaker, utterance.gender)
                if known != utterance.gender:
                    raise ValueError(f"a speaker must have one gender, got {utterance.speaker} both female and male")

    @property
    def speakers(self) -> tuple[str, ...]:
        """Every speaker, sorted."""
        return tuple(sorted({item.speaker for item in self.utterances if item.speaker is not None}))

    @property
    def sessions(self) -> tuple[str, ...]:
        """Every session, sorted."""
        return tuple(sorted({item.session for item in self.utterances if item.session is not None}))

    @property
    def genders(self) -> dict[str, str | None]:
        """The gender of every speaker, None where the corpus does not say."""
        genders: dict[str, str | None] = dict.fromkeys(self.speakers)
        for item in self.utterances:
            if item.speaker is not None and item.gender is not None:
                genders[item.speaker] = item.gender
        return genders

    def labels(self) -> list[int]:
        """The emotion of every utterance as an index into ``emotions``."""
        index = {emotion: position for position, emotion in enumerate(self.emotions)}
        return [index[utterance.emotion] for utterance in self.utterances]

    def counts(self) -> dict[str, int]:
        """How many utterances each emotion has."""
        found = Counter(utterance.emotion for utterance in self.utterances)
        return {emotion: found[emotion] for emotion in self.emotions}

    def counts_by_speaker(self) -> dict[str, dict[str, int]]:
        """How many utterances each speaker has of each emotion."""
        found = Counter((utterance.speaker, utterance.emotion) for utterance in self.utterances)
        return {speaker: {emotion: found[speaker, emotion] for emotion in self.emotions} for speaker in self.speakers}


def select_emotions(corpus: Corpus, emotions: Sequence[str] | Mapping[str, Sequence[str]]) -> Corpus:
    """Keep some emotions, or merge several into one; what is left out is counted in the notes.

    Args:
        corpus: the corpus to choose from.
        emotions: the names to keep, in the order of the models' outputs; or a mapping from each new name to the names
            it stands for, such as ``{"happy": ["happiness", "excited"], "sad": ["sadness"]}``.

    Raises:
        ValueError: if fewer than two emotions are asked for, one is asked for twice, or one is not in the corpus.
    """
    merged = emotions if isinstance(emotions, Mapping) else [(name, [name]) for name in emotions]
    sources = {new: tuple(olds) for new, olds in dict(merged).items()}
    if len(sources) < 2:
        raise ValueError(f"emotions must name at least two, got {', '.join(sources) or 'none'}")
    asked = [old for olds in sources.values() for old in olds] if isinstance(emotions, Mapping) else list(emotions)
    for old in asked:
        if old not in corpus.emotions:
            raise ValueError(f"emotions must be among {', '.join(corpus.emotions)}, got {old}")
    if repeated := _repeated(asked):
        raise ValueError(f"emotions must name each label once, got {repeated[0]} more than once")
    new_name = {old: new for new, olds in sources.items() for old in olds}
    kept = tuple(
        replace(utterance, emotion=new_name[utterance.emotion])
        for utterance in corpus.utterances
        if utterance.emotion in new_name
    )
    notes = [*corpus.notes, *_selection_notes(corpus, sources)]
    return replace(corpus, utterances=kept, emotions=tuple(sources), notes=tuple(notes))


def _selection_notes(corpus: Corpus, sources: Mapping[str, tuple[str, ...]]) -> list[str]:
    counts = corpus.counts()
    notes = [
        f"merged into {new}: " + ", ".join(f"{old} {counts[old]}" for old in olds)
        for new, olds in sources.items()
        if olds != (new,)
    ]
    used = {old for olds in sources.values() for old in olds}
    left_out = [emotion for emotion in corpus.emotions if emotion not in used]
    if left_out:
        n_left_out = sum(counts[emotion] for emotion in left_out)
        listed = ", ".join(f"{emotion} {counts[emotion]}" for emotion in left_out)
        notes.append(f"left out {n_left_out} of {len(corpus.utterances)} utterances: {listed}")
    return notes


def find_duplicates(utterances: Sequence[Utterance]) -> list[tuple[Utterance, ...]]:
    """Groups of utterances that are the same recording, by ``group_duplicates``; only files of equal size are read.

    Raises:
        CorpusError: if a file is missing.
    """
    paths = {utterance.path for utterance in utterances}
    for path in paths:
        if not path.is_file():
            raise CorpusError(f"{path}: recording must be a file, got nothing there")
    sizes = {path: path.stat().st_size for path in paths}
    n_of_size = Counter(sizes.values())
    contents = {
        path: content_digest(path.read_bytes()) if n_of_size[size] > 1 else str(path) for path, size in sizes.items()
    }
    return group_duplicates(utterances, [contents[utterance.path] for utterance in utterances])


def group_duplicates(utterances: Sequence[Utterance], contents: Sequence[str]) -> list[tuple[Utterance, ...]]:
    """Groups of utterances that are the same recording: equal content, and much the same stretch of it.

    Two segments are the same where they share at least half of the shorter one; turns that merely touch or overlap a
    little, as in a dialogue, are not.

    Args:
        utterances: the utterances of a corpus.
        contents: ``content_digest`` of the file of each of them.
    """
    same_content: dict[str, list[Utterance]] = defaultdict(list)
    for utterance, content in zip(utterances, contents, strict=True):
        same_content[content].append(utterance)
    return [group for members in same_content.values() for group in _same_stretch(members)]


def content_digest(content: bytes) -> str:
    """The name of a recording's bytes, which stores and splits hold and duplicates share: SHA-256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _same_stretch(utterances: list[Utterance]) -> list[tuple[Utterance, ...]]:
    """Groups of two and more utterances of one content, joined where they share half of the shorter one."""
    ordered = sorted(utterances, key=lambda item: (item.start_s, item.key))
    group_of = list(range(len(ordered)))
    open_ones: list[int] = []
    for index, utterance in enumerate(ordered):
        open_ones = [other for other in open_ones if _end_s(ordered[other]) > utterance.start_s]
        for other in open_ones:
            shared_s = min(_end_s(ordered[other]), _end_s(utterance)) - utterance.start_s
            shorter_s = min(_end_s(item) - item.start_s for item in (ordered[other], utterance))
            if shared_s >= 0.5 * shorter_s and group_of[other] != group_of[index]:
                old, new = group_of[index], group_of[other]
                group_of = [new if group == old else group for group in group_of]
        open_ones.append(index)
    members: dict[int, list[Utterance]] = defaultdict(list)
    for group, utterance in zip(group_of, ordered, strict=True):
        members[group].append(utterance)
    return [tuple(group) for group in members.values() if len(group) > 1]


def _end_s(utterance: Utterance) -> float:
    return math.inf if utterance.end_s is None else utterance.end_s


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]

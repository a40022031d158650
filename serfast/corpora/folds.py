"""Protocols: how a corpus is divided into folds that share no speaker and no recording between their parts."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from serfast.corpora.corpus import SPLITS, Corpus, Utterance
from serfast.corpora.listing import listed

__all__ = [
    "PROTOCOLS",
    "Fold",
    "check_leaks",
    "fixed",
    "leave_one_session_out",
    "leave_one_speaker_out",
    "paper",
    "single",
    "speaker_k_fold",
]


@dataclass(frozen=True)
class Fold:
    """One division of a corpus, as indices into its utterances.

    Attributes:
        name: unique among the folds of a protocol.
        train: what the model and the normaliser are fitted on.
        validation: what the model is selected on.
        test: what is reported; empty for a training run without an evaluation.
    """

    name: str
    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def leave_one_speaker_out(corpus: Corpus) -> tuple[Fold, ...]:
    """Test each speaker once, validate on the next one in sorted order (the first after the last), train on the rest.

    Raises:
        ValueError: if an utterance has no speaker, or there are fewer than 3.
    """
    speakers = _speakers(corpus, "leave_one_speaker_out", at_least=3)
    following = [*speakers[1:], speakers[0]]
    return tuple(
        _fold(corpus, f"speaker_{test}", validation=[validation], test=[test])
        for test, validation in zip(speakers, following, strict=True)
    )


def leave_one_session_out(corpus: Corpus) -> tuple[Fold, ...]:
    """Test each session once, validate on the next one in sorted order (the first after the last), train on the rest.

    Raises:
        ValueError: if an utterance has no speaker or session, a speaker is in two sessions, or there are fewer than 3.
    """
    sessions = _sessions(corpus, "leave_one_session_out")
    if len(sessions) < 3:
        raise ValueError(f"corpus must have at least 3 sessions for leave_one_session_out, got {len(sessions)}")
    names = sorted(sessions)
    following = [*names[1:], names[0]]
    return tuple(
        _fold(corpus, f"session_{test}", validation=sessions[validation], test=sessions[test])
        for test, validation in zip(names, following, strict=True)
    )


def speaker_k_fold(corpus: Corpus, *, n_folds: int) -> tuple[Fold, ...]:
    """Test each of ``n_folds`` groups of speakers once, validate on the next one (the first after the last).

    Women are dealt out first, then men, then speakers whose gender is not known, and of each those with the most
    utterances first; every one joins the group that has the fewest utterances so far. Groups then differ by no more
    than the utterances of one speaker. Nothing is random.

    Args:
        corpus: what to divide.
        n_folds: how many groups, at least 3. ``PROTOCOLS`` has 5, 6 (as is customary for RAVDESS) and 10.

    Raises:
        ValueError: if ``n_folds`` is less than 3, an utterance has no speaker, or there are fewer speakers than groups.
    """
    if n_folds < 3:
        raise ValueError(f"n_folds must be at least 3, got {n_folds}")
    speakers = _speakers(corpus, f"speaker_{n_folds}_fold", at_least=n_folds)
    n_utterances = Counter(utterance.speaker for utterance in corpus.utterances)
    genders = corpus.genders
    dealt = sorted(speakers, key=lambda name: (genders[name] or "unknown", -n_utterances[name], name))
    groups: list[list[str]] = [[] for _ in range(n_folds)]
    for speaker in dealt:
        min(groups, key=lambda group: sum(n_utterances[name] for name in group)).append(speaker)
    following = [*groups[1:], groups[0]]
    return tuple(
        _fold(corpus, f"group_{number:02d}", validation=validation, test=test)
        for number, (test, validation) in enumerate(zip(groups, following, strict=True), start=1)
    )


def paper(corpus: Corpus) -> tuple[Fold, ...]:
    """Two folds for each session of speakers A and B: test A, validate B, and the reverse; train on other sessions.

    A corpus without sessions is divided into pseudo-sessions of one woman and one man, each in sorted order.

    Raises:
        ValueError: if an utterance has no speaker; if a session has not exactly two speakers, or a speaker is in two
            sessions; without sessions, if a gender is not known or there are not as many women as men; if there are
            fewer than 2 sessions.

    Source: Huang and Narayanan (2016), section 4.
    """
    has_sessions = any(utterance.session is not None for utterance in corpus.utterances)
    sessions = _sessions(corpus, "paper") if has_sessions else _pseudo_sessions(corpus)
    for name, speakers in sessions.items():
        if len(speakers) != 2:
            raise ValueError(f"session {name} must have 2 speakers for paper, got {len(speakers)}: {listed(speakers)}")
    if len(sessions) < 2:
        raise ValueError(f"corpus must have at least 2 sessions for paper, got {len(sessions)}")
    folds = []
    for name in sorted(sessions):
        first, second = sessions[name]
        folds.append(_fold(corpus, f"speaker_{first}", validation=[second], test=[first]))
        folds.append(_fold(corpus, f"speaker_{second}", validation=[first], test=[second]))
    return tuple(folds)


def single(corpus: Corpus) -> tuple[Fold, ...]:
    """One fold for one training run: every fifth speaker in sorted order (at least one) validates, nobody tests.

    Raises:
        ValueError: if an utterance has no speaker, or there are fewer than 2.
    """
    speakers = _speakers(corpus, "single", at_least=2)
    return (_fold(corpus, "single", validation=speakers[4::5] or speakers[-1:], test=[]),)


def fixed(corpus: Corpus) -> tuple[Fold, ...]:
    """The one fold that the corpus prescribes by the ``split`` of its utterances.

    Raises:
        ValueError: if an utterance has no split.
    """
    without = [utterance.key for utterance in corpus.utterances if utterance.split is None]
    if without:
        raise ValueError(f"every utterance must have a split for fixed, got {len(without)} without: {listed(without)}")
    parts = {
        split: tuple(index for index, item in enumerate(corpus.utterances) if item.split == split) for split in SPLITS
    }
    return (Fold("fixed", **parts),)


PROTOCOLS: dict[str, Callable[[Corpus], tuple[Fold, ...]]] = {
    "fixed": fixed,
    "leave_one_session_out": leave_one_session_out,
    "leave_one_speaker_out": leave_one_speaker_out,
    "paper": paper,
    "single": single,
    **{f"speaker_{n_folds}_fold": partial(speaker_k_fold, n_folds=n_folds) for n_folds in (5, 6, 10)},
}


def check_leaks(corpus: Corpus, fold: Fold, duplicates: Sequence[tuple[Utterance, ...]]) -> None:
    """Refuse a fold whose parts are not separate.

    Args:
        corpus: what the indices of ``fold`` point into.
        fold: the fold to check.
        duplicates: groups of the same recording, by ``group_duplicates`` or ``find_duplicates``.

    Raises:
        ValueError: if the train or validation part is empty; if an index is outside the corpus; if an index, a speaker
            or a recording is in two parts.
    """
    part_of = _part_of(corpus, fold)
    keys_of: dict[str, list[str]] = defaultdict(list)
    part_of_key = {corpus.utterances[index].key: part for index, part in part_of.items()}
    for index in part_of:
        utterance = corpus.utterances[index]
        if utterance.speaker is not None:
            keys_of[f"speaker {utterance.speaker}"].append(utterance.key)
    for group in duplicates:
        keys = [utterance.key for utterance in group if utterance.key in part_of_key]
        keys_of[f"recording {' = '.join(keys)}"].extend(keys)
    leaks = []
    for name, keys in keys_of.items():
        found = [part for part in SPLITS if any(part_of_key[key] == part for key in keys)]
        if len(found) > 1:
            leaks.append(f"{name} in {' and '.join(found)}")
    if leaks:
        raise ValueError(f"fold {fold.name} must not share speakers or recordings, got {listed(leaks, '; ')}")


def _part_of(corpus: Corpus, fold: Fold) -> dict[int, str]:
    """The part of every index of a fold, which must be in one part and in the corpus."""
    parts = {"train": fold.train, "validation": fold.validation, "test": fold.test}
    n_utterances = len(corpus.utterances)
    part_of: dict[int, str] = {}
    for name, indices in parts.items():
        if name != "test" and not indices:
            raise ValueError(f"fold {fold.name} must have utterances in its {name} part, got none")
        for index in indices:
            if not 0 <= index < n_utterances:
                raise ValueError(f"fold {fold.name} must hold indices below {n_utterances}, got {index} in {name}")
            if index in part_of:
                raise ValueError(
                    f"fold {fold.name} must hold an utterance once, got {corpus.utterances[index].key} in "
                    f"{part_of[index]} and {name}"
                )
            part_of[index] = name
    return part_of


def _fold(corpus: Corpus, name: str, *, validation: Sequence[str], test: Sequence[str]) -> Fold:
    """The fold with these speakers in its validation and test parts and all others in its train part."""
    parts: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for index, utterance in enumerate(corpus.utterances):
        part = "test" if utterance.speaker in test else "validation" if utterance.speaker in validation else "train"
        parts[part].append(index)
    return Fold(name, **{part: tuple(indices) for part, indices in parts.items()})


def _speakers(corpus: Corpus, protocol: str, *, at_least: int) -> tuple[str, ...]:
    without = [utterance.key for utterance in corpus.utterances if utterance.speaker is None]
    if without:
        raise ValueError(
            f"every utterance must have a speaker for {protocol}, got {len(without)} without: {listed(without)}"
        )
    if len(corpus.speakers) < at_least:
        raise ValueError(f"corpus must have at least {at_least} speakers for {protocol}, got {len(corpus.speakers)}")
    return corpus.speakers


def _sessions(corpus: Corpus, protocol: str) -> dict[str, list[str]]:
    """The sorted speakers of every session; no speaker is in two."""
    _speakers(corpus, protocol, at_least=1)
    without = [utterance.key for utterance in corpus.utterances if utterance.session is None]
    if without:
        raise ValueError(
            f"every utterance must have a session for {protocol}, got {len(without)} without: {listed(without)}"
        )
    session_of: dict[str, str] = {}
    for utterance in corpus.utterances:
        speaker, session = str(utterance.speaker), str(utterance.session)
        if session_of.setdefault(speaker, session) != session:
            raise ValueError(
                f"a speaker must be in one session for {protocol}, got {speaker} in {session_of[speaker]} and {session}"
            )
    sessions: dict[str, list[str]] = defaultdict(list)
    for speaker in sorted(session_of):
        sessions[session_of[speaker]].append(speaker)
    return dict(sessions)


def _pseudo_sessions(corpus: Corpus) -> dict[str, list[str]]:
    """One woman and one man each, in sorted order."""
    _speakers(corpus, "paper", at_least=1)
    unknown = [speaker for speaker, gender in corpus.genders.items() if gender is None]
    if unknown:
        raise ValueError(
            f"every speaker must have a gender for paper in a corpus without sessions, got none for {listed(unknown)}"
        )
    women, men = (
        [speaker for speaker in corpus.speakers if corpus.genders[speaker] == gender] for gender in ("female", "male")
    )
    if len(women) != len(men):
        raise ValueError(
            f"corpus must have as many women as men for paper without sessions, got {len(women)} and {len(men)}"
        )
    return {f"{number:04d}": list(pair) for number, pair in enumerate(zip(women, men, strict=True))}

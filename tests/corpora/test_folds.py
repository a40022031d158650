"""Protocols: every one tests what it says, and no speaker or recording is in two parts."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serfast.corpora import PROTOCOLS, Corpus, Fold, Utterance, check_leaks
from serfast.corpora.folds import (
    fixed,
    leave_one_session_out,
    leave_one_speaker_out,
    paper,
    single,
    speaker_k_fold,
)


def make_corpus(*rows: tuple[str | None, str | None, str | None], split: tuple[str | None, ...] = ()) -> Corpus:
    """One utterance per row of speaker, gender and session."""
    splits = split or (None,) * len(rows)
    utterances = tuple(
        Utterance(f"{index}", Path(f"{index}.wav"), "sad", speaker, gender, session, split=part)
        for index, ((speaker, gender, session), part) in enumerate(zip(rows, splits, strict=True))
    )
    return Corpus("made", utterances, ("sad",))


def speakers(corpus: Corpus, indices: tuple[int, ...]) -> set[str | None]:
    return {corpus.utterances[index].speaker for index in indices}


@st.composite
def corpora(draw: st.DrawFn) -> Corpus:
    """Sessions of one woman and one man, at least three, with any number of utterances each in any order."""
    n_sessions = draw(st.integers(3, 8))
    people = [
        (f"{gender[0]}{number:02d}", gender, f"s{number:02d}")
        for number in range(n_sessions)
        for gender in ("female", "male")
    ]
    rows = people + draw(st.lists(st.sampled_from(people), max_size=40))
    rows = draw(st.permutations(rows))
    if draw(st.booleans()):
        return make_corpus(*rows)
    return make_corpus(*((speaker, gender, None) for speaker, gender, _ in rows))


@settings(deadline=None, max_examples=60)
@given(corpora())
def test_no_speaker_is_in_two_parts_of_any_fold(corpus):
    names = ["leave_one_speaker_out", "paper", "single", "speaker_5_fold"]
    names += ["leave_one_session_out"] * bool(corpus.sessions)
    for name in names:
        folds = PROTOCOLS[name](corpus)
        assert len({fold.name for fold in folds}) == len(folds)
        for fold in folds:
            check_leaks(corpus, fold, [])
            assert sorted(fold.train + fold.validation + fold.test) == list(range(len(corpus.utterances)))
            parts = [speakers(corpus, part) for part in (fold.train, fold.validation, fold.test)]
            assert sum(len(part) for part in parts) == len(corpus.speakers)


@settings(deadline=None, max_examples=60)
@given(corpora())
def test_every_utterance_is_tested_exactly_once(corpus):
    for name in ["leave_one_speaker_out", "paper", "speaker_5_fold"] + ["leave_one_session_out"] * bool(
        corpus.sessions
    ):
        tested = [index for fold in PROTOCOLS[name](corpus) for index in fold.test]
        assert sorted(tested) == list(range(len(corpus.utterances)))


def three_speakers() -> Corpus:
    return make_corpus(("b", None, None), ("a", None, None), ("c", None, None), ("a", None, None))


def test_leave_one_speaker_out_validates_on_the_next_speaker():
    assert leave_one_speaker_out(three_speakers()) == (
        Fold("speaker_a", train=(2,), validation=(0,), test=(1, 3)),
        Fold("speaker_b", train=(1, 3), validation=(2,), test=(0,)),
        Fold("speaker_c", train=(0,), validation=(1, 3), test=(2,)),
    )


def test_leave_one_speaker_out_needs_three_speakers():
    with pytest.raises(ValueError, match="corpus must have at least 3 speakers for leave_one_speaker_out, got 2"):
        leave_one_speaker_out(make_corpus(("a", None, None), ("b", None, None)))


def sessions_of_two(*, n_sessions: int = 3) -> Corpus:
    return make_corpus(*((f"{letter}{k}", None, f"s{k}") for k in range(n_sessions) for letter in "AB"))


def test_paper_tests_and_validates_the_two_speakers_of_a_session():
    folds = paper(sessions_of_two())
    assert [fold.name for fold in folds] == [f"speaker_{letter}{k}" for k in range(3) for letter in "AB"]
    assert folds[0] == Fold("speaker_A0", train=(2, 3, 4, 5), validation=(1,), test=(0,))
    assert folds[1] == Fold("speaker_B0", train=(2, 3, 4, 5), validation=(0,), test=(1,))


def test_paper_pairs_women_and_men_where_there_are_no_sessions():
    corpus = make_corpus(("z", "female", None), ("a", "male", None), ("y", "female", None), ("b", "male", None))
    folds = paper(corpus)
    assert [fold.name for fold in folds] == ["speaker_y", "speaker_a", "speaker_z", "speaker_b"]
    assert folds[0] == Fold("speaker_y", train=(0, 3), validation=(1,), test=(2,))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [("a", None, None), ("b", "male", None)],
            "every speaker must have a gender for paper in a corpus without sessions, got none for a",
        ),
        (
            [("a", "female", None), ("b", "male", None), ("c", "male", None)],
            "corpus must have as many women as men for paper without sessions, got 1 and 2",
        ),
        ([("a", "female", None), ("b", "male", None)], "corpus must have at least 2 sessions for paper, got 1"),
        ([("a", None, "1"), ("b", None, "1")], "corpus must have at least 2 sessions for paper, got 1"),
        (
            [("a", None, "1"), ("b", None, "1"), ("c", None, "2")],
            "session 2 must have 2 speakers for paper, got 1: c",
        ),
        (
            [("a", None, "1"), ("b", None, "1"), ("a", None, "2"), ("c", None, "2")],
            "a speaker must be in one session for paper, got a in 1 and 2",
        ),
        (
            [("a", None, "1"), ("b", None, None)],
            "every utterance must have a session for paper, got 1 without: 1",
        ),
    ],
)
def test_paper_refuses_what_it_cannot_pair(rows, message):
    with pytest.raises(ValueError, match=message):
        paper(make_corpus(*rows))


def test_leave_one_session_out_validates_on_the_next_session():
    folds = leave_one_session_out(sessions_of_two())
    assert folds == (
        Fold("session_s0", train=(4, 5), validation=(2, 3), test=(0, 1)),
        Fold("session_s1", train=(0, 1), validation=(4, 5), test=(2, 3)),
        Fold("session_s2", train=(2, 3), validation=(0, 1), test=(4, 5)),
    )


def test_leave_one_session_out_refuses_too_few_and_missing_sessions():
    with pytest.raises(ValueError, match="corpus must have at least 3 sessions for leave_one_session_out, got 2"):
        leave_one_session_out(sessions_of_two(n_sessions=2))
    with pytest.raises(ValueError, match="must have a session for leave_one_session_out, got 4 without: 0, 1, 2, 3"):
        leave_one_session_out(three_speakers())


def speakers_with(**n_utterances: int) -> Corpus:
    """Men whose names end with m, women with w, others of unknown gender, and how many utterances they have."""
    genders = {"m": "male", "w": "female"}
    return make_corpus(*((name, genders.get(name[-1]), None) for name, n in n_utterances.items() for _ in range(n)))


def test_k_fold_validates_on_the_next_group():
    corpus = speakers_with(a=3, b=2, c=2, d=1)
    groups = [{"a"}, {"b", "d"}, {"c"}]
    folds = speaker_k_fold(corpus, n_folds=3)
    assert [fold.name for fold in folds] == ["group_01", "group_02", "group_03"]
    assert [speakers(corpus, fold.test) for fold in folds] == groups
    assert [speakers(corpus, fold.validation) for fold in folds] == [*groups[1:], groups[0]]
    assert [speakers(corpus, fold.train) for fold in folds] == [groups[2], groups[0], groups[1]]


def test_groups_mix_women_and_men():
    # Dealt in the order of names, every second one would give groups of one gender.
    corpus = speakers_with(s0m=4, s1w=4, s2m=4, s3w=4, s4m=4, s5w=4, s6m=4, s7w=4)
    for fold in speaker_k_fold(corpus, n_folds=4):
        assert sorted(name[-1] for name in speakers(corpus, fold.test)) == ["m", "w"]


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(st.from_regex(r"[0-9]{2}[mwx]", fullmatch=True), st.integers(1, 30), min_size=5, max_size=25),
    st.integers(3, 5),
    st.randoms(use_true_random=False),
)
def test_groups_are_balanced_whatever_the_order_of_utterances(n_utterances, n_folds, random):
    corpus = speakers_with(**n_utterances)
    sizes = [len(fold.test) for fold in speaker_k_fold(corpus, n_folds=n_folds)]
    assert max(sizes) - min(sizes) <= max(n_utterances.values())
    rows = [(item.speaker, item.gender, None) for item in corpus.utterances]
    random.shuffle(rows)
    shuffled = make_corpus(*rows)
    assert [speakers(shuffled, fold.test) for fold in speaker_k_fold(shuffled, n_folds=n_folds)] == [
        speakers(corpus, fold.test) for fold in speaker_k_fold(corpus, n_folds=n_folds)
    ]


def test_k_fold_refuses_too_few_folds_or_speakers():
    with pytest.raises(ValueError, match="n_folds must be at least 3, got 2"):
        speaker_k_fold(three_speakers(), n_folds=2)
    with pytest.raises(ValueError, match="corpus must have at least 6 speakers for speaker_6_fold, got 3"):
        PROTOCOLS["speaker_6_fold"](three_speakers())


@pytest.mark.parametrize(("n_speakers", "validating"), [(2, "1"), (4, "3"), (5, "4"), (6, "4"), (10, "49")])
def test_single_validates_on_every_fifth_speaker(n_speakers, validating):
    corpus = make_corpus(*((f"{number}", None, None) for number in range(n_speakers)))
    (fold,) = single(corpus)
    assert speakers(corpus, fold.validation) == set(validating)
    assert fold.test == ()
    assert len(fold.train) == n_speakers - len(validating)


def test_single_needs_two_speakers():
    with pytest.raises(ValueError, match="corpus must have at least 2 speakers for single, got 1"):
        single(make_corpus(("a", None, None)))


def test_fixed_follows_the_corpus_even_without_speakers():
    corpus = make_corpus(*[(None, None, None)] * 4, split=("test", "train", "validation", "train"))
    assert fixed(corpus) == (Fold("fixed", train=(1, 3), validation=(2,), test=(0,)),)


def test_fixed_refuses_utterances_without_a_split():
    corpus = make_corpus(*[(None, None, None)] * 7, split=("test", *[None] * 6))
    message = "every utterance must have a split for fixed, got 6 without: 1, 2, 3, 4, 5, and 1 more"
    with pytest.raises(ValueError, match=message):
        fixed(corpus)


@pytest.mark.parametrize("name", sorted(set(PROTOCOLS) - {"fixed"}))
def test_a_corpus_without_speakers_is_refused(name):
    corpus = make_corpus(("a", None, "1"), (None, None, "2"), ("c", None, "3"))
    with pytest.raises(ValueError, match=f"every utterance must have a speaker for {name}, got 1 without: 1"):
        PROTOCOLS[name](corpus)


@pytest.mark.parametrize(
    ("fold", "message"),
    [
        (Fold("f", (), (1,), (2,)), "fold f must have utterances in its train part, got none"),
        (Fold("f", (0,), (), (2,)), "fold f must have utterances in its validation part, got none"),
        (Fold("f", (0,), (1,), (1,)), "fold f must hold an utterance once, got 1 in validation and test"),
        (Fold("f", (0,), (2,), (4,)), "fold f must hold indices below 4, got 4 in test"),
        (Fold("f", (0,), (2, -1), ()), "fold f must hold indices below 4, got -1 in validation"),
        (
            Fold("f", (0, 1), (2,), (3,)),
            "fold f must not share speakers or recordings, got speaker a in train and test",
        ),
    ],
)
def test_parts_that_are_not_separate_are_refused(fold, message):
    with pytest.raises(ValueError, match=message):
        check_leaks(three_speakers(), fold, [])


def test_a_recording_in_two_parts_is_refused():
    corpus = three_speakers()
    b, a, c, again = corpus.utterances
    message = "fold f must not share speakers or recordings, got recording 0 = 2 in train and validation"
    with pytest.raises(ValueError, match=message):
        check_leaks(corpus, Fold("f", (0,), (2,), (1, 3)), [(b, c)])
    check_leaks(corpus, Fold("f", (0,), (2,), (1, 3)), [(a, again)])
    check_leaks(corpus, Fold("f", (0,), (2,), ()), [(b, a)])
